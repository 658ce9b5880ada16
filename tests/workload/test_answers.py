"""Blocks of answers: which formats name them, who finds them, and what is the same without them."""

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from trace_rows import delta, written

from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.run.planning.curve import Capacities, curve_sums
from kvbench.run.planning.decisions import decide
from kvbench.workload.chains import Chains
from kvbench.workload.trace_info import trace_info
from kvbench.workload.trace_schedule import TraceSchedule
from kvbench.workload.traces import Trace, load_trace, read_trace
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.parquet import encode

Make = Callable[..., RunConfig]
WITH_ANSWERS = ("deltas", "sharegpt", "messages", "lmcache")
SMALL = {"layers": 1, "kv_heads": 1, "head_dim": 16}


def config_of(make_config: Make, trace: Trace, **cache: object) -> RunConfig:
    return make_config(model=SMALL, workload={"kind": "trace", "path": trace.source}, cache=cache)


def talk(folder: Path, *turns: tuple[int, int]) -> Trace:
    """A session of turns that ask (tokens) and are answered (tokens), in blocks of 512."""
    rows = []
    for place, (asked, answered) in enumerate(turns):
        ids = list(range(100 * place + 1, 100 * place + 1 + -(-asked // 512)))
        when: dict[str, object] = {"delay": 10} if place else {"timestamp": 0}
        rows.append({**delta("a", asked, ids, **when), "output_length": answered})
    return read_trace(written(folder, *rows))


def found_in_turn(config: RunConfig, trace: Trace) -> list[int]:
    """Blocks found by each request where no block ever leaves."""
    found: list[int] = decide(config, trace, Chains(config, trace), [None], len(trace)).found_by_request.tolist()
    return found


def asked_and_stored(chains: Chains) -> Iterator[tuple[list[int], list[int]]]:
    for position in range(len(chains)):
        chain = chains.chain(position)
        yield chain.keys[: chain.lookup].tolist(), chain.keys[: chain.stored].tolist()


def simulated(requests: list[tuple[list[int], list[int]]], blocks: int) -> int:
    """Blocks found before the first gap in an LRU of so many blocks, all of a request stored tail first."""
    held: OrderedDict[int, None] = OrderedDict()
    found = 0
    for asked, stored in requests:
        found += next((place for place, key in enumerate(asked) if key not in held), len(asked))
        for key in reversed(stored):
            held.pop(key, None)
            if len(held) == blocks:
                held.popitem(last=False)
            held[key] = None
    return found


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_that_have_the_answer_name_its_blocks_and_others_name_none(samples: dict[str, Path], name: str) -> None:
    trace = read_trace(samples[name])
    most = -(-(trace.context_tokens.astype(np.int64) + trace.output_tokens) // max(1, trace.hash_block_tokens))
    most -= trace.context_tokens // max(1, trace.hash_block_tokens)
    assert bool(trace.answer_counts.any()) == (name in WITH_ANSWERS)
    assert (trace.answer_counts <= most).all()


TURNS = [("u" * 70, "a" * 333), ("v" * 41, "b" * 200), ("w" * 10, "c" * 5), ("x" * 90, "d" * 90)]
"""What a user asks and is answered."""


def as_text(name: str) -> list[object]:
    """The rows of a conversation of TURNS."""
    if name in ("sharegpt", "messages"):
        who, what, said = ("from", "value", "gpt") if name == "sharegpt" else ("role", "content", "assistant")
        both = [({who: "human", what: ask}, {who: said, what: answer}) for ask, answer in TURNS]
        both = [({**ask, who: "user"} if name == "messages" else ask, answer) for ask, answer in both]
        key = "conversations" if name == "sharegpt" else "messages"
        return [{key: [message for pair in both for message in pair]}]
    rows: list[object] = []
    text, messages = "", list[dict[str, str]]()
    for place, (ask, answer) in enumerate(TURNS):
        text += ask
        messages.append({"role": "user", "content": ask})
        row = {"timestamp": place, "session_id": "a", "output": answer}
        rows.append({**row, "input": text if name == "lmcache" else list(messages)})
        text += answer
        messages.append({"role": "assistant", "content": answer})
    return rows


@pytest.mark.parametrize("name", ["deltas", "sharegpt", "messages", "lmcache", "lmcache of messages"])
def test_the_next_turn_begins_with_the_full_blocks_of_the_answer_before(tmp_path: Path, name: str) -> None:
    deltas = name == "deltas"
    trace = (
        talk(tmp_path, (600, 1000), (10, 2000), (700, 5), (1, 600))
        if deltas
        else read_trace(written(tmp_path, *as_text(name)))
    )
    unit = trace.hash_block_tokens
    longest = 0
    for turn in range(3):
        full = int(trace.context_tokens[turn]) // unit
        chain = [*trace.ids(turn)[:full].tolist(), *trace.answer_ids(turn).tolist()]
        whole = (int(trace.context_tokens[turn]) + int(trace.output_tokens[turn])) // unit
        assert len(chain) in (whole, whole + 1)
        assert trace.ids(turn + 1)[:whole].tolist() == chain[:whole]
        longest = max(longest, whole - full)
    assert longest >= 3


def test_a_block_that_the_answer_fills_is_not_the_partial_block_of_the_first_turn(tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 5))
    assert trace.ids(0).tolist() == [1, 2]
    assert len(trace.answer_ids(0)) == 3
    assert 2 not in trace.answer_ids(0).tolist()
    assert trace.ids(1).tolist()[:3] == [1, *trace.answer_ids(0).tolist()[:2]]


@pytest.mark.parametrize(
    ("block_tokens", "lookups", "counts", "found"),
    [
        # 600 tokens, 1000 of an answer, 10 more, and 2000 of an answer.
        *[(512, [2, 4], [2 + 3, 4 + 5], 3), (1024, [1, 2], [1 + 2, 2 + 3], 1), (2048, [1, 1], [1 + 1, 1 + 2], 0)],
        *[(256, [3, 7], [3 + 5, 7 + 9], 6), (128, [5, 13], [5 + 9, 13 + 17], 12)],
    ],
)
def test_blocks_of_any_size_go_on_with_the_answer(
    make_config: Make, tmp_path: Path, block_tokens: int, lookups: list[int], counts: list[int], found: int
) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 2000))
    config = config_of(make_config, trace, block_tokens=block_tokens)
    chains = Chains(config, trace)
    assert chains.lookups.tolist() == lookups
    assert chains.counts.tolist() == counts == chains.stored.tolist()
    assert found_in_turn(config, trace) == [0, found]
    assert all(len(set(chain.keys.tolist())) == len(chain.keys) for chain in map(chains.chain, range(2)))
    assert chains.keys(0, 2).tolist() == [key for at in range(2) for key in chains.chain(at).keys.tolist()]


def test_without_answers_all_is_as_if_nobody_knew_them(make_config: Make, tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 2000), (700, 5))
    plain = trace.without_answers()
    without = config_of(make_config, trace, store_answers=False)
    kept, none = Chains(without, trace), Chains(config_of(make_config, trace), plain)
    assert list(asked_and_stored(kept)) == list(asked_and_stored(none))
    assert kept.counts.tolist() == kept.lookups.tolist() == plain.hash_counts.tolist()
    assert found_in_turn(without, trace) == [0, 1, 3]
    assert found_in_turn(config_of(make_config, trace), trace) == [0, 3, 7]


def test_dropped_partial_blocks_are_those_of_answers_too(make_config: Make, tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 2000))
    config = config_of(make_config, trace, partial_blocks="drop")
    chains = Chains(config, trace)
    assert (chains.lookups.tolist(), chains.counts.tolist()) == ([1, 3], [3, 7])
    assert found_in_turn(config, trace) == [0, 3]


def test_a_short_context_leaves_no_answer_either(make_config: Make, tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 2000))
    assert Chains(config_of(make_config, trace, min_prefix_tokens=1000), trace).stored.tolist() == [0, 9]


@pytest.mark.parametrize("name", WITH_ANSWERS)
@pytest.mark.parametrize("capacity", [5, 40, 150, 10**6])
def test_hits_with_answers_are_those_of_an_independent_simulation(
    make_config: Make, samples: dict[str, Path], name: str, capacity: int
) -> None:
    trace = read_trace(samples[name])
    config = config_of(make_config, trace, block_tokens=trace.hash_block_tokens)
    chains = Chains(config, trace)
    block_bytes = 4096 if trace.hash_block_tokens == 16 else 32768
    decided = decide(config, trace, chains, [capacity * block_bytes], len(trace))
    expected = simulated(list(asked_and_stored(chains)), capacity)
    assert decided.found.sum() == expected
    sums = curve_sums(config, [trace], [], Capacities((capacity * block_bytes,)), ["lru"])
    assert sums[0].tolist() == [expected]
    assert expected <= sums[-2, 0]
    assert sums[-1, 0] == chains.lookups.sum()


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_information_counts_answers_as_had_and_not_as_asked_for(
    make_config: Make, samples: dict[str, Path], name: str
) -> None:
    trace = read_trace(samples[name])
    config = config_of(make_config, trace, block_tokens=trace.hash_block_tokens)
    reuse, plain = trace_info(trace).reuse, trace_info(trace.without_answers()).reuse
    assert reuse is not None
    assert plain is not None
    assert reuse.prefix_blocks == sum(found_in_turn(config, trace))
    assert (reuse.total_blocks, reuse.distinct_blocks) == (plain.total_blocks, plain.distinct_blocks)
    # Prompts of that sample do not go on exactly where the answer ends.
    assert (reuse.prefix_blocks > plain.prefix_blocks) == (name != "lmcache")
    assert (reuse.token_hit_rate > plain.token_hit_rate) == (name != "lmcache")


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_the_references_requests_know_nothing_of_answers(samples: dict[str, Path], name: str) -> None:
    trace = read_trace(samples[name])
    plain = load_trace(TraceWorkload(kind="trace", path=str(samples[name]), serving="reference"))
    assert not plain.answer_counts.any()
    assert plain.digest != trace.digest
    assert [plain.ids(n).tolist() for n in range(60)] == [trace.ids(n).tolist() for n in range(60)]


@pytest.mark.parametrize(("name", "digest"), [("sharegpt", "dfe8b5a5f6cd6840"), ("messages", "78aa57ce473194dd")])
def test_the_digest_of_contexts_alone_is_what_it_was(samples: dict[str, Path], name: str, digest: str) -> None:
    assert read_trace(samples[name]).without_answers().digest == digest


def test_a_chain_of_the_schedule_says_what_is_looked_up(make_config: Make, tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000), (10, 2000))
    requests = list(TraceSchedule(config_of(make_config, trace), trace).stream(0))
    assert [(one.chain.lookup, one.chain.stored) for one in requests if one.chain] == [(2, 5), (4, 9)]


def test_a_part_of_a_trace_keeps_its_answers(samples: dict[str, Path]) -> None:
    trace = read_trace(samples["lmcache"])
    part = trace.take(np.array([30, 7]))
    assert [part.answer_ids(n).tolist() for n in (0, 1)] == [trace.answer_ids(n).tolist() for n in (30, 7)]
    assert part.answer_counts.tolist() == trace.answer_counts[[30, 7]].tolist()


def test_a_file_of_kvbenchs_own_from_before_there_were_answers_is_read(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    trace = read_trace(samples["mooncake"])
    path = tmp_path / "own"
    pyarrow.parquet.write_table(
        pyarrow.parquet.read_table(io.BytesIO(encode(trace))).drop_columns(["answer_counts"]), path
    )
    assert read_trace(path).digest == trace.digest


@pytest.mark.parametrize("change", [-1, 1, 5])
def test_answers_that_do_not_fit_are_an_error(samples: dict[str, Path], tmp_path: Path, change: int) -> None:
    trace = read_trace(samples["deltas"])
    path = tmp_path / "own"
    path.write_bytes(encode(replace(trace, answer_counts=trace.answer_counts + change)))
    with pytest.raises(KvbenchError, match=r"row 1: (answer_counts|hash_ids) that do not fit"):
        read_trace(path)


def test_storing_answers_is_in_the_fingerprint_only_where_it_is_left_out(make_config: Make, tmp_path: Path) -> None:
    trace = talk(tmp_path, (600, 1000))
    said, unsaid, without = (
        config_of(make_config, trace, **cache).fingerprint(1, trace.digest)
        for cache in ({"store_answers": True}, {}, {"store_answers": False})
    )
    assert said == unsaid != without
    with pytest.raises(KvbenchError, match=r"cache.store_answers: only requests that are served as an engine"):
        make_config(cache={"store_answers": False})


def test_lmcache_answers_that_are_only_counted_have_no_names(tmp_path: Path) -> None:
    row = {"timestamp": 1, "session_id": "a", "input": "x" * 200}
    path = written(tmp_path, json.dumps({**row, "output_length": 50}), json.dumps({**row, "output": "y" * 200}))
    assert read_trace(path).answer_counts.tolist() == [0, -(-(50 + 50) // 16) - 50 // 16]
