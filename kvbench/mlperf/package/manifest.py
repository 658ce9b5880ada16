"""submission.yaml of an organization in a division: what leaves, systems and code images there are, and no figure.

It is made of the tree as it is. One that kvbench made is made anew when something is added to the tree.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

import kvbench
from kvbench.errors import KvbenchError
from kvbench.mlperf.rules.provenance import EDITION
from kvbench.mlperf.tree.code_hash import ALGORITHM
from kvbench.mlperf.tree.code_images import read_pointer
from kvbench.mlperf.tree.document import read_document
from kvbench.mlperf.tree.parts import SEQUENCE_NAME, WORKLOAD
from kvbench.mlperf.tree.tree_reading import MANIFEST_NAME, find_runs
from kvbench.mlperf.tree.untrusted import dig
from kvbench.records.outputs import Kind, check_output, write_output

SCHEMA: Final = "mlps-submission-manifest/1"
_LAYOUT: Final = 3
_UNKNOWN: Final = "unknown"
_US: Final = "kvbench "
_MANIFEST: Final = Kind("a manifest of a submission", (b"schema:",))


def check_manifest(home: Path) -> None:
    """Raise KvbenchError where `home`, the directory of an organization, has a manifest that is not kvbench's."""
    there = read_document(home / MANIFEST_NAME, as_yaml=True)
    made_by = dig(there.content, "generated_by")
    if there.exists and not (isinstance(made_by, str) and made_by.startswith(_US)):
        raise KvbenchError(
            f"{there.path} was not made by kvbench, and would not list what is added: give another tree with -o"
        )


def write_manifest(home: Path, division: str) -> Path:
    """Write the manifest of `home`; returns its path. Raises KvbenchError."""
    runs = list(_runs(home))
    content = {
        "schema": SCHEMA,
        "orgname": home.name,
        "mode": division,
        "rules_edition": EDITION,
        "layout_version": _LAYOUT,
        "generated_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "generated_by": f"{_US}{kvbench.__version__}",
        "tool_versions": sorted({f"{_US}{_version(home / run['leaf'])}" for run in runs}),
        "dlio_commits": [],
        "systems": [
            {"name": path.stem, "description": f"systems/{path.name}", "pdf": f"systems/{path.stem}.pdf"}
            for path in sorted((home / "systems").glob("*.yaml"))
        ],
        "runs": runs,
        "code_images": sorted({run["code_image"] for run in runs}),
        "provenance": {"rules_edition": "tool-constant", "runs": "walked"},
    }
    path = home / MANIFEST_NAME
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_output(check_output(path, _MANIFEST), text.encode(), _MANIFEST)
    return path


def _runs(home: Path) -> Iterator[dict[str, Any]]:
    for system in sorted((home / "results").iterdir()):
        for leaf in sorted(find_runs(system / WORKLOAD)[0]):
            digest = read_pointer(leaf).digest
            yield {
                "leaf": leaf.relative_to(home).as_posix(),
                "benchmark": WORKLOAD,
                "model": leaf.parent.parent.name,
                "command": leaf.parent.name,
                "accelerator": _UNKNOWN,
                "system": system.name,
                # No leaf of kvbench has a stamp of the reference tool, which would say these two.
                "rules_edition": _UNKNOWN,
                "core_config": _UNKNOWN,
                "code_image": _UNKNOWN if digest is None else f"{ALGORITHM}:{digest}",
                "provenance": "derived",
            }


def _version(leaf: Path) -> str:
    version = dig(read_document(leaf / SEQUENCE_NAME).content, "kvbench_version")
    return version if isinstance(version, str) else _UNKNOWN
