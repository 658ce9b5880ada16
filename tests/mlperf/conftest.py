"""Clean trees for the tests of submissions; makes the modules of `harness` and `synthetic` importable for them."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))
# Run files with known content are made where the tests of the analysis are.
sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from made_tree import Made, Plan, make_tree
from published_tree import Published, make_published

from kvbench.mlperf.tree.trial_records import TrialRecords, read_records


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """A clean tree of each division; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("clean")
    return {name: make_tree(folder / name, Plan(division=name)) for name in ("closed", "open")}


@pytest.fixture(scope="session")
def clean_published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    """The same in the form in which v3.0 was published."""
    folder = tmp_path_factory.mktemp("published")
    return {name: make_published(folder / name, Plan(division=name)) for name in ("closed", "open")}


@pytest.fixture
def records_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a check of a small tree is the reading of its run file: one that nobody changed is read once."""
    monkeypatch.setattr("kvbench.mlperf.tree.tree_reading.read_records", _read_once)


def _read_once(path: Path) -> TrialRecords:
    if not path.is_file():
        return read_records(path)
    content = path.read_bytes()
    if content not in _READ:
        _READ[content] = read_records(path)
    return replace(_READ[content], path=path)


_READ: Final[dict[bytes, TrialRecords]] = {}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory in memory where there is such a filesystem: many small trees are copied into it."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def published() -> Path:
    """Cut-down leaves of published submissions, which are no part of the project."""
    data = Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    folder = data / "mlperf" / "published"
    if not folder.is_dir():
        message = f"needs the published leaves of {folder}; KVBENCH_DATA names another data folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder
