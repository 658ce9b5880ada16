"""Replaying a trace: every request once, the right objects, at the right times."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_rows import agentic as conversation
from trace_rows import asked, written

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload.request import ObjectRef, Request
from kvbench.workload.trace_schedule import TraceSchedule, deal
from kvbench.workload.traces import Trace, read_trace

Make = Callable[..., RunConfig]
BLOCK = {"layout": "block"}


def schedule_of(make_config: Make, trace: Trace, **sections: object) -> TraceSchedule:
    workload = {"kind": "trace", "path": trace.source, "serving": "reference"} | dict(sections.pop("workload", {}))  # type: ignore[call-overload]
    return TraceSchedule(make_config(workload=workload, **sections), trace)


def requests_of(make_config: Make, trace: Trace, **sections: object) -> list[Request]:
    return list(schedule_of(make_config, trace, **sections).stream(0))


def mooncake(folder: Path, *requests: tuple[int, list[int]]) -> Trace:
    path = folder / "trace.jsonl"
    lines = [
        json.dumps({"timestamp": 10 * i, "input_length": tokens, "output_length": 40, "hash_ids": ids})
        for i, (tokens, ids) in enumerate(requests)
    ]
    path.write_text("\n".join(lines))
    return read_trace(path)


@pytest.mark.parametrize("how", ["round-robin", "prefix"])
@pytest.mark.parametrize("name", ["mooncake", "azure", "sharegpt"])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 100), length=st.integers(0, 60))
def test_every_request_is_dealt_exactly_once_and_in_order(
    samples: dict[str, Path], name: str, how: str, size: int, length: int
) -> None:
    parts = deal(read_trace(samples[name]).head(length), size, how)  # type: ignore[arg-type]
    assert len(parts) == size
    assert sorted(np.concatenate(parts).tolist()) == list(range(length))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_round_robin_gives_request_i_to_rank_i_modulo_size(samples: dict[str, Path]) -> None:
    parts = deal(read_trace(samples["mooncake"]), 7, "round-robin")
    assert [part.tolist() for part in parts] == [list(range(rank, 60, 7)) for rank in range(7)]


def test_prefix_dealing_keeps_requests_with_the_same_first_block_together(samples: dict[str, Path]) -> None:
    trace = read_trace(samples["mooncake"])
    parts = deal(trace, 5, "prefix")
    owner = {int(position): rank for rank, part in enumerate(parts) for position in part}
    by_first: dict[int, set[int]] = {}
    for position in range(len(trace)):
        by_first.setdefault(int(trace.ids(position)[0]), set()).add(owner[position])
    assert all(len(ranks) == 1 for ranks in by_first.values())
    assert sum(len(part) > 0 for part in parts) > 1


def test_prefix_dealing_of_requests_without_hash_ids_is_round_robin(samples: dict[str, Path]) -> None:
    trace = read_trace(samples["azure"])
    for one, other in zip(deal(trace, 3, "prefix"), deal(trace, 3, "round-robin"), strict=True):
        assert one.tolist() == other.tolist()


def test_each_hash_id_is_one_object_and_the_last_holds_the_rest(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, (1100, [7, 8, 9]), (1536, [7, 8, 10]))
    first, second = (request.context for request in requests_of(make_config, trace, cache=BLOCK))
    assert [ref.tokens for ref in first] == [512, 512, 76]
    assert [ref.tokens for ref in second] == [512, 512, 512]
    assert first[:2] == second[:2]
    assert first[2].key != second[2].key


def agentic(folder: Path, *requests: tuple[int, list[int]]) -> Trace:
    """A trace that has ids of full blocks of 64 tokens."""
    rows = [asked(float(place), ids) | {"in": tokens} for place, (tokens, ids) in enumerate(requests)]
    return read_trace(written(folder, conversation(*rows), name="agentic.json"))


def test_what_no_id_stands_for_is_nobody_elses(make_config: Make, tmp_path: Path) -> None:
    trace = agentic(tmp_path, (150, [7, 8]), (150, [7, 8]), (128, [7, 8]), (30, []), (30, []))
    contexts = [r.context for r in requests_of(make_config, trace, cache=BLOCK | {"block_tokens": 64})]
    assert [[ref.tokens for ref in context] for context in contexts] == [
        [64, 64, 22],
        [64, 64, 22],
        [64, 64],
        [30],
        [30],
    ]
    assert contexts[0][:2] == contexts[1][:2] == contexts[2]
    assert len({context[-1].key for context in (contexts[0], contexts[1], contexts[3], contexts[4])}) == 4


@pytest.mark.parametrize(("block_tokens", "shared"), [(128, 1), (256, 0)])
def test_larger_blocks_that_ids_tell_only_in_part_are_nobody_elses(
    make_config: Make, tmp_path: Path, block_tokens: int, shared: int
) -> None:
    trace = agentic(tmp_path, (200, [7, 8, 9]), (200, [7, 8, 9]))
    first, second = (
        request.context for request in requests_of(make_config, trace, cache=BLOCK | {"block_tokens": block_tokens})
    )
    assert first[:shared] == second[:shared]
    assert not {ref.key for ref in first[shared:]} & {ref.key for ref in second[shared:]}


def test_whole_contexts_are_shared_where_ids_tell_all_of_them(make_config: Make, tmp_path: Path) -> None:
    trace = agentic(tmp_path, (128, [7, 8]), (128, [7, 8]), (130, [7, 8]), (130, [7, 8]))
    keys = [r.context[0].key for r in requests_of(make_config, trace, cache={"layout": "entry"})]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_one_id_of_two_sizes_is_two_objects(make_config: Make, tmp_path: Path) -> None:
    first, second = requests_of(make_config, mooncake(tmp_path, (500, [7]), (512, [7])), cache=BLOCK)
    assert first.context[0].key != second.context[0].key


def test_larger_blocks_group_ids_by_their_whole_prefix(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, (2000, [1, 2, 3, 4]), (2000, [1, 2, 3, 5]), (2000, [9, 2, 3, 4]))
    cache = BLOCK | {"block_tokens": 1024}
    first, second, third = (request.context for request in requests_of(make_config, trace, cache=cache))
    assert [ref.tokens for ref in first] == [1024, 976]
    assert first[0] == second[0]
    assert first[1].key != second[1].key
    assert not set(first) & set(third)


@pytest.mark.parametrize("block_tokens", [256, 700])
def test_a_block_size_that_does_not_fit_the_hash_ids_is_an_error(
    make_config: Make, tmp_path: Path, block_tokens: int
) -> None:
    trace = mooncake(tmp_path, (100, [1]))
    with pytest.raises(KvbenchError, match=r"use a multiple of 512, or cache\.layout=entry"):
        schedule_of(make_config, trace, cache=BLOCK | {"block_tokens": block_tokens})


def test_layout_entry_is_one_object_for_the_whole_list_of_ids(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, (1000, [1, 2]), (1000, [1, 2]), (1000, [1, 3]), (999, [1, 2]))
    refs = [request.context[0] for request in requests_of(make_config, trace)]
    assert [ref.tokens for ref in refs] == [1000, 1000, 1000, 999]
    assert refs[0] == refs[1]
    assert len({ref.key for ref in refs}) == 3


@pytest.mark.parametrize("cache", [BLOCK, {"layout": "entry"}])
def test_requests_without_hash_ids_share_nothing_even_across_ranks(
    make_config: Make, samples: dict[str, Path], cache: dict[str, object]
) -> None:
    trace = read_trace(samples["azure"])
    refs: list[ObjectRef] = []
    for part in deal(trace, 3, "round-robin"):
        for request in requests_of(make_config, trace.take(part), cache=cache):
            assert sum(ref.tokens for ref in request.context) == request.context_tokens
            refs += request.context
    assert len({ref.key for ref in refs}) == len(refs)


def test_the_same_content_has_the_same_key_on_every_rank(make_config: Make, samples: dict[str, Path]) -> None:
    trace = read_trace(samples["mooncake"])
    whole = {request.number: request for request in requests_of(make_config, trace, cache=BLOCK)}
    dealt = [
        request
        for part in deal(trace, 4, "prefix")
        for request in requests_of(make_config, trace.take(part), cache=BLOCK)
    ]
    assert {request.number: request for request in dealt} == whole


def test_sharegpt_turns_find_the_blocks_of_the_turn_before(make_config: Make, samples: dict[str, Path]) -> None:
    trace = read_trace(samples["sharegpt"])
    seen: set[int] = set()
    found = 0
    for request in requests_of(make_config, trace, cache=BLOCK | {"block_tokens": 32}):
        keys = {ref.key for ref in request.context}
        found += len(keys & seen)
        seen |= keys
    assert found > 50


def test_open_loop_keeps_the_traces_time_divided_by_the_speedup(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, *[(100, [i]) for i in range(4)])
    part = trace.take(np.array([1, 3]))
    requests = requests_of(make_config, part, pacing={"mode": "open", "speedup": 4})
    assert [(request.number, request.arrival_ns) for request in requests] == [(1, 2_500_000), (3, 7_500_000)]
    assert [r.arrival_ns for r in requests_of(make_config, part)] == [0, 0]


def test_modes_decide_prefill_and_decode_as_for_personas(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, (9999, list(range(20))), (10_000, list(range(20))))

    def phases_of(mode: str) -> list[tuple[bool, int, int]]:
        workload = {"mode": mode, "generation_ms_per_token": 30}
        requests = requests_of(make_config, trace, workload=workload)
        return [(request.prefill, request.decode_passes, request.generation_ns) for request in requests]

    generation_ns = 40 * 30_000_000
    assert phases_of("prefill-decode") == [(True, 2, generation_ns), (True, 0, 0)]
    assert phases_of("prefill") == [(True, 0, 0)] * 2
    assert phases_of("decode") == [(False, 2, generation_ns)] * 2


def test_mode_decode_writes_every_distinct_object_once_in_order_of_first_use(make_config: Make, tmp_path: Path) -> None:
    trace = mooncake(tmp_path, (1024, [1, 2]), (1024, [1, 3]), (1024, [1, 2]), (512, [4]))
    schedule = schedule_of(make_config, trace, workload={"mode": "decode"}, cache=BLOCK)
    used = [ref for request in schedule.stream(0) for ref in request.context]
    assert list(schedule.preconditioning()) == [used[0], used[1], used[3], used[6]]
    assert list(schedule_of(make_config, trace, cache=BLOCK).preconditioning()) == []


def test_qos_classes_are_all_there_and_do_not_depend_on_the_dealing(
    make_config: Make, samples: dict[str, Path]
) -> None:
    trace = read_trace(samples["mooncake"])
    whole = [request.qos for request in requests_of(make_config, trace)]
    assert set(whole) == {0, 1, 2}
    assert [r.qos for r in requests_of(make_config, trace.take(np.arange(1, 60, 2)))] == whole[1::2]


@pytest.mark.parametrize(("cache", "largest"), [(BLOCK, 512), ({"layout": "entry"}, 1536)])
def test_the_largest_object_is_a_block_or_the_longest_context(
    make_config: Make, tmp_path: Path, cache: dict[str, object], largest: int
) -> None:
    trace = mooncake(tmp_path, (1536, [1, 2, 3]), (100, [4]))
    assert schedule_of(make_config, trace, cache=cache).largest_object_tokens() == largest
    assert schedule_of(make_config, trace.head(0), cache=cache).largest_object_tokens() == 0


def test_a_stream_can_be_started_again_and_there_is_only_one(make_config: Make, samples: dict[str, Path]) -> None:
    schedule = schedule_of(make_config, read_trace(samples["burstgpt"]))
    assert list(schedule.stream(0)) == list(schedule.stream(0))
    assert (schedule.users, schedule.closed_loop) == (1, False)
    with pytest.raises(IndexError):
        schedule.stream(1)


def test_a_rank_without_requests_has_an_empty_stream(make_config: Make, samples: dict[str, Path]) -> None:
    schedule = schedule_of(make_config, read_trace(samples["mooncake"]).head(0), workload={"mode": "decode"})
    assert list(schedule.stream(0)) == []
    assert list(schedule.preconditioning()) == []


def test_the_real_mooncake_trace_is_43924_objects_in_121877_uses(
    make_config: Make, real_trace: Callable[[str], Path]
) -> None:
    trace = read_trace(real_trace("mooncake_synthetic.jsonl"))
    keys = [ref.key for request in requests_of(make_config, trace, cache=BLOCK) for ref in request.context]
    assert (len(keys), len(set(keys))) == (121_877, 43_924)
