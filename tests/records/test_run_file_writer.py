"""Writing a run file: what goes in comes out, and nothing half-written is left behind."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.records.file import CHUNK_ROWS, RunFileWriter
from kvbench.records.reader import open_run, read_columns
from kvbench.records.schema import RECORD_COLUMNS, RECORD_DTYPE, REQUEST_COLUMNS, REQUEST_DTYPE, Op

REQUIRED: dict[str, str | int | float] = {
    "status": "complete",
    "tiers_json": '[{"name": "s", "kind": "file"}]',
    "config_json": "{}",
    "ranks": 1,
    "timer": "extension",
}


def noise(dtype: np.dtype[np.void], count: int) -> NDArray[np.void]:
    """Rows that do not compress, with codes that exist."""
    rows = np.frombuffer(np.random.default_rng(1).bytes(count * dtype.itemsize), dtype).copy()
    for column in ("op", "phase", "path", "timed_by", "locality", "state", "tier"):
        if column in (dtype.names or ()):
            rows[column] %= 1 if column == "tier" else 2
    return rows


def write(path: Path, records: NDArray[np.void]) -> Path:
    with RunFileWriter(path) as writer:
        writer.append_records(records)
        writer.set_attributes(REQUIRED)
        return writer.finish()


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """Files cannot grow beyond `nbytes`, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("pieces", [[0], [1], [100, 0, 7], [CHUNK_ROWS], [CHUNK_ROWS - 5, 10], [CHUNK_ROWS + 9]])
def test_records_come_back_as_they_were_appended(tmp_path: Path, pieces: list[int]) -> None:
    rows = noise(RECORD_DTYPE, sum(pieces))
    with RunFileWriter(tmp_path / "run.h5") as writer:
        start = 0
        for piece in pieces:
            writer.append_records(rows[start : start + piece])
            start += piece
        writer.set_attributes(REQUIRED)
        path = writer.finish()
    columns = read_columns(open_run(path), "records")
    assert tuple(columns) == RECORD_COLUMNS
    for name, values in columns.items():
        assert values.dtype == RECORD_DTYPE[name]
        np.testing.assert_array_equal(values, rows[name])


def test_requests_tables_and_attributes_come_back(tmp_path: Path) -> None:
    rows = noise(REQUEST_DTYPE, 50)
    with RunFileWriter(tmp_path / "run.h5") as writer:
        writer.append_requests(rows)
        writer.write_table("ranks", {"rank": np.arange(3), "host": ["a", "", "naïve 节点"], "core": np.ones(3)})
        writer.write_table("samples", {"node": np.empty(0, np.int64), "cpu_steal_pct": np.empty(0)})
        writer.set_attributes(REQUIRED | {"mpi": "", "config_json": '{"x": "' + "y" * 300_000 + '"}', "load": 0.5})
        path = writer.finish()
    run = open_run(path)
    requests = read_columns(run, "requests")
    assert tuple(requests) == REQUEST_COLUMNS
    for name, values in requests.items():
        np.testing.assert_array_equal(values, rows[name])
    assert read_columns(run, "ranks")["host"].tolist() == ["a", "", "naïve 节点"]
    assert run.tables["samples"].rows == 0
    assert run.tables["ranks"].columns == ("rank", "host", "core")
    assert run.attributes["mpi"] == ""
    assert run.attributes["load"] == 0.5
    assert len(str(run.attributes["config_json"])) > 300_000


def test_the_file_itself_names_its_codes(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        path = writer.finish()
    with h5py.File(path) as file:
        names = h5py.check_enum_dtype(file["records/op"].dtype)
    assert names == {op.name.lower(): int(op) for op in Op}


def test_until_it_is_finished_the_file_does_not_have_its_name(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        assert [path.name for path in tmp_path.iterdir()] == [writer.temporary.name]
        assert writer.temporary.name.endswith(".h5.partial")
        writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_abort_leaves_nothing_and_leaving_the_context_aborts(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        writer.append_records(noise(RECORD_DTYPE, 10))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="finished or aborted"):
        writer.append_records(noise(RECORD_DTYPE, 10))


def test_an_existing_file_is_refused_and_left_alone_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "run.h5", noise(RECORD_DTYPE, 10))
    before = path.read_bytes()
    with pytest.raises(KvbenchError, match=r"run\.h5 exists.*--overwrite"):
        RunFileWriter(path)
    assert path.read_bytes() == before
    with RunFileWriter(path, overwrite=True) as writer:
        assert path.read_bytes() == before
        writer.finish()
    assert h5py.is_hdf5(path)
    assert path.read_bytes() != before


def test_a_file_that_appears_during_the_run_is_kept_and_so_are_the_results(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        (tmp_path / "run.h5").write_text("mine")
        with pytest.raises(KvbenchError, match="results are kept in"):
            writer.finish()
    assert (tmp_path / "run.h5").read_text() == "mine"
    assert h5py.is_hdf5(writer.temporary)


@pytest.mark.parametrize("name", ["missing/run.h5", "."])
def test_a_bad_target_is_one_message_that_names_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(KvbenchError, match="cannot write"):
        RunFileWriter(tmp_path / name)


@pytest.mark.parametrize("limit", [1, 1000, 50_000, 5_000_000])
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    rows = noise(RECORD_DTYPE, CHUNK_ROWS + 1000)
    with largest_file(limit), pytest.raises(KvbenchError, match=r"cannot write .*run\.h5: File too large"):
        write(tmp_path / "run.h5", rows)
    assert list(tmp_path.iterdir()) == []


def test_after_a_full_disk_another_file_can_be_written(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(KvbenchError):
        write(tmp_path / "run.h5", noise(RECORD_DTYPE, 10))
    assert open_run(write(tmp_path / "run.h5", noise(RECORD_DTYPE, 10))).tables["records"].rows == 10


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write(tmp_path / "good.h5", noise(RECORD_DTYPE, 10))
    with largest_file(1000), pytest.raises(KvbenchError):
        write(tmp_path / "full.h5", noise(RECORD_DTYPE, 10))
    assert len(os.listdir("/proc/self/fd")) == before


def test_columns_of_a_table_must_have_one_length(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer, pytest.raises(ValueError, match="differ in length"):
        writer.write_table("ranks", {"rank": np.arange(3), "host": ["a"]})


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    program = f"""
import resource, sys
import numpy as np
from kvbench.records.file import RunFileWriter
from kvbench.records.schema import RECORD_DTYPE
def peak_mib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows = np.zeros(8192, RECORD_DTYPE)
with RunFileWriter({str(tmp_path / "run.h5")!r}) as writer:
    for _ in range(40): writer.append_records(rows)
    before = peak_mib()
    for _ in range(160): writer.append_records(rows)
    print(peak_mib() - before)
"""
    grown_mib = float(subprocess.check_output([sys.executable, "-c", program], text=True))
    assert grown_mib < 16  # the rows that were added take 140 MiB
