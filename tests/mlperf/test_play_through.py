"""The workload played without I/O: against what its requests come to by hand, and as its workers get slower."""

from itertools import takewhile

import pytest

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.mlperf.play_through import Played, Rates, play
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.build import build_schedule

ENDLESS = 1 << 50
AT_ONCE = Rates(read=1e18, write=1e18)


def config_of(*changes: str) -> RunConfig:
    usual = ("model=tiny-1b", "workload.users=3", "io.threads=3", "io.max_concurrent_allocs=0", "duration_s=30")
    return load_config("mlperf/option-1", (*usual, *changes))


def played(config: RunConfig, rates: Rates = AT_ONCE, capacities: tuple[int, ...] = (ENDLESS,)) -> Played:
    return play(config, 0, capacities, rates)


def test_where_nothing_takes_time_every_request_is_carried_out_and_finds_all_earlier_turns() -> None:
    config = config_of()
    end_ns = 30 * 10**9
    requests = list(takewhile(lambda r: r.arrival_ns <= end_ns, build_schedule(config, 0, 1).stream(0)))
    sizes = {r.context[0].key: stored_bytes(r.context_tokens * config.geometry.bytes_per_token) for r in requests}
    found = played(config)
    assert abs(found.requests - len(requests)) <= 1, "the last may come at the very end"
    requests = requests[: found.requests]
    assert found.history_hits == sum(len(r.history) for r in requests)
    assert found.history_misses == 0
    assert found.misses == found.prompts == sum(r.prompt_tokens > 0 for r in requests)
    assert found.written == [sizes[r.context[0].key] for r in requests]
    reads = [key for r in requests for key in (*(ref.key for ref in r.history), *[r.context[0].key] * r.decode_passes)]
    assert found.reads == found.hits == len(reads)
    assert found.read_bytes == found.storage_read_bytes == sum(sizes[key] for key in reads)


def test_the_slower_writes_are_the_more_earlier_turns_are_not_there_yet() -> None:
    config = config_of("workload.end_probability=0")
    rates = [played(config, Rates(read=1e18, write=write)) for write in (1e18, 3e7, 1e7)]
    misses = [one.history_misses / (one.history_hits + one.history_misses) for one in rates]
    assert misses[0] == 0
    assert misses[0] < misses[1] < misses[2]


def test_slow_storage_carries_out_fewer_requests_and_the_higher_class_first() -> None:
    config = config_of("workload.users=40", "io.threads=2")
    fast, slow = played(config), played(config, Rates(read=1e8, write=1e8))
    assert slow.requests < fast.requests
    assert slow.interactive / slow.requests > fast.interactive / fast.requests


def test_memory_takes_no_time_and_what_leaves_it_is_demoted() -> None:
    config = config_of()
    inside = played(config, capacities=(ENDLESS, ENDLESS))
    assert (inside.storage_read_bytes, inside.demoted_bytes) == (0, 0)
    beyond = played(config, capacities=(1 << 30, ENDLESS))
    assert beyond.demoted_bytes > 0
    assert 0 < beyond.storage_read_bytes < beyond.read_bytes
    assert beyond.read_bytes == inside.read_bytes


@pytest.mark.parametrize("places", [1, 2])
def test_writes_wait_for_a_place(places: int) -> None:
    config = config_of(f"io.max_concurrent_allocs={places}", "workload.users=20", "io.threads=20")
    free = played(config_of("workload.users=20", "io.threads=20"), Rates(read=1e18, write=1e8))
    assert played(config, Rates(read=1e18, write=1e8)).requests < free.requests


def test_an_entry_that_is_gone_when_it_is_first_to_be_decoded_is_written_again_as_in_a_run() -> None:
    config = config_of("workload.users=8", "io.threads=8", "duration_s=20")
    roomy = played(config, Rates(read=1e9, write=3e8))
    tight = played(config, Rates(read=1e9, write=3e8), (1 << 28, 1 << 29))
    assert len(roomy.written) == roomy.requests
    assert len(tight.written) > tight.requests
