"""Readers of trace files: what they read, and that everything malformed is one clear error that names the place."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvbench.errors import KvbenchError
from kvbench.workload.traces import read_trace, sniff_format
from kvbench.workload.traces.formats import FORMATS

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURSTGPT_HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


def mooncake_line(**changes: object) -> str:
    return json.dumps({"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} | changes)


def written(folder: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path = folder / "trace"
    path.write_bytes(end.join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


def error_of(path: Path, trace_format: str) -> str:
    with pytest.raises(KvbenchError) as caught:
        read_trace(path, trace_format)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_sample_is_recognised_and_read_whole(samples: dict[str, Path], name: str) -> None:
    assert sniff_format(samples[name]) == name
    trace = read_trace(samples[name])
    assert trace.digest == read_trace(samples[name], name).digest
    assert (len(trace), trace.format, trace.bad_lines, trace.source) == (60, name, 0, str(samples[name]))
    assert trace.number.tolist() == list(range(60))
    assert trace.arrival_ns[0] == 0
    assert (np.diff(trace.arrival_ns) >= 0).all()
    up = 0 if name in {"agentic", "baseten"} else trace.hash_block_tokens - 1
    blocks = (trace.context_tokens + up) // trace.hash_block_tokens if trace.hash_block_tokens else np.zeros(60)
    assert (trace.hash_counts == blocks).all()


def test_mooncake_times_are_milliseconds_from_the_first_and_ids_are_opaque(tmp_path: Path) -> None:
    lines = [
        mooncake_line(timestamp=1_700_000_000_000, hash_ids=[2**64 - 1, 0]),
        "",
        mooncake_line(timestamp=1_700_000_000_003, input_length=512, hash_ids=[-(2**63)], type="text"),
        mooncake_line(timestamp=1_700_000_000_003.25, output_length=0),
    ]
    trace = read_trace(written(tmp_path, *lines))
    assert trace.arrival_ns.tolist() == [0, 3_000_000, 3_250_000]
    assert trace.ids(0).tolist() == [2**64 - 1, 0]
    assert trace.ids(1).tolist() == [2**63]
    assert trace.output_tokens.tolist() == [5, 5, 0]


def test_azure_times_keep_seven_digits_and_time_zones_count(tmp_path: Path) -> None:
    rows = ["2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 20:17:04.0000001+02:00,3180,8"]
    trace = read_trace(written(tmp_path, "\ufeff" + AZURE_HEADER, *rows, end=b"\r\n"))
    assert trace.arrival_ns.tolist() == [0, 20_040_100]
    assert trace.context_tokens.tolist() == [4808, 3180]
    assert len(trace.hash_ids) == 0


def test_burstgpt_columns_are_found_by_name_in_any_release(tmp_path: Path) -> None:
    header = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
    rows = ['5,,1.5,"Chat,GPT",472,18,490,Conversation log', "45.5,x,2,GPT-4,1087,0,1087,API log"]
    trace = read_trace(written(tmp_path, header, *rows))
    assert trace.arrival_ns.tolist() == [0, 40_500_000_000]
    assert trace.context_tokens.tolist() == [472, 1087]
    assert trace.output_tokens.tolist() == [18, 0]


def conversation(*messages: tuple[str, str]) -> dict[str, object]:
    return {"id": "x", "conversations": [{"from": speaker, "value": value} for speaker, value in messages]}


def test_sharegpt_turns_hold_the_conversation_so_far_and_share_its_full_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    talk = conversation(("system", "s" * 8), ("human", "a" * 120), ("gpt", "b" * 40), ("human", "c"), ("gpt", "d" * 9))
    alone = conversation(("gpt", "nobody asked"), ("human", ""), ("gpt", ""))
    path = written(tmp_path, json.dumps([talk, {"id": "empty", "conversations": []}, alone]))
    trace = read_trace(path)
    assert trace.token_counting.startswith("characters / 4")
    assert trace.context_tokens.tolist() == [2 + 30, 2 + 30 + 10 + 1, 3]
    assert trace.output_tokens.tolist() == [10, 3, 0]
    assert trace.arrival_ns.tolist() == [0, 0, 0]
    assert trace.ids(1)[:2].tolist() == trace.ids(0).tolist()
    assert len({hash_id for request in range(3) for hash_id in trace.ids(request).tolist()}) == 2 + 1 + 1
    assert trace.answer_counts.tolist() == [1, 1, 0]


def test_a_partial_block_of_a_conversation_is_not_taken_for_the_full_one(tmp_path: Path) -> None:
    talk = conversation(("human", "a" * 40), ("gpt", "b" * 40), ("human", "c" * 40), ("gpt", "d"))
    trace = read_trace(written(tmp_path, json.dumps([talk])))
    assert trace.ids(0)[0] != trace.ids(1)[0]


def test_sharegpt_counts_with_tiktoken_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = SimpleNamespace(encode_ordinary=lambda text: text.split())
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=lambda name: encoding))
    trace = read_trace(written(tmp_path, json.dumps([conversation(("human", "one two three"), ("gpt", "four five"))])))
    assert (trace.context_tokens.tolist(), trace.output_tokens.tolist()) == ([3], [2])
    assert trace.token_counting == "tiktoken cl100k_base"


def test_sharegpt_says_so_where_tiktoken_has_no_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> object:
        raise ConnectionError(name)

    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=unreachable))
    trace = read_trace(written(tmp_path, json.dumps([conversation(("human", "12345678"), ("gpt", "1"))])))
    assert trace.context_tokens.tolist() == [2]
    assert "could not load" in trace.token_counting


BAD_MOONCAKE = {
    "not JSON": ("{", "not JSON|invalid JSON"),
    "not an object": ("[1]", "the line should be an object"),
    "a missing key": ('{"timestamp": 1, "input_length": 600, "hash_ids": [1, 2]}', "output_length is missing"),
    "negative tokens": (mooncake_line(output_length=-1), "output_length .*greater than or equal to 0"),
    "too many tokens": (mooncake_line(input_length=10_000_001), "input_length .*10000000"),
    "tokens that are text": (mooncake_line(input_length="600"), "input_length .*valid integer, not '600'"),
    "tokens with a fraction": (mooncake_line(input_length=600.5), "input_length .*valid integer"),
    "tokens that are a truth value": (mooncake_line(output_length=True), "output_length .*valid integer"),
    "NaN": (mooncake_line(timestamp=float("nan")), "timestamp .*finite"),
    "infinity": (mooncake_line(timestamp=float("inf")), "timestamp .*"),
    "a huge number": (mooncake_line().replace("600", "9" * 5000), "out of range|input_length"),
    "a negative time": (mooncake_line(timestamp=-1), "timestamp .*greater than or equal to 0"),
    "too few ids": (mooncake_line(hash_ids=[1]), "1 hash_ids, but input_length 600 is 2 blocks of 512"),
    "too many ids": (mooncake_line(hash_ids=[1, 2, 3]), "3 hash_ids"),
    "an id of 65 bits": (mooncake_line(hash_ids=[1, 2**64]), "hash_ids.1 .*less than"),
    "an id that is text": (mooncake_line(hash_ids=[1, "2"]), "hash_ids.1 .*valid integer"),
    "no context": (mooncake_line(input_length=0, hash_ids=[]), "without context tokens"),
    "a time of another century": (mooncake_line(timestamp=2**52), "100 years"),
    "bytes that are no text": (b'{"timestamp": "\xff"}', "invalid unicode|invalid JSON"),
    "deep nesting": ("[" * 50_000, "recursion"),
}
BAD_AZURE = {
    "too few fields": ("2023-11-16 18:17:10,5", "2 fields, but the header has 3"),
    "too many fields": ("2023-11-16 18:17:10,5,6,7", "4 fields"),
    "a time that is none": ("yesterday,5,6", "'yesterday' is not like 2023"),
    "a date that is none": ("2023-02-30 18:17:10,5,6", "no moment in time"),
    "a time that goes back": ("2023-11-16 18:17:09,5,6", "goes back by 1 s"),
    "negative tokens": ("2023-11-16 18:17:10,-5,6", "ContextTokens is '-5', not a whole number"),
    "NaN": ("2023-11-16 18:17:10,5,nan", "GeneratedTokens is 'nan'"),
    "a fraction": ("2023-11-16 18:17:10,5.5,6", "ContextTokens is '5.5'"),
    "digits of another script": ("2023-11-16 18:17:10,\N{ARABIC-INDIC DIGIT FIVE},6", "ContextTokens"),
    "too many tokens": ("2023-11-16 18:17:10,10000001,6", "10000001|1e\\+07"),
    "a huge number": ("2023-11-16 18:17:10," + "9" * 5000 + ",6", "not a whole number"),
    "nothing": ("2023-11-16 18:17:10,,6", "ContextTokens is ''"),
    "an open quote": ('2023-11-16 18:17:10,"5,6', "not a line of CSV"),
    "bytes that are no text": (b"2023-11-16 18:17:10,\xff,6", "byte 0xff at column 21"),
}
BAD_BURSTGPT = {
    "a failed request": ("11,GPT-4,0,0,0,API log", "without context tokens"),
    "NaN": ("nan,GPT-4,1,1,2,API log", "'nan' is not a number of seconds"),
    "a negative time": ("-1,GPT-4,1,1,2,API log", "'-1' is not a number of seconds"),
    "a huge time": ("1e300,GPT-4,1,1,2,API log", "not a number of seconds"),
    "a time of another century": ("1e11,GPT-4,1,1,2,API log", "100 years"),
    "a time that is text": ("soon,GPT-4,1,1,2,API log", "'soon'"),
}


def bad_lines() -> list[object]:
    tables = (
        ("mooncake", [mooncake_line(timestamp=10)], BAD_MOONCAKE),
        ("azure", [AZURE_HEADER, "2023-11-16 18:17:10,5,6"], BAD_AZURE),
        ("burstgpt", [BURSTGPT_HEADER, "10,GPT-4,1,1,2,API log"], BAD_BURSTGPT),
    )
    return [
        pytest.param(name, good, line, message, id=f"{name}: {what}")
        for name, good, table in tables
        for what, (line, message) in table.items()
    ]


@pytest.mark.parametrize(("name", "good", "line", "message"), bad_lines())
def test_a_malformed_line_is_named_or_left_out_and_counted(
    tmp_path: Path, name: str, good: list[str], line: str | bytes, message: str
) -> None:
    # A blank line before and a good one behind: the number is that of the file, and reading goes on.
    path = written(tmp_path, *good, "", line, good[-1])
    place = f"{path}, line {len(good) + 2}: "
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path, name)
    assert str(caught.value).startswith(place)
    trace = read_trace(path, name, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (2, 1)
    assert trace.first_bad_line.startswith(place)


BAD_SHAREGPT = {
    "a conversation that is a number": ("3", "the line should be an object, not 3"),
    "no conversations": ('{"id": "x"}', "conversations is missing"),
    "messages that are no list": ('{"conversations": 5}', "conversations should be a valid list"),
    "text that is a number": ('{"conversations": [{"from": "gpt", "value": 5}]}', "conversations.0.value .*not 5"),
    "nobody speaking": ('{"conversations": [{"value": "x"}]}', "conversations.0.from is missing"),
    "somebody unknown": ('{"conversations": [{"from": "cat", "value": "x"}]}', "from is 'cat'"),
}
GOOD_CONVERSATION = json.dumps(conversation(("human", "hello there"), ("gpt", "hello")))


@pytest.mark.parametrize(("text", "message"), BAD_SHAREGPT.values(), ids=BAD_SHAREGPT.keys())
def test_a_malformed_conversation_is_named_or_left_out_and_counted(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, "[", GOOD_CONVERSATION + ",", "", text, ",", GOOD_CONVERSATION, "]")
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 4, conversation 2: ")
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (2, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[", GOOD_CONVERSATION + ",", "{oops}", "]"], "line 3, column 2: not valid JSON"),
        (["[", GOOD_CONVERSATION], "line 2: expected , or ]"),
        (["[", GOOD_CONVERSATION + ",", "]"], "line 3, column 1: not valid JSON"),
        (["[", GOOD_CONVERSATION, "]", "", "x"], "line 5: something follows"),
        (["", "{}"], "line 2, conversation 1: conversations is missing"),
        (["[", b'"\xff"'], "line 2: not UTF-8 text: byte 0xff"),
        (["[", "[" * 100_000], "line 2: this conversation cannot be read"),
        (["[", "9" * 5000, "]"], "line 2: this conversation cannot be read"),
        (["[]"], "no request of the sharegpt format"),
    ],
)
def test_sharegpt_text_that_is_no_json_is_an_error_even_when_bad_lines_are_skipped(
    tmp_path: Path, lines: list[str | bytes], message: str
) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(KvbenchError) as caught:
        read_trace(path, "sharegpt", skip_bad_lines=True)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_conversation_of_too_many_tokens_is_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = SimpleNamespace(encode_ordinary=lambda text: range(6_000_000))
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(get_encoding=lambda name: encoding))
    assert "more than 10000000 tokens" in error_of(written(tmp_path, "[", GOOD_CONVERSATION, "]"), "sharegpt")


@pytest.mark.parametrize("name", ["azure", "burstgpt"])
def test_a_missing_header_is_an_error_even_when_bad_lines_are_skipped(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "2023-11-16 18:17:10,5,6", "2023-11-16 18:17:11,5,6")
    with pytest.raises(KvbenchError, match="line 1: expected the header T"):
        read_trace(path, name, skip_bad_lines=True)
    with pytest.raises(KvbenchError, match="line 1: no known trace format"):
        read_trace(path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = written(tmp_path, content)
    assert str(path) in error_of(path, name)
    with pytest.raises(KvbenchError, match="is empty"):
        sniff_format(path)


def test_a_file_of_bad_lines_only_is_an_error_that_shows_the_first(tmp_path: Path) -> None:
    path = written(tmp_path, AZURE_HEADER, "x,1,1", "y,1,1")
    with pytest.raises(KvbenchError, match=r"2 bad lines, the first: .*line 2: timestamp 'x'"):
        read_trace(path, skip_bad_lines=True)


def test_a_table_with_a_header_only_is_an_error(tmp_path: Path) -> None:
    assert "no request" in error_of(written(tmp_path, AZURE_HEADER), "azure")


@pytest.mark.parametrize("name", ["auto", *FORMATS])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    assert "No such file" in error_of(tmp_path / "missing", name)
    assert "directory" in error_of(tmp_path, name)


def test_other_encodings_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(AZURE_HEADER, encoding="utf-16")
    with pytest.raises(KvbenchError, match="no known trace format"):
        read_trace(path)


def test_the_real_mooncake_trace_is_read_whole(real_trace: Callable[[str], Path]) -> None:
    trace = read_trace(real_trace("mooncake_synthetic.jsonl"))
    assert (trace.format, len(trace), trace.bad_lines) == ("mooncake", 3993, 0)
    assert (len(trace.hash_ids), len(np.unique(trace.hash_ids))) == (121_877, 43_924)
    assert int(trace.arrival_ns[-1]) == 1_022_025_000_000


def test_the_real_azure_trace_is_read_whole(real_trace: Callable[[str], Path]) -> None:
    trace = read_trace(real_trace("azure_llm_code_2023.csv"))
    assert (trace.format, len(trace), trace.bad_lines) == ("azure", 8819, 0)
    assert trace.arrival_ns[:2].tolist() == [0, 52_000_000]
    assert (int(trace.context_tokens[-1]), int(trace.output_tokens[-1])) == (549, 173)
