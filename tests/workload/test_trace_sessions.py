"""Formats with sessions, ids of full blocks and ids of a file alone: what they are read as."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trace_rows import agentic, asked, bailian, delta, mooncake, subagent, written

from kvbench.errors import KvbenchError
from kvbench.workload.trace_info import trace_info
from kvbench.workload.traces import Trace, read_trace, sniff_format
from kvbench.workload.traces.trace import trace_digest


def ids_of(trace: Trace) -> list[list[int]]:
    return [trace.ids(request).tolist() for request in range(len(trace))]


def seconds(values: np.ndarray[Any, np.dtype[np.int64]]) -> list[float]:
    return [value if value == -1 else value / 1e9 for value in values.tolist()]


# Sessions and gaps of any trace


def test_the_digest_covers_sessions_and_gaps_only_where_there_are_any(samples: dict[str, Path]) -> None:
    plain = read_trace(samples["mooncake"])
    assert (plain.session == -1).all()
    assert (plain.gap_ns == -1).all()
    sessions = replace(plain, session=np.arange(len(plain)))
    gaps = replace(plain, gap_ns=np.where(np.arange(len(plain)) == 3, 5, -1))
    assert len({trace_digest(plain), trace_digest(sessions), trace_digest(gaps)}) == 3


def test_taking_requests_keeps_their_sessions_and_gaps(samples: dict[str, Path]) -> None:
    trace = read_trace(samples["agentic"])
    part = trace.take(np.array([5, 3, 40]))
    assert part.session.tolist() == trace.session[[5, 3, 40]].tolist()
    assert part.gap_ns.tolist() == trace.gap_ns[[5, 3, 40]].tolist()
    assert (trace.head(7).session == trace.session[:7]).all()


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("mooncake", "5423aefa69e1c232"),
        ("azure", "3011fe7ecad8a5d5"),
        ("burstgpt", "cc50019927920199"),
    ],
)
def test_traces_without_sessions_keep_their_digests(samples: dict[str, Path], name: str, digest: str) -> None:
    assert read_trace(samples[name]).digest == digest


def test_sessions_are_numbered_in_the_order_of_their_first_requests(tmp_path: Path) -> None:
    rows = [bailian(9, -1, 3.0), bailian(4, -1, 1.0), bailian(5, 4, 2.0), bailian(6, 9, 3.0)]
    trace = read_trace(written(tmp_path, *rows))
    assert trace.session.tolist() == [0, 0, 1, 1]
    assert trace.out_of_order == 2


# Mooncake, as others write it


def test_mooncake_lengths_may_be_written_as_floats_and_ids_as_text(tmp_path: Path) -> None:
    rows = [
        mooncake(input_length=600.0, output_length=5.0),
        mooncake(hash_ids=["a", "b"]),
        mooncake(hash_ids=["a", "c"]),
    ]
    trace = read_trace(written(tmp_path, *rows))
    assert trace.context_tokens.tolist() == [600, 600, 600]
    one, other = ids_of(trace)[1:]
    assert one[0] == other[0]
    assert len({*one, *other}) == 3
    again = read_trace(written(tmp_path, *rows, name="again"))
    assert again.digest == trace.digest


def test_mooncake_lines_are_sorted_by_time_and_those_of_one_time_stay_as_they_stood(tmp_path: Path) -> None:
    rows = [mooncake(timestamp=9, output_length=1), *(mooncake(timestamp=5, output_length=n) for n in (2, 3))]
    path = written(tmp_path, *rows, mooncake(timestamp=7, output_length=4))
    trace = read_trace(path)
    assert trace.output_tokens.tolist() == [2, 3, 4, 1]
    assert trace.arrival_ns.tolist() == [0, 0, 2_000_000, 4_000_000]
    assert trace.number.tolist() == [0, 1, 2, 3]
    assert trace.out_of_order == 3
    assert dict(trace_info(trace).as_rows())["sorted by time"] == "3 requests stood behind later ones"
    skipping = read_trace(path, skip_bad_lines=True)
    assert (skipping.digest, skipping.bad_lines) == (trace.digest, 0)


def test_a_time_of_another_century_is_wrong_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path, mooncake(timestamp=2**52), mooncake(), mooncake(timestamp=3))
    with pytest.raises(KvbenchError, match="line 2: the timestamp is more than 100 years before the last"):
        read_trace(path)
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (2, 1)


# Sessions as deltas


def test_a_later_turn_holds_all_of_its_session_before_it_answers_included(tmp_path: Path) -> None:
    rows = [
        delta("a", 1024, [1, 2], timestamp=1000, group_id=0),
        delta("a", 512, [3], delay=2000),
        delta("b", 1024, [1, 2], timestamp=1500),
        delta("a", 10, [4], delay=500.5),
    ]
    trace = read_trace(written(tmp_path, *rows))
    assert trace.format == "deltas"
    assert trace.context_tokens.tolist() == [1024, 1024, 1024 + 100 + 512, 1024 + 100 + 512 + 100 + 10]
    assert seconds(trace.arrival_ns) == [0, 0.5, 2, 2.5005]
    assert trace.session.tolist() == [0, 1, 0, 0]
    assert seconds(trace.gap_ns) == [-1, -1, 2, 0.5005]
    first, beside, second, third = ids_of(trace)
    assert first == beside == [1, 2]
    assert second[:2] == third[:2] == [1, 2]
    assert (len(second), len(third)) == (4, 4)
    assert second[2] == third[2], "a block that was full before is the same later"
    assert second[3] != third[3], "a block that was not full holds more later"


def test_sessions_share_first_turns_and_nothing_behind_an_answer(tmp_path: Path) -> None:
    rows = [row for name in (1, 2) for row in (delta(name, 512, [7], timestamp=0), delta(name, 512, [8], delay=10))]
    one, two = ids_of(read_trace(written(tmp_path, *rows)))[2:]
    assert one[0] == two[0] == 7
    assert not set(one[1:]) & set(two[1:])


def test_a_partial_block_of_a_first_turn_is_not_the_block_that_the_answer_fills(tmp_path: Path) -> None:
    rows = [delta("a", 600, [1, 2], timestamp=0), delta("a", 1, [3], delay=10)]
    first, second = ids_of(read_trace(written(tmp_path, *rows)))
    assert first == [1, 2]
    assert second[0] == 1
    assert second[1] != 2


def test_turns_without_ids_are_nobody_elses(tmp_path: Path) -> None:
    rows = [delta("a", 600, None, timestamp=0), delta("b", 600, None, timestamp=0), delta("a", 600, None, delay=1)]
    first, beside, later = ids_of(read_trace(written(tmp_path, *rows)))
    assert first[0] == later[0]
    assert not set(first) & set(beside)


# Agentic conversations


@pytest.mark.parametrize("counted_from", [0, 100.25], ids=["its own 0", "the conversation's"])
def test_subagents_are_sessions_and_their_times_are_the_conversations(tmp_path: Path, counted_from: float) -> None:
    steps = subagent(100.25, *(asked(counted_from + second, [9], think_time=1.5) for second in (0.0, 4.0)))
    path = written(tmp_path, agentic(asked(0, [1]), steps, asked(102, [1, 2], think_time=30)))
    trace = read_trace(path)
    assert seconds(trace.arrival_ns) == [0, 100.25, 102, 104.25]
    assert trace.session.tolist() == [0, 1, 0, 1]
    assert seconds(trace.gap_ns) == [-1, -1, 30, 1.5]
    assert trace.hash_counts.tolist() == [1, 1, 2, 1]


def test_times_of_requests_may_be_rounded_below_that_of_their_subagent(tmp_path: Path) -> None:
    path = written(tmp_path, agentic(asked(0, [1]), subagent(100.25, asked(100, [9]), asked(104, [9]))))
    assert seconds(read_trace(path).arrival_ns) == [0, 100, 104]


def test_a_gap_that_is_not_recorded_is_worked_out_from_the_answer_before(tmp_path: Path) -> None:
    rows = [asked(0, [1], api_time=2.5), asked(10, [1]), asked(20, [1]), asked(20.5, [1], think_time=-0.25)]
    assert seconds(read_trace(written(tmp_path, agentic(*rows))).gap_ns) == [-1, 7.5, -1, 0]


def test_ids_of_scope_local_are_those_of_their_conversation_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, scope in (("one", "local"), ("two", "local"), ("three", "global"), ("four", "global")):
        written(folder, agentic(asked(0, [1, 2]), asked(1, [1]), id=name, hash_id_scope=scope), name=f"{name}.json")
    trace = read_trace(folder)
    assert len(np.unique(trace.hash_ids)) == 2 + 2 + 2
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert read_trace(moved).digest == trace.digest


def test_a_conversation_without_an_id_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    nameless = {key: value for key, value in agentic(asked(0, [1])).items() if key != "id"}
    for name in ("a.json", "b.json"):
        written(tmp_path, nameless, name=name)
    trace = read_trace(tmp_path)
    assert len(np.unique(trace.hash_ids)) == 2
    assert trace.session.tolist() == [0, 1]


def test_requests_below_a_block_have_no_ids_and_share_nothing(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, agentic(asked(0, []), asked(1, [1]))))
    assert trace.hash_counts.tolist() == [0, 1]
    assert trace.hashed_tokens.tolist() == [0, 64]


# Bailian


def test_bailian_times_are_seconds_and_parents_make_sessions(tmp_path: Path) -> None:
    rows = [bailian(0, -1, 0.5), bailian(1, -1, 1.25), bailian(7, 0, 2.5), bailian(8, 7, 60), bailian(9, 1, 61)]
    path = written(tmp_path, *rows)
    trace = read_trace(path)
    assert (trace.format, trace.hash_block_tokens) == ("bailian", 16)
    assert seconds(trace.arrival_ns) == [0, 0.75, 2, 59.5, 60.5]
    assert trace.session.tolist() == [0, 1, 0, 0, 1]
    assert (trace.gap_ns == -1).all()


# BurstGPT's later releases, and Azure's


def test_burstgpt_sessions_and_gaps_are_read_where_they_are_there(tmp_path: Path) -> None:
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    rows = ["5,s1,1.5,GPT-4,10,5,15,API log", "6,,2,GPT-4,10,5,15,API log", "8,s2,,GPT-4,10,5,15,API log"]
    trace = read_trace(written(tmp_path, header, *rows, "9,s1,4,GPT-4,10,0,10,API log", "9,s2,1,GPT-4,10,1,11,API log"))
    assert trace.session.tolist() == [0, -1, 1, 0, 1]
    assert seconds(trace.gap_ns) == [-1, -1, -1, 2.5, -1]
    assert trace.output_tokens.tolist() == [5, 5, 5, 0, 1]


def test_azure_times_may_lack_the_fraction_have_a_zone_and_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "AzureLLMInferenceTrace_2025.csv.gz"
    rows = ["2024-05-10 00:00:00+00:00,10,1", "2024-05-10 00:00:00.009930+00:00,11,2", "2024-05-10 00:00:02+00:00,12,3"]
    path.write_bytes(gzip.compress("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]).encode()))
    trace = read_trace(path)
    assert trace.format == "azure"
    assert trace.arrival_ns.tolist() == [0, 9_930_000, 2_000_000_000]


# Text


def test_openai_messages_are_read_as_a_list_or_line_by_line(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "c" * 40}, {"type": "image_url", "image_url": {"url": "x"}}]
    talk = [
        {"role": "system", "content": "s" * 40},
        {"role": "user", "content": "a" * 40},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": parts},
        {"role": "assistant", "content": "d" * 40},
    ]
    rows = [{"messages": talk}, {"id": 2, "messages": talk[1:]}]
    lines = read_trace(written(tmp_path, *rows))
    assert lines.format == "messages"
    assert lines.session.tolist() == [0, 0, 1, 1]
    assert lines.hash_counts.tolist() == (-(-lines.context_tokens // 16)).tolist()
    listed = read_trace(written(tmp_path, json.dumps(rows), name="list.json"))
    assert listed.digest == lines.digest
    one = read_trace(written(tmp_path, json.dumps(rows[0], indent=1), name="one.json"))
    assert (len(one), one.format) == (2, "messages")


def test_sharegpt_is_read_line_by_line_too(samples: dict[str, Path], tmp_path: Path) -> None:
    talks = json.loads(samples["sharegpt"].read_text(encoding="utf-8"))
    path = written(tmp_path, *talks)
    assert sniff_format(path) == "sharegpt"
    assert read_trace(path).digest == read_trace(samples["sharegpt"]).digest


def test_lmcache_blocks_are_the_same_where_the_text_is_up_to_their_ends(tmp_path: Path) -> None:
    same = "x" * 640
    rows = [
        {"timestamp": 5, "session_id": "a", "input": same + "one", "output": "1234"},
        {"timestamp": 6.5, "session_id": "b", "input": same + "two", "output": ""},
        {"timestamp": 7, "session_id": "a", "input": same + "one and more", "output_length": 9},
    ]
    trace = read_trace(written(tmp_path, *rows))
    assert trace.format == "lmcache"
    one, two, more = (set(ids) for ids in ids_of(trace))
    assert len(one & two) == len(one) - 1
    assert len(one & more) >= len(one) - 1
    assert trace.session.tolist() == [0, 1, 0]
    assert seconds(trace.arrival_ns) == [0, 1.5, 2]
    assert trace.output_tokens.tolist()[1:] == [0, 9]


def test_lmcache_prompts_may_be_messages_and_times_gaps(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "s" * 90}, {"role": "user", "content": "u" * 90}]
    row = {"session_id": "a", "model": "m", "output_length": 4}
    rows = [{**row, "input": talk[:1], "pre_gap": 0.0}, {**row, "input": talk, "pre_gap": 1.25}]
    trace = read_trace(written(tmp_path, *rows))
    assert seconds(trace.gap_ns) == [-1, 1.25]
    assert seconds(trace.arrival_ns) == [0, 1.25]
    first, second = ids_of(trace)
    assert first[0] == second[0]


# The truth about real conversations


def test_the_real_agentic_folder_has_its_known_requests_tokens_and_reuse(real_trace: Callable[[str], Path]) -> None:
    trace = read_trace(real_trace("agentic"))
    info = trace_info(trace)
    assert (len(trace), info.context.total, len(trace.hash_ids)) == (537, 43_032_709, 672_109)
    assert info.reuse is not None
    assert (info.reuse.total_blocks, info.reuse.prefix_blocks, info.reuse.block_tokens) == (672_109, 629_816, 64)
    assert info.reuse.prefix_token_rate == pytest.approx(0.93669, abs=5e-6)
    assert info.sessions is not None
    assert (info.sessions.sessions, info.sessions.requests, info.sessions.gaps) == (20, 537, 517)
