"""Calibration measures something, with any arena, leaves nothing behind, and ends however many ranks a node has."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.cluster.comm import SerialComm
from kvbench.cluster.signals import Interrupt, Interrupted
from kvbench.cluster.topology import discover
from kvbench.errors import KvbenchError
from kvbench.records.schema import Path
from kvbench.run.calibration import (
    CALIBRATION_KEY,
    LONGEST_TURNS_S,
    CalibrationObject,
    Turns,
    memory_copy_gib_per_s,
    turns_s,
)
from kvbench.tiers.arena import Arena
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.units import KIB, MIB, SECTOR_BYTES, SEGMENT_BYTES


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_memory_is_copied_within_an_arena_of_any_size(segments: int, payload: Payload) -> None:
    arena = Arena(segments * SEGMENT_BYTES, 1, payload.body)
    assert memory_copy_gib_per_s(arena, 0.0, 256 * KIB) > 0
    copies = arena.bytes[: arena.nbytes].reshape(segments, -1)
    assert (copies == payload.body).all(), "fit for stamping as before"


@pytest.mark.parametrize("nbytes", [SECTOR_BYTES, 9 * MIB])
@pytest.mark.parametrize("read_path", [Path.BUFFERED, Path.NUMPY, Path.MMAP_TOUCH])
def test_storage_is_read_and_the_object_removed(
    tmp_path: FilePath, payload: Payload, read_path: Path, nbytes: int
) -> None:
    arena = Arena(2 * SEGMENT_BYTES, 1, payload.body)
    tier = FileTier(tmp_path, read_path, Path.BUFFERED, 256 * KIB, drop_page_cache=True)
    tried = CalibrationObject(tier, arena, payload, nbytes)
    tried.write()
    assert len(list(tmp_path.iterdir())) == 1
    assert tried.read_gib_per_s(0.0) > 0
    tried.delete()
    assert list(tmp_path.iterdir()) == []
    tier.close()


@pytest.fixture(params=[Path.BUFFERED, Path.DIRECT, Path.NUMPY, Path.DOUBLE_COPY, Path.MMAP_TOUCH, Path.MMAP_COPY])
def tried(tmp_path: FilePath, payload: Payload, request: pytest.FixtureRequest) -> Iterator[CalibrationObject]:
    """An object of 9 MiB that is written, by each read path, and an arena of 8 MiB."""
    tier = FileTier(tmp_path, request.param, Path.BUFFERED, 256 * KIB, drop_page_cache=True)
    made = CalibrationObject(tier, Arena(2 * SEGMENT_BYTES, 1, payload.body), payload, 9 * MIB, verify_full=True)
    made.write()
    yield made
    tier.close()


def file_of(tried: CalibrationObject) -> FilePath:
    return FilePath(tried.tier.where(CALIBRATION_KEY))


def spoil_last_sector(tried: CalibrationObject) -> None:
    with open(file_of(tried), "r+b") as file:
        file.seek(-SECTOR_BYTES, os.SEEK_END)
        file.write(b"not what was written")


def test_a_spoiled_object_is_told_with_its_own_name_and_leaves_nothing_for_others(tried: CalibrationObject) -> None:
    assert tried.read_gib_per_s(0.0) > 0
    spoil_last_sector(tried)
    with pytest.raises(KvbenchError) as raised:
        tried.read_gib_per_s(0.0)
    message = str(raised.value)
    assert message.startswith(
        f"{file_of(tried)}: the data is not what was written: at offset {9 * MIB - SECTOR_BYTES} "
    )
    assert "kvbench's own object" in message
    copies = tried.arena.bytes[: tried.arena.nbytes].reshape(2, -1)
    assert (copies == tried.payload.body).all(), "fit for stamping as before"


def test_an_error_in_calibration_names_the_object(tried: CalibrationObject) -> None:
    file_of(tried).unlink()
    told = f"^read of {file_of(tried)} failed: No such file or directory; .* own object"
    with pytest.raises(KvbenchError, match=told), tried.told("read"):
        tried.read_gib_per_s(0.0)


@given(st.floats(0, 60), st.integers(1, 10_000))
def test_the_turns_of_any_number_of_ranks_end_in_time_and_few_ranks_have_all_they_ask_for(
    seconds: float, ranks: int
) -> None:
    assert turns_s(seconds, ranks) <= LONGEST_TURNS_S
    if seconds * ranks <= LONGEST_TURNS_S:
        assert turns_s(seconds, ranks) == seconds * ranks


def turns(rank: int, ranks: int, interrupt: Interrupt) -> Turns:
    """Those of one rank of a node, without the others."""
    return Turns(replace(discover(SerialComm()), local_rank=rank, local_size=ranks), 1.0, interrupt)


def test_many_ranks_have_shorter_turns_alone_and_the_whole_time_together() -> None:
    asked = []

    def figure(seconds: float) -> float:
        asked.append(seconds)
        return 1.0

    taken = turns(3, 50, Interrupt())
    taken.measure("memcpy", figure)
    assert asked == [LONGEST_TURNS_S / 50, 1.0]
    assert [row["mode"] for row in taken.rows()] == [b"alone", b"together"]


def test_a_rank_whose_turn_comes_too_late_is_measured_with_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = count(step=10)
    monkeypatch.setattr("kvbench.run.calibration.time.monotonic", lambda: float(next(now_s)))
    late, first = turns(3, 50, Interrupt()), turns(0, 50, Interrupt())
    for taken in (late, first):
        taken.measure("storage-read", lambda seconds: 1.0)
    assert [row["mode"] for row in late.rows()] == [b"together"]
    assert [row["mode"] for row in first.rows()] == [b"alone", b"together"]


def test_a_rank_that_is_asked_to_end_measures_no_further() -> None:
    def figure(seconds: float) -> float:
        signal.raise_signal(signal.SIGINT)
        return 1.0

    with Interrupt() as interrupt:
        taken = turns(0, 1, interrupt)
        taken.measure("memcpy", figure)
        taken.measure("storage-read", lambda seconds: pytest.fail("went on"))
        with pytest.raises(Interrupted):
            taken.rows()
