"""Captured copies of source code (Rules.md 2.1.6): pools of images, and the pointer of a leaf to the one that ran.

A pool is `code-images` at the top, or a directory at the top that is called as a submitter is. Its images are
`code-` and the first eight digits of their hash. A leaf names its image in .mlps-code-image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvbench.mlperf.tree.code_hash import HASH_NAME
from kvbench.mlperf.tree.document import Document, read_document, read_text
from kvbench.mlperf.tree.untrusted import MISSING, Entry, dig, entries_of, kind_of

SHARED_POOL: Final = "code-images"
MARKER_NAME: Final = ".mlps-image-pool"
POINTER_NAME: Final = ".mlps-code-image"
_IMAGE: Final = re.compile(r"code-.+", re.DOTALL)
_POINTER: Final = re.compile(r"md5-tree-v2:([0-9a-f]{32})\n?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Image:
    """code-HASH8 of a pool."""

    name: str
    path: Path
    recorded: Document
    """Its .code-hash.json."""

    @property
    def digest(self) -> str | None:
        """The recorded hash, whatever it looks like; None where there is no text."""
        value = dig(self.recorded.content, "hash")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Pool:
    """Images beside each other."""

    name: str
    path: Path
    marker: Document
    """Its .mlps-image-pool: lines NAME=VALUE."""
    images: tuple[Image, ...]
    others: tuple[Entry, ...]
    """What is neither an image nor hidden."""

    @property
    def shared(self) -> bool:
        """Whether it is that of all submitters."""
        return self.name == SHARED_POOL

    @property
    def version(self) -> str | None:
        """The version of mlpstorage that made the marker; None where it does not say."""
        lines = self.marker.content.splitlines() if isinstance(self.marker.content, str) else []
        found = dict(line.partition("=")[::2] for line in lines)
        return found.get("mlpstorage_version")


@dataclass(frozen=True, slots=True)
class Pointer:
    """.mlps-code-image of a leaf."""

    document: Document

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return self.document.path

    @property
    def digest(self) -> str | None:
        """The 32 digits that it names; None where it is absent, unreadable or malformed."""
        text = self.document.content
        match = _POINTER.fullmatch(text) if isinstance(text, str) else None
        return match[1] if match else None


def read_pointer(leaf: Path) -> Pointer:
    """The pointer in the directory `leaf`."""
    return Pointer(read_text(leaf / POINTER_NAME))


def read_pools(entries: Sequence[Entry], divisions: Sequence[str]) -> tuple[Pool, ...]:
    """The pools among the `entries` at the top of a tree; a division is none."""
    found = []
    for entry in entries:
        if entry.kind == "directory" and entry.name not in divisions and not entry.hidden:
            pool = _pool(entry)
            if pool.shared or pool.images or pool.marker.exists:
                found.append(pool)
    return tuple(found)


def image_for(pools: Sequence[Pool], submitter: str, digest: str) -> Image | None:
    """The image that a leaf of `submitter` points at with `digest`: in the shared pool, else in the submitter's."""
    for pool in sorted(pools, key=lambda pool: not pool.shared):
        if pool.shared or pool.name == submitter:
            for image in pool.images:
                if image.digest == digest or (image.recorded.content is MISSING and image.name == f"code-{digest[:8]}"):
                    return image
    return None


def _pool(place: Entry) -> Pool:
    entries = entries_of(place.path)
    images = [entry for entry in entries if entry.kind == "directory" and _IMAGE.fullmatch(entry.name)]
    return Pool(
        name=place.name,
        path=place.path,
        marker=read_text(place.path / MARKER_NAME),
        images=tuple(
            Image(entry.name, entry.path, read_document(entry.path / HASH_NAME))
            for entry in images
            if kind_of(entry.path) == "directory"
        ),
        others=tuple(entry for entry in entries if entry not in images and not entry.hidden),
    )
