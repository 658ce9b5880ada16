"""What a run is said to need before it is run: counted where it can be, bounded where it depends on the storage."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import pytest

import kvbench.run.checks.forecast
from kvbench.config.load import load_config, parse_config
from kvbench.config.run_config import RunConfig
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.run.checks.forecast import Demand, arena_bytes, forecast_demand, memory_need
from kvbench.units import GIB, MIB, SEGMENT_BYTES
from kvbench.workload.build import build_schedule
from kvbench.workload.request import ObjectRef, Request

SECTOR = 4096
"""Also the bytes of a token here."""


def config_of(**sections: Any) -> RunConfig:
    return parse_config(
        {
            "model": {"layers": 1, "kv_heads": 1, "head_dim": 1024},
            "pacing": {"mode": "open", "requests_per_s": 1},
            "duration_s": 10,
        }
        | sections,
        "test",
    )


@dataclass
class Regular:
    """A request every `interval_ns` that writes an object of two tokens and reads it once."""

    requests: int
    interval_ns: int
    before: Sequence[ObjectRef] = ()
    users: int = 1
    closed_loop: bool = False
    drawn: int = field(default=0)

    def stream(self, user: int) -> Iterator[Request]:
        for number in range(self.requests):
            self.drawn += 1
            arrival_ns = self.interval_ns if self.closed_loop else number * self.interval_ns
            mine = (ObjectRef(number * self.users + user, 2),)
            yield Request(number * self.users + user, user, 0, arrival_ns, 2, 1, (), mine, True, 1, 0)

    def preconditioning(self) -> Iterator[ObjectRef]:
        return iter(self.before)

    def largest_object_tokens(self) -> int:
        return 2


def test_every_request_until_the_end_is_counted_and_none_after_it() -> None:
    demand = forecast_demand(config_of(warmup_s=2), Regular(100, 10**9), [8 * SECTOR])
    assert demand == Demand(
        requests=13,  # at 0, 1, ... 12 s
        operations=13 * 2 + 9,  # writes and reads, and a delete for each object but the last four
        written_bytes=13 * 2 * SECTOR,
        read_bytes=13 * 2 * SECTOR,
        peak_storage_bytes=8 * SECTOR,
        peak_objects=4,
        largest_object_bytes=2 * SECTOR,
        at_most=False,
    )


def test_what_a_null_tier_takes_and_gives_is_operations_and_no_bytes() -> None:
    config = config_of(tiers=[{"kind": "null", "capacity_bytes": 8 * SECTOR}], warmup_s=2)
    demand = forecast_demand(config, Regular(100, 10**9), [8 * SECTOR])
    assert demand.operations == 13 * 2 + 9
    assert (demand.written_bytes, demand.read_bytes, demand.peak_storage_bytes) == (0, 0, 0)


def test_what_is_written_before_the_clock_starts_is_counted() -> None:
    before = [ObjectRef(1000 + n, 2) for n in range(5)]
    with_it = forecast_demand(config_of(), Regular(3, 10**9, before), [100 * SECTOR])
    without = forecast_demand(config_of(), Regular(3, 10**9), [100 * SECTOR])
    assert with_it.operations - without.operations == 5
    assert with_it.written_bytes - without.written_bytes == 5 * 2 * SECTOR
    assert with_it.peak_objects - without.peak_objects == 5


@pytest.mark.parametrize("end", [{"duration_s": 10}, {"duration_s": 1000}])
@pytest.mark.parametrize("before", [0, 700])
def test_a_long_schedule_is_extrapolated_by_its_number_of_requests(
    monkeypatch: pytest.MonkeyPatch, end: dict[str, Any], before: int
) -> None:
    """Also where the trace ends long before the run would, and where there was more to write than is played."""
    schedule = Regular(4000, 10_000_000, [ObjectRef(10**6 + n, 2) for n in range(before)])
    exact = forecast_demand(config_of(**end), schedule, [10**6 * SECTOR])
    monkeypatch.setattr(kvbench.run.checks.forecast, "_MOST_REQUESTS", 300)
    monkeypatch.setattr(kvbench.run.checks.forecast, "_MOST_OPERATIONS", 500)
    quick = forecast_demand(config_of(**end), schedule, [10**6 * SECTOR])
    assert quick == exact


def test_a_trace_without_a_time_limit_is_counted_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(
        workload={"kind": "trace", "path": "x", "serving": "reference"}, pacing={"mode": "asap"}, duration_s=None
    )
    schedule = Regular(4000, 0)
    exact = forecast_demand(config, schedule, [10**6 * SECTOR])
    assert (exact.requests, exact.operations, exact.at_most) == (4000, 8000, False)
    monkeypatch.setattr(kvbench.run.checks.forecast, "_MOST_REQUESTS", 300)
    assert forecast_demand(config, schedule, [10**6 * SECTOR]) == exact


def test_users_who_wait_for_the_storage_move_no_more_than_it_can() -> None:
    config = config_of(pacing={"mode": "closed"}, duration_s=1)
    schedule = Regular(10**9, 1000, users=3, closed_loop=True)
    demand = forecast_demand(config, schedule, [10**6 * SECTOR], bytes_per_s=MIB)
    assert demand.at_most
    moved = demand.read_bytes + demand.written_bytes
    assert MIB <= moved <= MIB + 4 * SECTOR, "all that a second allows, and the request that it ends in"


def test_users_who_think_long_ask_for_less_than_the_storage_can_move() -> None:
    config = config_of(pacing={"mode": "closed"}, duration_s=10)
    demand = forecast_demand(config, Regular(10**9, 10**9, users=3, closed_loop=True), [10**6 * SECTOR])
    assert demand.requests == 3 * 10


@pytest.mark.parametrize("mode", ["closed", "asap"])
def test_personas_who_never_end_are_played_no_further_than_needed(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(kvbench.run.checks.forecast, "_MOST_OPERATIONS", 2000)
    config = config_of(pacing={"mode": mode}, duration_s="1h")
    demand = forecast_demand(config, build_schedule(config, 0, 1), [10 * GIB])
    assert demand.at_most
    assert demand.operations > 2000


def test_the_arena_is_as_configured_or_larger_than_the_cache() -> None:
    assert arena_bytes(config_of(io={"arena_bytes": "64MiB"}), 10**9, 1) == 64 * MIB
    assert arena_bytes(config_of(), 100 * MIB, 1) == 400 * MIB
    assert arena_bytes(config_of(), 100 * MIB, 100) == 256 * MIB
    assert arena_bytes(config_of(io={"threads": 1000}), 0, 1) == 1000 * SEGMENT_BYTES
    assert arena_bytes(config_of(io={"threads": 1, "arena_bytes": SEGMENT_BYTES + 1}), 0, 1) == 2 * SEGMENT_BYTES


def test_memory_is_that_of_rows_tiers_and_arena_and_does_not_know_the_size_of_an_entry() -> None:
    config = config_of(tiers=[{"kind": "memory", "capacity_bytes": "1GiB"}, {"kind": "file"}], io={"threads": 1})
    small = Demand(1000, 10**6, 0, 0, 0, 100, MIB, at_most=False)
    large = Demand(1000, 10**6, 0, 0, 0, 100, 4 * GIB, at_most=False)
    need = memory_need(config, small, 256 * MIB, 100 * MIB)
    assert need == memory_need(config, large, 256 * MIB, 100 * MIB)
    assert (need.arena, need.tiers, need.gathering) == (256 * MIB, GIB, 0)
    rows = 10**6 * RECORD_DTYPE.itemsize + 1000 * REQUEST_DTYPE.itemsize
    assert rows <= need.records <= 1.3 * rows
    assert need.total >= GIB + 356 * MIB + rows
    assert memory_need(config, small, 256 * MIB, 100 * MIB, ranks=4, gathers=True).gathering > 0


def test_rows_that_are_spilled_need_no_memory_for_their_number() -> None:
    config = config_of(io={"threads": 1})
    short, long = (Demand(n // 1000, n, 0, 0, 0, 100, MIB, at_most=False) for n in (10**6, 10**8))
    needs = [memory_need(config, demand, 0, 0, spilled=True) for demand in (short, long)]
    assert needs[0].records <= needs[1].records < 32 * MIB
    assert memory_need(config, long, 0, 0).records > 10**8 * RECORD_DTYPE.itemsize
    rows = 10**8 * RECORD_DTYPE.itemsize + 10**5 * REQUEST_DTYPE.itemsize
    assert rows < long.spill_bytes < 1.01 * rows
    few = Demand(1, 10, 0, 0, 0, 100, MIB, at_most=False)
    assert memory_need(config, few, 0, 0, spilled=True) == memory_need(config, few, 0, 0), "never more than without"


@pytest.mark.parametrize(("read_path", "copies"), [("buffered", 0), ("numpy", 1), ("double-copy", 2)])
def test_the_numpy_paths_need_whole_entries_for_each_thread(read_path: str, copies: int) -> None:
    config = config_of(io={"threads": 3, "read_path": read_path})
    demand = Demand(1, 1, 0, 0, 0, 1, 100 * MIB, at_most=False)
    assert memory_need(config, demand, 0, 0).read_path == 3 * copies * 100 * MIB


def test_of_a_memory_tier_only_what_is_filled_is_taken() -> None:
    tiers = [{"kind": "memory", "capacity_bytes": "1GiB", "fill": 0.5}, {"kind": "file"}]
    none = Demand(0, 0, 0, 0, 0, 0, MIB, at_most=False)
    assert memory_need(config_of(tiers=tiers), none, 0, 0).tiers == GIB // 2


def test_requests_of_the_reference_that_nobody_waits_for_are_kept_in_memory() -> None:
    """As many as its users send, measured: 153 300 of 200 users in 300 s."""
    none = Demand(0, 0, 0, 0, 0, 0, MIB, at_most=False)
    config = load_config("mlperf/option-1")
    need = memory_need(config, none, 0, 0)
    sent = sum(1 for _ in takewhile(lambda r: r.arrival_ns < 30 * 10**9, build_schedule(config, 0, 1).stream(0)))
    assert need.bookkeeping / 600 == pytest.approx(10 * sent, rel=0.1)


def test_what_the_reference_asks_for_is_bounded_by_what_a_rank_can_move() -> None:
    config = load_config("mlperf/option-1")
    schedule = build_schedule(config, 0, 1)
    slow, fast = (forecast_demand(config, schedule, [10**15], bytes_per_s=rate) for rate in (1e8, 1e9))
    assert slow.operations < fast.operations
    assert slow.read_bytes + slow.written_bytes < 1.1 * 1e8 * 300
