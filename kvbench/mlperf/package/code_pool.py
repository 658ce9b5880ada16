"""The pool of code images of a tree, and the pointers of its leaves (Rules.md 2.1.6).

An image that is there already is shared: several leaves, systems and divisions may have run the same source. The pool
is `code-images`, as the rules have it since v3.0, or called as the submitter is, as v3.0 was published.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import kvbench
from kvbench.errors import KvbenchError
from kvbench.mlperf.package.source_copy import copy_source
from kvbench.mlperf.tree.code_hash import ALGORITHM, HASH_NAME
from kvbench.mlperf.tree.code_images import MARKER_NAME, POINTER_NAME, SHARED_POOL
from kvbench.mlperf.tree.untrusted import Unreadable, dig, read_json

Source = tuple[str, str | None]
"""The version of kvbench that ran, and its commit where one is known."""


PoolKind = Literal["tree", "submitter"]
"""Whose pool images go to: that of the whole tree, or that of the submitter."""


def pool_name(kind: PoolKind, submitter: str) -> str:
    """The directory of the pool at the root of a tree."""
    return SHARED_POOL if kind == "tree" else submitter


def make_image(pool: Path, source: Source) -> str:
    """Make the image of `source` in `pool`; returns its hash. Raises KvbenchError, OSError."""
    pool.mkdir(parents=True, exist_ok=True)
    if not (pool / MARKER_NAME).exists():
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = f"mlpstorage_version=kvbench {kvbench.__version__}\nmigration_completed_at={now}\n"
        (pool / MARKER_NAME).write_text(text, encoding="utf-8")
    made = pool / "making"
    digest = copy_source(made, *source)
    made.rename(pool / image_name(digest))
    return digest


def image_name(digest: str) -> str:
    """The directory of an image in its pool."""
    return f"code-{digest[:8]}"


def point_at(leaf: Path, digest: str) -> None:
    """Have a leaf say that it ran the image `digest`. Raises OSError."""
    (leaf / POINTER_NAME).write_text(f"{ALGORITHM}:{digest}", encoding="ascii")


def new_parts(there: Path, pool: str, digests: Sequence[str]) -> list[Path]:
    """The images of `digests`, and the marker, that `pool` of the tree at `there` lacks: paths below a tree.

    Raises KvbenchError where another image has the name of one of them.
    """
    parts = []
    for digest in dict.fromkeys(digests):
        part = Path(pool) / image_name(digest)
        if not os.path.lexists(there / part):
            parts.append(part)
        elif _recorded_hash(there / part) != digest:
            raise KvbenchError(
                f"{there / part} is another image than that of the source of these results, {digest}: give another "
                "tree with -o"
            )
    marker = Path(pool) / MARKER_NAME
    return parts if os.path.lexists(there / marker) else [*parts, marker]


def _recorded_hash(image: Path) -> object:
    try:
        return dig(read_json(image / HASH_NAME), "hash")
    except Unreadable:
        return None
