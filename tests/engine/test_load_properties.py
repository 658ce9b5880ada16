"""Whatever is asked, of whatever tiers, with however many threads: a load ends, keeps order, and never overfills."""

import tempfile
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_harness import Rank, Script, busy_script, check_end_state, config_of, operations_of, ref, replay, request

from kvbench.records.schema import Op
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES
from kvbench.workload.preconditioning import PreconditionSchedule
from kvbench.workload.request import Request

TIERS = st.sampled_from([("file",), ("memory",), ("memory", "file"), ("memory", "memory", "file")])
SIZES = {key: 1 + key % 5 for key in range(12)}
"""Tokens of each object: some are larger than some of the tiers."""


@st.composite
def requests_of(draw: st.DrawFn, most: int = 30, user: int | None = None) -> list[Request]:
    references = st.sampled_from([ref(key, tokens) for key, tokens in SIZES.items()])
    made = []
    for turn in range(draw(st.integers(1, most))):
        made.append(
            request(
                turn if user is None else turn * 6 + user,
                *draw(st.lists(references, min_size=1, max_size=4)),
                user=user or 0,
                qos=draw(st.integers(0, 2)),
                arrival_ns=turn * draw(st.sampled_from([0, 20_000])),
                history=draw(st.lists(references, max_size=3)),
                prefill=draw(st.integers(0, 3)) > 0,
                decode_passes=draw(st.integers(0, 3)),
                generation_ns=draw(st.sampled_from([0, 0, 0, 100_000])),
            )
        )
    return made


@st.composite
def settings_of(draw: st.DrawFn) -> tuple[dict[str, Any], list[int]]:
    tiers = draw(TIERS)
    sectors = [draw(st.integers(0, 9)) for _ in tiers]
    return {
        "tiers": tiers,
        "threads": draw(st.sampled_from([1, 3, 16])),
        "allocs": draw(st.sampled_from([0, 1, 2])),
        "promote": draw(st.booleans()),
        "verify": draw(st.sampled_from(["full", "sampled"])),
        "read_path": draw(st.sampled_from(["buffered", "mmap-copy", "mmap-touch", "numpy"])),
    }, sectors


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    memory = FilePath("/dev/shm")
    return memory if memory.is_dir() else tmp_path_factory.mktemp("folders")


@given(asked=requests_of(), settings_and_sectors=settings_of(), pacing=st.sampled_from(["asap", "open"]))
@settings(max_examples=40, deadline=None)
def test_a_schedule_does_what_the_bookkeeping_says_whatever_the_threads_do(
    folders: FilePath,
    arena: Arena,
    payload: Payload,
    asked: list[Request],
    settings_and_sectors: tuple[dict[str, Any], list[int]],
    pacing: str,
) -> None:
    chosen, sectors = settings_and_sectors
    script = Script([asked])
    with tempfile.TemporaryDirectory(prefix="kvbench-test-", dir=folders) as name:
        rank = Rank(config_of(pacing=pacing, **chosen), FilePath(name), sectors, arena, payload)
        rank.run(script)
        check_end_state(rank, SECTOR_BYTES if chosen["read_path"] == "numpy" else 0)
        expected, cache = replay(script, rank.capacities, chosen["promote"])
        assert rank.cache.decisions == cache.decisions
        assert rank.cache.too_large == cache.too_large
        assert rank.log["request"].tolist() == sorted(expected)
        for logged in rank.log:
            found = expected[int(logged["request"])]
            assert (logged["hit_objects"], logged["miss_objects"]) == (found.hits, found.misses)
            assert (logged["hit_tokens"], logged["miss_tokens"]) == (found.hit_tokens, found.miss_tokens)
            assert logged["operations"] == found.operations
        rank.close()


@pytest.mark.slow
@given(
    streams=st.tuples(*(requests_of(most=6, user=user) for user in range(6))),
    settings_and_sectors=settings_of(),
)
@settings(max_examples=20, deadline=None)
def test_users_in_closed_loop_make_all_their_requests(
    folders: FilePath,
    arena: Arena,
    payload: Payload,
    streams: Sequence[list[Request]],
    settings_and_sectors: tuple[dict[str, Any], list[int]],
) -> None:
    chosen, sectors = settings_and_sectors
    script = Script(streams, closed_loop=True)
    with tempfile.TemporaryDirectory(prefix="kvbench-test-", dir=folders) as name:
        rank = Rank(config_of(pacing="closed", **chosen), FilePath(name), sectors, arena, payload)
        rank.run(script)
        check_end_state(rank, SECTOR_BYTES if chosen["read_path"] == "numpy" else 0)
        made = {(r.number, r.user, r.qos, r.context_tokens) for stream in streams for r in stream}
        log = rank.log
        assert set(zip(*(log[c].tolist() for c in ("request", "user", "qos", "context_tokens")), strict=True)) == made
        for user in range(6):
            own = log[log["user"] == user]
            assert (own["intended_ns"][1:] >= own["end_ns"][:-1]).all(), "a user waits for the answer"
        rank.close()


@pytest.mark.parametrize("pacing", ["asap", "open"])
def test_the_operations_of_a_schedule_are_the_same_in_every_run_with_any_number_of_threads(
    folder: FilePath, arena: Arena, payload: Payload, pacing: str
) -> None:
    runs = []
    for number, threads in enumerate((1, 5, 16, 16)):
        config = config_of(("memory", "memory", "file"), pacing, threads, allocs=threads // 2, promote=True)
        (folder / f"{number}").mkdir()
        rank = Rank(config, folder / f"{number}", (10, 20, 40), arena, payload)
        rank.run(busy_script(80, keys=50))
        runs.append((rank.cache.decisions, operations_of(rank)))
        rank.close()
    assert runs[1:] == runs[:1] * 3


def test_sixteen_workers_never_fill_a_tier_beyond_its_capacity(
    folder: FilePath, arena: Arena, payload: Payload
) -> None:
    rank = Rank(config_of(("memory", "file"), threads=16, allocs=0), folder, (9, 14), arena, payload)
    rank.run(busy_script(250, keys=150))
    check_end_state(rank, 0)
    assert rank.journal.peaks[0] == rank.capacities[0], "they came close to it"
    assert rank.journal.peaks[1] > 0.8 * rank.capacities[1]
    counts = {op: int((rank.rows["op"] == op).sum()) for op in (Op.WRITE, Op.DEMOTE, Op.DELETE)}
    assert min(counts.values()) > 100, counts
    rank.close()


def test_moves_of_an_object_hold_its_room_on_both_tiers(folder: FilePath, arena: Arena, payload: Payload) -> None:
    """A promotion into a full tier over a full one: what moves down has to find room before anything moves up."""
    rank = Rank(config_of(("memory", "memory", "file"), threads=16, promote=True), folder, (2, 2, 2), arena, payload)
    rank.run(Script([[request(n, ref(n % 5), decode_passes=2) for n in range(200)]]))
    check_end_state(rank, 0)
    assert (rank.rows["op"] == Op.PROMOTE).sum() > 100
    rank.close()


def test_no_more_writes_of_new_entries_run_at_once_than_allowed(
    folder: FilePath, arena: Arena, payload: Payload
) -> None:
    for allowed in (1, 3):
        place = folder / f"{allowed}"
        place.mkdir()
        rank = Rank(config_of(threads=16, allocs=allowed), place, (400,), arena, payload)
        rank.run(Script([[request(n, ref(n, 2)) for n in range(100)]]))
        rows = rank.rows
        begins, ends = rows["t_start_ns"], rows["t_start_ns"] + rows["wall_ns"]
        assert max(int(((begins <= t) & (ends > t)).sum()) for t in begins) <= allowed
        rank.close()


def test_what_is_written_before_the_clock_starts_is_found(folder: FilePath, arena: Arena, payload: Payload) -> None:
    script = Script(
        [[request(n, ref(n, 2), prefill=False, decode_passes=1) for n in range(20)]],
        before=[ref(n, 2) for n in range(20)],
    )
    rank = Rank(config_of(threads=8, payload="stamped"), folder, (40,), arena, payload)
    rank.run(PreconditionSchedule(script))
    rank.run(script)
    assert rank.log["miss_objects"].sum() == 20, "the writes before the clock"
    assert rank.log["hit_objects"].sum() == 40
    assert (rank.rows["op"] == Op.WRITE).sum() == 20
    rank.close()
