"""The files of the numpy read paths: anyone's numpy reads them, and what is not such a file is an error."""

import errno
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

from kvbench.records.schema import RECORD_DTYPE, Path
from kvbench.tiers.arena import Arena, Memory
from kvbench.tiers.file.tier import FileTier, npy_header
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Cell
from kvbench.units import SECTOR_BYTES

NBYTES = 5 * SECTOR_BYTES


@pytest.fixture(params=[Path.NUMPY, Path.DOUBLE_COPY])
def tier(request: pytest.FixtureRequest, tmp_path: FilePath) -> Iterator[FileTier]:
    tier = FileTier(tmp_path, request.param, Path.BUFFERED, 2 * SECTOR_BYTES, drop_page_cache=True)
    yield tier
    tier.close()


def cell() -> Cell:
    return Cell(np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8), 0, np.zeros(1, dtype=np.int32))


def write(tier: FileTier, arena: Arena, payload: Payload, key: int) -> Memory:
    tier.allocate(key, NBYTES)
    with arena.lease(NBYTES) as lease:
        source = lease.memory(key, NBYTES, 0, NBYTES)
        payload.make(source, key, 0)
        tier.write(cell(), key, WHOLE, source)
    return source


def test_numpy_reads_the_file_as_the_bytes_of_the_object(tier: FileTier, arena: Arena, payload: Payload) -> None:
    source = write(tier, arena, payload, 1)
    start = int(source.extents[0, 0])
    loaded = np.load(tier.where(1), allow_pickle=False)
    assert loaded.dtype == np.uint8
    assert (loaded == source.buffer[start : start + NBYTES]).all()


def test_the_data_behind_the_header_is_aligned(tier: FileTier, arena: Arena, payload: Payload) -> None:
    write(tier, arena, payload, 1)
    assert FilePath(tier.where(1)).stat().st_size == SECTOR_BYTES + NBYTES
    header = npy_header(NBYTES, 1)
    assert (header.nbytes, header.ctypes.data % SECTOR_BYTES) == (SECTOR_BYTES, 0)


def test_no_two_headers_are_the_same() -> None:
    assert len({npy_header(NBYTES, key).tobytes() for key in (0, 1, 2**63, 2**64 - 1)}) == 4


def test_largest_sizes_fit_the_header() -> None:
    assert f"({2**62},)".encode() in npy_header(2**62, 2**64 - 1).tobytes()


@pytest.mark.parametrize(
    "stranger",
    [
        np.zeros(NBYTES + 1, dtype=np.uint8),
        np.zeros(NBYTES // 8, dtype=np.float64),
        np.zeros(0, dtype=np.uint8),
        np.array(["text"]),
    ],
    ids=["longer", "numbers", "empty", "text"],
)
def test_another_array_in_the_place_of_an_object_is_an_input_output_error(
    tier: FileTier, arena: Arena, payload: Payload, stranger: np.ndarray
) -> None:
    write(tier, arena, payload, 1)
    np.save(tier.where(1), stranger)
    at = cell()
    with pytest.raises(OSError, match=r"not the \.npy file that was written") as caught:
        tier.read(at, 1, WHOLE, Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64)))
    assert caught.value.errno == at.record["errno"] == errno.EIO


def test_the_double_copy_is_counted_as_a_copy_and_the_single_one_is_not(
    tier: FileTier, arena: Arena, payload: Payload
) -> None:
    write(tier, arena, payload, 1)
    at = cell()
    tier.read(at, 1, WHOLE, Memory(np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64)))
    assert (at.record["copy_ns"] > 0) == (tier.read_path == Path.DOUBLE_COPY)
    assert 0 < at.record["span_ns"] <= at.record["wall_ns"]


def failing(monkeypatch: pytest.MonkeyPatch, message: str, times: int) -> None:
    """Have `np.load` fail so often as Python itself does where two threads read headers at once."""
    load: Any = np.load
    left = [times]

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise SystemError(message)
        return load(*arguments, **options)

    monkeypatch.setattr(np, "load", sometimes)


def test_a_header_that_python_fails_to_read_is_read_again(
    tier: FileTier, arena: Arena, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tier, arena, payload, 1)
    failing(monkeypatch, "AST constructor recursion depth mismatch (before=54, after=52)", 3)
    row = cell()
    _, landed = tier.read(row, 1, WHOLE, source)
    assert landed is not None
    assert landed.buffer.nbytes == NBYTES
    assert (row.record["nbytes"], row.record["errno"]) == (NBYTES, 0)
    assert row.record["wall_ns"] == row.record["host_ns"] + row.record["runq_ns"] + row.record["device_ns"]


@pytest.mark.parametrize(("message", "times"), [("another", 1), ("AST constructor recursion depth mismatch", 100)])
def test_what_goes_on_failing_is_an_error(
    tier: FileTier, arena: Arena, payload: Payload, monkeypatch: pytest.MonkeyPatch, message: str, times: int
) -> None:
    source = write(tier, arena, payload, 1)
    failing(monkeypatch, message, times)
    with pytest.raises(SystemError, match=message):
        tier.read(cell(), 1, WHOLE, source)
