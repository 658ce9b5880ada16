"""Ranks that share one key space: who reads what, what is deleted when, and what a broken filesystem does to it."""

from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_harness import SharedJob, hand_over_by_number
from rank_harness import Script, ref, request, wait_for

from kvbench.config.roles import Roles
from kvbench.records.schema import Locality, Op, Path, RequestState
from kvbench.units import SECTOR_BYTES
from kvbench.workload.disaggregated import DecodeSchedule, PrefillSchedule
from kvbench.workload.request import Request

MakeJob = Callable[..., SharedJob]
NOTHING = Script([[]])


@pytest.fixture
def make_job(folder: FilePath) -> Iterator[MakeJob]:
    made: list[SharedJob] = []

    def make(ranks: int = 2, sectors: int = 100, **others: Any) -> SharedJob:
        place = folder / f"job-{len(made)}"
        place.mkdir()
        made.append(SharedJob(place, ranks, sectors, **others))
        return made[-1]

    yield make
    for job in made:
        job.close()


def written_first(job: SharedJob, *requests: Request) -> None:
    """Rank 0 carries `requests` out; the other ranks hear of it."""
    job.run(Script([requests]), *([NOTHING] * (len(job.engines) - 1)))
    assert job.failures == []


def reads(job: SharedJob, rank: int) -> Any:
    rows = job.rows(rank)
    return rows[rows["op"] == Op.READ]


@pytest.mark.parametrize("read_path", [path for path in Path if path < Path.COPY])
def test_what_one_rank_wrote_another_reads_with_the_data_checked(make_job: MakeJob, read_path: Path) -> None:
    job = make_job(read_path=read_path)
    written_first(job, request(0, ref(7, 3), ref(8, 2)))
    job.run(NOTHING, Script([[request(0, ref(7, 3), ref(8, 2))]]))
    assert job.failures == []
    assert job.violations() == {}
    found = reads(job, 1)
    assert found["errno"].tolist() == [0, 0]
    assert sorted(found["nbytes"].tolist()) == [2 * SECTOR_BYTES, 3 * SECTOR_BYTES]
    assert set(found["locality"].tolist()) == {Locality.SAME_NODE}
    assert (job.rows(1)["op"] == Op.WRITE).sum() == 0, "a hit elsewhere is a hit: nothing is written again"
    assert job.engines[1].verified_sectors == 5
    assert job.requests(1)["hit_objects"].tolist() == [2]


def test_a_rank_of_another_node_is_told_from_one_of_the_same(make_job: MakeJob) -> None:
    job = make_job(ranks=3, nodes=(0, 0, 1))
    written_first(job, request(0, ref(7)))
    job.run(Script([[request(1, ref(7))]]), Script([[request(0, ref(7))]]), Script([[request(0, ref(7))]]))
    assert [reads(job, rank)["locality"].tolist() for rank in range(3)] == [
        [Locality.OWN],
        [Locality.SAME_NODE],
        [Locality.OTHER_NODE],
    ]


def test_an_evicted_object_is_gone_for_all_and_its_room_is_used_again(make_job: MakeJob) -> None:
    job = make_job(sectors=4)
    written_first(job, request(0, ref(1, 3)))
    written_first(job, request(1, ref(2, 3)))
    assert not job.file(0, 1).exists()
    assert job.file(0, 2).exists()
    job.run(NOTHING, Script([[request(0, ref(1, 3), prefill=False)]]))
    assert job.requests(1)["miss_objects"].tolist() == [1]
    assert job.sharings[0].counts.retired == 1


def evict_what_is_being_read(job: SharedJob, monkeypatch: pytest.MonkeyPatch, other_rank: Script) -> None:
    """Rank 0 evicts objects 1 and 2 for object 3, which needs only the room of 2: 1 is being read until 3 is there."""
    written_first(job, request(0, ref(1, 1)), request(1, ref(2, 6)))
    really_read = job.tiers[0].read

    def read(cell: Any, key: int, *others: Any) -> Any:
        if key == 1:
            wait_for(lambda: len(job.requests(0)) == 3, "object 3 is not written")
        return really_read(cell, key, *others)

    with monkeypatch.context() as patch:
        patch.setattr(job.tiers[0], "read", read)
        job.run(Script([[request(2, ref(1, 1), ref(2, 6)), request(3, ref(3, 10))]]), other_rank)


@pytest.mark.parametrize(
    "other_rank", [NOTHING, Script([[request(0, ref(9), decode_passes=1, generation_ns=50_000_000)]])]
)
def test_a_load_ends_with_its_deletes_done_as_the_next_needs_the_room(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, other_rank: Script
) -> None:
    job = make_job(sectors=11)
    evict_what_is_being_read(job, monkeypatch, other_rank)
    assert [job.file(0, key).exists() for key in (1, 2, 3)] == [False, False, True]
    written_first(job, request(4, ref(1, 1)))
    job.run(NOTHING, Script([[request(10, ref(1, 1))]]))
    assert job.failures == []
    assert job.violations() == {}
    assert [row["errno"] for row in reads(job, 1) if row["request"] == 10] == [0]


REQUESTS = st.lists(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), min_size=1, max_size=4, unique_by=lambda item: item[0]),
    max_size=12,
)


# Each example makes a job of its own below the folder of the test.
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts=st.lists(REQUESTS, min_size=3, max_size=3), sectors=st.integers(6, 14))
def test_any_load_ends_with_every_read_whole_and_no_rank_in_anothers_way(
    make_job: MakeJob, scripts: list[list[list[tuple[int, int]]]], sectors: int
) -> None:
    job = make_job(ranks=3, sectors=sectors)
    job.run(
        *(
            Script(
                [
                    [
                        # A key always has the same size: 1 to 3 sectors.
                        request(number, *(ref(key, 1 + key % 3) for key, _ in items), decode_passes=items[0][1])
                        for number, items in enumerate(requests)
                    ]
                ]
            )
            for requests in scripts
        )
    )
    assert job.failures == []
    assert job.violations() == {}
    for rank in range(3):
        rows = job.rows(rank)
        assert (rows["errno"] == 0).all()
        log = job.requests(rank)
        assert len(log) == len(scripts[rank])
        assert (log["state"] == RequestState.DONE).all()
        looked_up = [len(items) * (1 + items[0][1]) for items in scripts[rank]]
        assert (log["hit_objects"] + log["miss_objects"]).tolist() == looked_up
        held = sum(path.stat().st_size for path in (job.folder / f"rank-{rank}").iterdir())
        assert held <= sectors * SECTOR_BYTES


# What a filesystem that breaks its promise does


def spoil_then_read(job: SharedJob, spoil: Callable[[FilePath], object], reader: int = 1) -> Any:
    """Spoil the file of object 7 behind its writer's back, then read it and a sound one: the rows of the reads."""
    written_first(job, request(0, ref(7, 3), ref(8, 2)))
    spoil(job.file(0, 7))
    asked = Script([[request(10, ref(7, 3)), request(11, ref(8, 2))]])
    job.run(*(asked if rank == reader else NOTHING for rank in range(2)))
    assert job.failures == [], "it is counted, and the run goes on"
    return reads(job, reader)


def overwrite(path: FilePath, sector: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = content.ljust(SECTOR_BYTES, b"\0")
    path.write_bytes(data)


@pytest.mark.parametrize("reader", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (FilePath.unlink, "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-SECTOR_BYTES]), "torn"),
        (lambda path: overwrite(path, 2, b""), "torn"),
        (lambda path: overwrite(path, 1, path.read_bytes()[:SECTOR_BYTES]), "torn"),
        (lambda path: path.write_bytes((path.parent / f"{8:016x}.kv").read_bytes() + bytes(SECTOR_BYTES)), "stale"),
    ],
    ids=["removed", "shortened", "a hole", "a sector of another place", "another object"],
)
def test_a_broken_promise_is_counted_by_its_kind(
    make_job: MakeJob, spoil: Callable[[FilePath], object], kind: str, reader: int
) -> None:
    job = make_job()
    found = spoil_then_read(job, spoil, reader)
    assert job.violations() == {kind: 1}
    assert sorted((found["errno"] != 0).tolist()) == [False, True]
    log = job.requests(reader)
    assert log["miss_objects"].tolist()[-2:] == [1, 0]
    assert log["state"].tolist()[-1] == RequestState.DONE
    violations = job.engines[reader].violations
    assert violations is not None
    row = violations.rows()[0]
    assert (row["rank"], row["writer"], row["key"], row["kind"]) == (reader, 0, 7, kind.encode())
    assert b"0000000000000007.kv" in row["text"]


def test_an_object_that_is_gone_already_when_it_is_to_be_deleted_is_missing(make_job: MakeJob) -> None:
    job = make_job(sectors=4)
    written_first(job, request(0, ref(7, 3)))
    job.file(0, 7).unlink()
    job.run(Script([[request(1, ref(8, 3))]]), NOTHING)
    assert job.failures == [], "it is counted, and the run goes on"
    assert job.violations() == {"missing": 1}
    assert job.file(0, 8).exists(), "its room is used again"
    log = job.requests(0)
    assert (log["hit_objects"].tolist(), log["miss_objects"].tolist()) == ([0, 0], [1, 1])


def test_an_npy_file_of_the_right_size_that_cannot_be_read_as_one_is_torn(make_job: MakeJob) -> None:
    job = make_job(read_path=Path.NUMPY)
    written_first(job, request(0, ref(7, 3)))
    overwrite(job.file(0, 7).with_suffix(".npy"), 0, b"")
    job.run(NOTHING, Script([[request(10, ref(7, 3))]]))
    assert job.failures == []
    assert job.violations() == {"torn": 1}


def test_a_read_error_of_the_drive_is_no_broken_promise_and_ends_the_load(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job()
    written_first(job, request(0, ref(7, 3)))
    monkeypatch.setattr("kvbench.timed_io.run_files", _io_error)
    job.run(NOTHING, Script([[request(10, ref(7, 3))]]))
    assert len(job.failures) == 1
    assert "Input/output error" in job.failures[0]
    assert job.violations() == {}


def _io_error(*arguments: Any) -> tuple[int, int, int]:
    return 1, 5, 0


# Disaggregated serving


def disaggregated(job: SharedJob, prefill: dict[int, Script]) -> None:
    for rank, sharing in enumerate(job.sharings):
        if rank in prefill:
            sharing.decoder_of = lambda number: len(prefill) + number % (len(job.sharings) - len(prefill))
        else:
            sharing.handover = hand_over_by_number(dict(prefill))
    job.run(*(PrefillSchedule(prefill[rank]) if rank in prefill else DecodeSchedule(9) for rank in range(4)))


def test_decode_ranks_read_what_prefill_ranks_wrote_each_request_once(make_job: MakeJob) -> None:
    job = make_job(ranks=4, nodes=(0, 0, 1, 1), roles=Roles((0, 1), (2, 3)))
    prefill = {
        rank: Script([[request(n, ref(10 * rank + n, 2), decode_passes=1 + n % 2) for n in range(6)]])
        for rank in (0, 1)
    }
    disaggregated(job, prefill)
    assert job.failures == []
    assert job.violations() == {}
    for rank in (0, 1):
        assert set(job.rows(rank)["op"].tolist()) == {Op.WRITE}
        assert job.sharings[rank].counts.handed_over == 6
    for rank in (2, 3):
        rows = job.rows(rank)
        assert set(rows["op"].tolist()) == {Op.READ}
        assert set(rows["locality"].tolist()) == {Locality.OTHER_NODE}
        numbers = [n for n in range(6) if n % 2 == rank % 2]
        assert job.requests(rank)["request"].tolist() == sorted(2 * n + which for n in numbers for which in (0, 1))
        assert len(rows) == sum(2 * (1 + n % 2) for n in numbers)


def test_a_request_that_does_not_decode_ends_where_it_was_prefilled(make_job: MakeJob) -> None:
    job = make_job(ranks=4, roles=Roles((0, 1), (2, 3)))
    disaggregated(job, {0: Script([[request(0, ref(1)), request(2, ref(2), decode_passes=1)]]), 1: NOTHING})
    assert job.sharings[0].counts.handed_over == 1
    assert job.requests(2)["request"].tolist() == [4]
    assert len(job.requests(0)) == 2


def test_the_time_of_a_decode_request_counts_from_the_end_of_its_prefill(make_job: MakeJob) -> None:
    job = make_job(ranks=4, roles=Roles((0, 1), (2, 3)))
    disaggregated(job, {0: Script([[request(0, ref(1), decode_passes=1)]]), 1: NOTHING})
    prefilled, decoded = job.requests(0)[0], job.requests(2)[0]
    assert decoded["intended_ns"] == prefilled["end_ns"]
    assert decoded["start_ns"] >= decoded["intended_ns"]
    read = reads(job, 2)[0]
    assert read["queue_ns"] == read["t_start_ns"] - decoded["intended_ns"]


def test_numbers_of_decode_requests_are_unique_though_prefill_ranks_count_alike(make_job: MakeJob) -> None:
    job = make_job(ranks=4, roles=Roles((0, 1), (2, 3)))
    script = Script([[request(n, ref(n), decode_passes=1) for n in range(5)]])
    disaggregated(job, {0: script, 1: script})
    numbers = np.concatenate([job.requests(rank)["request"] for rank in (2, 3)])
    assert sorted(numbers.tolist()) == list(range(10))
