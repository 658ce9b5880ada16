"""What a trace file is told by, and bad lines of each format: named, or left out and counted."""

import json
from pathlib import Path

import pytest
from trace_rows import agentic, asked, bailian, delta, mooncake, subagent, written

from kvbench.errors import KvbenchError
from kvbench.workload.traces import read_trace, sniff_format

GOOD: dict[str, list[object]] = {
    "mooncake": [mooncake()],
    "deltas": [delta("a", 10, [1], timestamp=10)],
    "bailian": [bailian(0, -1, 0)],
    "messages": [{"messages": [{"role": "user", "content": "abcd"}, {"role": "assistant", "content": "x"}]}],
    "lmcache": [{"timestamp": 0, "session_id": "a", "input": "abc", "output": "d"}],
}
BAD: list[tuple[str, object, str]] = [
    ("mooncake", mooncake(input_length=600.5), "input_length .*valid integer"),
    ("mooncake", mooncake(hash_ids=["a", 1]), "hash_ids.0 .*valid integer"),
    ("mooncake", bailian(1, -1, 0), "chat_id is no field of the mooncake format"),
    ("mooncake", mooncake(session_id="x"), "session_id is no field of the mooncake format"),
    ("mooncake", mooncake(delay=4), "delay is no field of the mooncake format"),
    ("deltas", {"delay": 5, "input_length": 5, "output_length": 1, "hash_ids": [1]}, "a delay without a session_id"),
    ("deltas", mooncake(), "session_id is missing"),
    ("deltas", delta("b", 5, [1], delay=5), "session_id 'b' has no first turn: the first line of a session has"),
    ("deltas", delta("a", 5, [1]), "'a' that has neither a delay nor a timestamp"),
    ("deltas", delta("z", 5, [1], timestamp=-1), "timestamp .*greater than or equal to 0"),
    ("deltas", delta("a", 513, [1], delay=1), "1 hash_ids, but input_length 513 is 2 blocks of 512"),
    ("deltas", delta("a", 10_000_001, [], delay=1), "input_length .*10000000"),
    ("deltas", delta("a", 9_999_999, None, delay=1), "a session of more than 10000000 tokens"),
    ("deltas", delta("a", 5, [1], timestamp=9), "lies before the turn before of session_id 'a'"),
    ("deltas", delta("b", 0, [], timestamp=1), "a first turn without input tokens"),
    ("deltas", delta("a", 5, [1], delay=-1), "delay .*greater than or equal to 0"),
    (
        "bailian",
        bailian(1, 17, 0),
        "parent_chat_id 17 is no chat before: expected the chat_id of an earlier",
    ),
    ("bailian", bailian(1, -1, 0, hash_ids=[1]), "1 hash_ids, but input_length 20 is 2 blocks of 16"),
    ("bailian", mooncake(), "chat_id is missing"),
    ("bailian", bailian(1, -1, -1.0), "timestamp .*greater than or equal to 0"),
    ("messages", {"messages": [{"role": "cat", "content": "x"}]}, "role is 'cat', not user"),
    ("messages", {"messages": [{"content": "x"}]}, "messages.0.role is missing"),
    ("messages", {"conversations": []}, "messages is missing"),
    ("messages", "{oops", "not valid JSON"),
    ("lmcache", {"timestamp": 0, "session_id": "a", "input": "abc"}, "output is missing"),
    ("lmcache", {"session_id": "a", "input": "abc", "output": ""}, "timestamp is missing"),
    ("lmcache", {"timestamp": 0, "session_id": "a", "input": "", "output": ""}, "without context tokens"),
    ("lmcache", {"timestamp": 0, "session_id": "a", "input": 5, "output": ""}, "input"),
]


@pytest.mark.parametrize(("name", "bad", "message"), BAD)
def test_a_bad_line_is_named_or_left_out_and_counted(tmp_path: Path, name: str, bad: object, message: str) -> None:
    path = written(tmp_path, *GOOD[name], bad)
    assert sniff_format(path) == name
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 2")
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (1, 1)
    assert trace.first_bad_line.startswith(f"{path}, line 2")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (asked(1, [1]) | {"in": 128}, r"1 hash_ids, but in 128 is 2 full blocks of 64"),
        (asked(1, [1, 2]) | {"in": 100}, r"2 hash_ids, but in 100 is 1 full blocks of 64"),
        (asked(-1, [1]), "t .*greater than or equal to 0"),
        ({"t": 1, "type": "n"}, "in is missing"),
        ({"t": 1, "type": "subagent"}, "requests is missing"),
        (5, "the request should be an object, not 5"),
        (asked(1, [1]) | {"in": 10_000_001}, "in .*10000000"),
    ],
)
def test_a_bad_request_of_a_conversation_is_named_or_left_out(tmp_path: Path, bad: object, message: str) -> None:
    path = written(tmp_path, agentic(asked(0, [1]), subagent(0, asked(0, [2]), bad)))
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 1, request 2, request 2: ")
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 0}, "block_size .*greater than or equal to 1"),
        ({"block_size": "64"}, "block_size .*valid integer"),
        ({"hash_id_scope": "galaxy"}, "hash_id_scope .*'local' or 'global'"),
        ({"requests": []}, "has no request of the agentic format"),
    ],
)
def test_a_conversation_that_is_none_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(KvbenchError, match=message):
        read_trace(written(tmp_path, agentic(asked(0, [1]), **changes)))


@pytest.mark.parametrize("skip", [False, True])
def test_a_bailian_file_is_never_taken_for_mooncakes(samples: dict[str, Path], skip: bool) -> None:
    path = samples["bailian"]
    assert sniff_format(path) == "bailian"
    assert read_trace(path, skip_bad_lines=skip).format == "bailian"
    with pytest.raises(KvbenchError, match="chat_id is no field of the mooncake format"):
        read_trace(path, "mooncake", skip_bad_lines=skip)


@pytest.mark.parametrize("name", ["mooncake", "bailian", "deltas", "lmcache", "messages", "sharegpt", "agentic"])
@pytest.mark.parametrize("other", ["mooncake", "bailian", "deltas", "lmcache", "messages", "sharegpt", "agentic"])
def test_bad_lines_that_are_skipped_never_make_another_format_pass(
    samples: dict[str, Path], name: str, other: str
) -> None:
    if name == other:
        assert len(read_trace(samples[name], other, skip_bad_lines=True)) == 60
        return
    with pytest.raises(KvbenchError, match=f"has no request of the {other} format"):
        read_trace(samples[name], other, skip_bad_lines=True)


def test_the_first_good_lines_say_what_a_file_is(tmp_path: Path) -> None:
    path = written(tmp_path, "oops", '{"timestamp": 4', {"something": 1}, bailian(0, -1, 0), mooncake())
    assert sniff_format(path) == "bailian"
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (1, 4)


def test_an_object_that_the_beginning_cuts_off_is_recognised(tmp_path: Path) -> None:
    long = list(range(19_000))
    rows = {
        "mooncake": mooncake(input_length=512 * len(long), hash_ids=long) | {"tail": 1},
        "agentic": agentic(*(asked(number, long[:2000]) for number in range(20))),
    }
    for name, row in rows.items():
        for indent in (None, 1):
            path = written(tmp_path, json.dumps(row, indent=indent) if name == "agentic" else row)
            assert path.stat().st_size > 2**16
            assert read_trace(path).format == name


def test_json_with_a_mistake_is_recognised_by_what_stands_before_it(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(agentic(asked(0, [1]), asked(1, [1])))[:-60] + "oops")
    with pytest.raises(KvbenchError, match="line 1: not valid JSON"):
        read_trace(path)
    path = written(tmp_path, "[", {"conversations": []}, ", {oops}", "]")
    with pytest.raises(KvbenchError, match="line 3, column 4: not valid JSON"):
        read_trace(path)


@pytest.mark.parametrize("content", ["{}", "[]", '{"a": 1}', "[1, 2]", '{"timestamp": 1}', "{" * 1000, "[" * 100_000])
def test_json_of_no_format_is_an_error_that_says_what_is_expected(tmp_path: Path, content: str) -> None:
    with pytest.raises(KvbenchError, match=r"line 1: no known trace format: expected Mooncake JSONL, .*Bailian"):
        read_trace(written(tmp_path, content))
