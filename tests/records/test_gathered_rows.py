"""The rows of a rank on their way into the run file: first those of the spill file, then those in memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kvbench.errors import KvbenchError
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.gathered_rows import RankRows, Spilled
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.stream import RowStream
from kvbench.records.tables import SAMPLE_DTYPE

BEHIND = ClockReading(0, -1000, 0, 0)
CLOCK = CommonClock(BEHIND, BEHIND)
"""Of a node whose clock is 1000 ns behind rank 0's."""


def add(store: RowStore, column: str, times: Iterable[int]) -> None:
    for time in times:
        _, row = store.reserve()
        store.rows[row][column] = time
        store.commit()


def times(chunks: Iterable[npt.NDArray[Any]], column: str) -> list[int]:
    return [time for chunk in chunks for time in chunk[column].tolist()]


@pytest.fixture
def writer(tmp_path: Path) -> SpillWriter:
    return SpillWriter(tmp_path / "rank.spill", {}, SAMPLE_DTYPE)


def test_all_rows_come_once_on_the_clock_of_rank_0(writer: SpillWriter) -> None:
    stores = [RowStore(RECORD_DTYPE, 4) for _ in range(2)]
    requests = RowStore(REQUEST_DTYPE, 4)
    stream = RowStream(stores, requests, [], writer, pytest.fail)
    add(stores[0], "t_start_ns", range(10))
    add(stores[1], "t_start_ns", range(100, 103))
    add(requests, "end_ns", range(5))
    stream.hand_on()
    # What came after the last round that the file holds.
    add(stores[0], "t_start_ns", range(10, 13))
    add(requests, "end_ns", range(5, 7))
    spilled = Spilled(writer.path, writer.kept_bytes, stream.kept_records, stream.kept_requests)
    rows = RankRows(stores, requests, CLOCK, spilled)
    expected = [*range(10), *range(100, 103), *range(10, 13)]
    assert times(rows.record_chunks(), "t_start_ns") == [1000 + time for time in expected]
    assert times(rows.request_chunks(), "end_ns") == [1000 + time for time in range(7)]
    assert stores[0].released == 8, "and some are no longer in memory"


def test_rows_of_a_round_that_the_file_does_not_hold_whole_are_read_from_memory(
    writer: SpillWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, requests = RowStore(RECORD_DTYPE, 4), RowStore(REQUEST_DTYPE)
    stream = RowStream([store], requests, [], writer, pytest.fail)
    add(store, "t_start_ns", range(6))
    stream.hand_on()

    def fdatasync(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("kvbench.records.spill.writer.os.fdatasync", fdatasync)
    add(store, "t_start_ns", range(6, 20))
    stream.hand_on()
    add(store, "t_start_ns", range(20, 30))
    stream.hand_on()
    spilled = Spilled(writer.path, writer.kept_bytes, stream.kept_records, stream.kept_requests)
    assert spilled.records == [6]
    found = times(RankRows([store], requests, CLOCK, spilled).record_chunks(), "t_start_ns")
    assert found == [1000 + time for time in range(30)]


def test_without_a_spill_file_all_is_in_memory() -> None:
    store, requests = RowStore(RECORD_DTYPE, 4), RowStore(REQUEST_DTYPE)
    add(store, "t_start_ns", range(9))
    rows = RankRows([store], requests, CLOCK)
    assert times(rows.record_chunks(), "t_start_ns") == [1000 + time for time in range(9)]
    assert times(rows.request_chunks(), "end_ns") == []


def test_the_rows_of_the_rank_itself_are_not_changed() -> None:
    store = RowStore(RECORD_DTYPE, 4)
    add(store, "t_start_ns", range(3))
    list(RankRows([store], RowStore(REQUEST_DTYPE), CLOCK).record_chunks())
    assert np.concatenate(store.views())["t_start_ns"].tolist() == [0, 1, 2]


def test_rows_of_a_file_that_has_no_name_any_more_are_read_back(writer: SpillWriter) -> None:
    store, requests = RowStore(RECORD_DTYPE, 4), RowStore(REQUEST_DTYPE)
    stream = RowStream([store], requests, [], writer, pytest.fail)
    add(store, "t_start_ns", range(9))
    stream.hand_on()
    writer.path.unlink()
    spilled = Spilled(writer.path, writer.kept_bytes, stream.kept_records, stream.kept_requests, writer.descriptor)
    rows = RankRows([store], requests, CLOCK, spilled)
    for _ in range(2):
        assert times(rows.record_chunks(), "t_start_ns") == [1000 + time for time in range(9)]


def test_a_file_that_was_damaged_meanwhile_is_an_error_that_names_it(writer: SpillWriter) -> None:
    writer.take_records(np.zeros(100, RECORD_DTYPE))
    writer.flush()
    content = bytearray(writer.path.read_bytes())
    content[-2000] ^= 1
    writer.path.write_bytes(content)
    spilled = Spilled(writer.path, writer.kept_bytes, [100], 0)
    rows = RankRows([RowStore(RECORD_DTYPE)], RowStore(REQUEST_DTYPE), CLOCK, spilled)
    with pytest.raises(KvbenchError, match=r"rank\.spill was damaged while the run went on: the checksum"):
        list(rows.record_chunks())
