"""Whatever is done to a run file: it is read as it was, or refused with a KvbenchError that names it. Nothing else."""

import contextlib
import io
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that run files are compressed with
import kvbench_analysis as ka
import numpy as np
import pytest
from cases import fuzz, made, refused
from condensing import condensed, within_window
from edits import EDITS, edited
from hypothesis import given
from hypothesis import strategies as st
from overlapped import overlapped
from rich.console import Console
from synthetic import STORAGE, synthetic_run

from kvbench.errors import KvbenchError
from kvbench.records.reader import open_run, read_columns
from kvbench.records.schema import Op

pytestmark = pytest.mark.slow

KINDS: Final = ("full", "histogram")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small run file with all rows, and one with a sample and histograms."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(3)
    run = within_window(synthetic_run(rng, ranks=2, nodes=1, operations=60))
    run = overlapped(run, rng, {(STORAGE, Op.WRITE): 0.5})
    files = {"full": run, "histogram": condensed(run, "histogram", 50)}
    return {kind: file.write(folder / f"{kind}.h5") for kind, file in files.items()}


@pytest.fixture(scope="module")
def truth(good: dict[str, Path]) -> dict[str, Any]:
    return {kind: content(path) for kind, path in good.items()}


def content(path: Path) -> dict[str, Any]:
    """All that the reader reads."""
    run = open_run(path)
    tables = {
        f"{table}/{name}": values.tolist() for table in run.tables for name, values in read_columns(run, table).items()
    }
    return dict(run.attributes) | tables


def used(path: Path) -> None:
    """Everything that the commands make of a run file, but for pictures and pages."""
    run = ka.load(path)
    summary = ka.summarize(run)
    ka.to_json(summary)
    ka.print_summary(summary, Console(file=io.StringIO(), width=80))
    if float(summary.run["window_s"] or 0) < 1000:
        ka.timeline(run)
    ka.attribution(run)


def read_or_refused(reader: str, path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` gives, or None where it refuses with an error that names the file."""
    made[reader] += 1
    try:
        with warnings.catch_warnings():
            # Sums of absurd numbers overflow: that is no failure.
            warnings.simplefilter("ignore", RuntimeWarning)
            return read(path)
    except KvbenchError as error:
        refused[reader] += 1
        message = str(error)
    assert path.name in message
    return None


@pytest.mark.parametrize("kind", KINDS)
@fuzz(35)
@given(edits=EDITS)
def test_damaged_bytes_are_found_or_do_not_matter(
    good: dict[str, Path], truth: dict[str, Any], tmp_path: Path, kind: str, edits: list[Any]
) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes(edited(good[kind].read_bytes(), edits))
    found = read_or_refused("run file, damaged bytes", path, content)
    assert found is None or found == truth[kind]


ATTRIBUTE = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(2**63, 2**64 - 1).map(np.uint64),
    st.floats(),
    st.booleans(),
    st.text(max_size=20),
    st.text(max_size=20).map(lambda text: np.bytes_(text.encode("utf-8", "replace"))),
    st.binary(max_size=20).map(np.void),
    st.sampled_from(
        ["[]", "{}", "null", "[" * 5000, '[{"name": 1}]', '[{"name": "a", "kind": "b", "storage": []}]', "9" * 5000]
    ),
    st.sampled_from(
        ["full", "sampled", "histogram", "complete", "recovered", "python", "shared", "../../../etc/passwd"]
    ),
    st.lists(st.integers(0, 9), max_size=3),
    st.just(h5py.Empty("f8")),
)
COLUMN = st.sampled_from(
    [
        np.zeros((2, 2)),
        np.float64(1.0),
        np.zeros(0),
        np.array([b"text", b"more"]),
        np.zeros(3, [("a", "i8")]),
        np.zeros(3, bool),
        np.zeros(3, complex),
        np.zeros(3, "f2"),
        np.array([np.inf, np.nan, -np.inf]),
        np.array([2**64 - 1, 0, 5], np.uint64),
        np.array([-(2**63), 2**63 - 1, -1]),
        np.arange(3, dtype=">i4"),
        "one text",
        h5py.Empty("i8"),
    ]
)
VALUE = st.sampled_from([-(2**63), -(2**40), -1, 0, 1, 7, 255, 2**31, 2**40, 2**62, 2**63 - 1])


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, float, Any]]:
    """What to do to which object (as shares of all tables, and of their columns), and with what."""
    kinds = {
        "attribute": ATTRIBUTE,
        "no attribute": st.none(),
        "value": st.tuples(VALUE, st.integers(0, 10)),
        "all values": VALUE,
        "column": COLUMN,
        "column of as many rows": st.sampled_from(["i8", "u1", "f8", "f4", "u8", "S4", "i2"]),
        "no column": st.none(),
        "more columns": st.text("ab/.\0\n", min_size=1, max_size=5),
        "no table": st.none(),
        "table as column": st.none(),
        "rows": st.sampled_from([0, 1, 10**6, 2**40]),
        "link": st.sampled_from(["soft", "external", "hard", "cycle"]),
        "elsewhere": st.sampled_from(["virtual", "external"]),
        "filter": st.sampled_from([1, 4, 305, 32000, 32015]),
        "text": st.binary(min_size=1, max_size=6),
    }
    place = st.floats(0, 1, exclude_max=True)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(kinds)))
        found.append((kind, draw(place), draw(place), draw(kinds[kind])))
    return found


def mutate(file: Any, kind: str, first: float, second: float, what: Any) -> None:
    """One change by h5py's own means, so that all checksums are right."""
    if kind in ("attribute", "no attribute"):
        names = sorted(file.attrs)
        name = names[int(first * len(names))]
        del file.attrs[name]
        if kind == "attribute":
            file.attrs[name] = what
        return
    tables = [name for name in file if isinstance(file.get(name), h5py.Group)]
    name = tables[int(first * len(tables))]
    if kind in ("no table", "table as column"):
        del file[name]
        if kind == "table as column":
            file[name] = np.arange(3)
        return
    columns = [column for column in file[name] if isinstance(file[name].get(column), h5py.Dataset)]
    if columns:
        change_column(file, f"{name}/{columns[int(second * len(columns))]}", kind, what)


def change_column(file: Any, column: str, kind: str, what: Any) -> None:
    dataset, table = file[column], file[column].parent
    if kind in ("value", "all values") and dataset.dtype.kind in "iuf":
        number, place = what if kind == "value" else (what, 0)
        values = dataset[:]
        values[place % len(values) if kind == "value" else slice(None)] = np.array([number]).astype(dataset.dtype)[0]
        dataset[:] = values
    elif kind == "text" and dataset.dtype.kind == "S":
        values = dataset[:]
        values[:1] = what
        dataset[:] = values
    elif kind == "rows" and dataset.shape[0] < 10**5:  # HDF5 takes its time to shrink a larger one again.
        for other in table.values():
            other.resize((what,))
    elif kind == "more columns":
        table.create_dataset(what, data=np.arange(2))
    elif kind in ("column", "column of as many rows", "no column", "link", "elsewhere", "filter"):
        rows = dataset.shape[0] if dataset.shape else 0
        del file[column]
        replace(file, column, kind, what, rows)


def replace(file: Any, column: str, kind: str, what: Any, rows: int) -> None:
    """Put something else where `column` was."""
    if kind == "column":
        file[column] = what
    elif kind == "column of as many rows":
        file[column] = np.zeros(rows, what)
    elif kind == "link":
        targets = {
            "soft": h5py.SoftLink("/ranks"),
            "external": h5py.ExternalLink("/etc/passwd", "/"),
            "hard": file["/"],
        }
        file[column] = targets.get(what, file[column.partition("/")[0]])
    elif kind == "elsewhere" and what == "virtual":
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,), dtype="i8")
        file.create_virtual_dataset(column, layout)
    elif kind == "elsewhere":
        file.create_dataset(column, (3,), "i8", external=[("/etc/passwd", 0, 24)])
    elif kind == "filter":
        file.create_dataset(column, data=np.arange(3), chunks=(3,), compression=what, allow_unknown_filter=True)


@pytest.mark.parametrize("kind", KINDS)
@fuzz(35)
@given(changes=mutations())
def test_a_file_of_another_structure_is_used_or_refused(
    good: dict[str, Path], tmp_path: Path, kind: str, changes: list[Any]
) -> None:
    path = tmp_path / "changed.h5"
    shutil.copy(good[kind], path)
    with h5py.File(path, "r+") as file:
        for change in changes:
            # What h5py itself does not do is no change.
            with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError, KeyError):
                mutate(file, *change)
            if change[0] == "rows":
                # The HDF5 library crashes where such a dataset is deleted or written to again.
                break
    read_or_refused("run file, other structure", path, used)


@fuzz(40)
@given(start=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n"]), rest=st.binary(max_size=2000))
def test_bytes_of_any_kind_are_refused(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "noise.h5"
    path.write_bytes(start + rest)
    assert read_or_refused("run file, any bytes", path, content) is None
