"""Traces as Parquet: Baseten's, and kvbench's own, which holds any other whole."""

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from kvbench.errors import KvbenchError
from kvbench.workload.traces import Trace, read_trace, sniff_format
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.parquet import encode


def parquet(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "trace.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def completion(at_ms: object, tokens: object, hashes: object = None, **more: object) -> dict[str, object]:
    row: dict[str, object] = {"timestamp_start_unix_ms": at_ms, "input_tokens": tokens, "output_tokens": 7}
    return {**row, "total_hashes": hashes, "block_size": 64, "provided_session_id": None, **more}


def test_baseten_rows_have_times_sessions_gaps_and_ids_where_they_are_there(tmp_path: Path) -> None:
    rows = [
        completion(5000, 130, ["a", "b"], provided_session_id="x", duration_e2e_ms=400),
        completion(4000, 130, ["a", "b", "c"], duration_e2e_ms=None),
        completion(6000, 200, ["a", "b", "c"], provided_session_id="x", duration_e2e_ms=None),
        completion(7000, 20, None, provided_session_id="x", duration_e2e_ms=None),
    ]
    trace = read_trace(parquet(tmp_path, rows))
    assert (trace.format, trace.hash_block_tokens) == ("baseten", 64)
    assert trace.arrival_ns.tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]
    assert trace.hash_counts.tolist() == [3, 2, 3, 0]
    assert trace.ids(0)[:2].tolist() == trace.ids(1).tolist()
    assert trace.session.tolist() == [-1, 0, 0, 0]
    assert trace.gap_ns.tolist() == [-1, -1, 600_000_000, -1]


def test_a_baseten_file_needs_no_more_than_times_and_lengths(tmp_path: Path) -> None:
    rows = [{"timestamp_start_unix_ms": 5, "input_tokens": 1, "output_tokens": 2, "poor_man_session_id": "a"}]
    trace = read_trace(parquet(tmp_path, rows))
    assert (len(trace.hash_ids), trace.session.tolist()) == (0, [0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (completion(None, 5), "timestamp_start_unix_ms is None, not a whole number"),
        (completion(1, -5), "input_tokens is -5, not a whole number"),
        (completion(1, 0), "without context tokens"),
        (completion(1, 130, ["a"]), "1 total_hashes, but input_tokens 130 is 2 or 3 blocks of 64"),
        (completion(1, 5, ["a"], block_size=32), "block_size 32, but 64 expected"),
        (completion(1, 5, ["a"], block_size=None), "block_size is None"),
    ],
)
def test_a_bad_row_is_named_or_left_out_and_counted(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = parquet(tmp_path, [completion(1, 60, ["a"]), row])
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, row 2: ")
    trace = read_trace(path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (1, 1)


OTHERS = [name for name in FORMATS if name != "kvbench"]


@pytest.mark.parametrize("name", OTHERS)
def test_every_trace_is_the_same_as_a_file_of_kvbenchs_own(samples: dict[str, Path], tmp_path: Path, name: str) -> None:
    trace = read_trace(samples[name])
    path = tmp_path / "own"
    path.write_bytes(encode(trace))
    assert sniff_format(path) == "kvbench"
    own = read_trace(path)
    assert own.digest == trace.digest
    assert own.token_counting == trace.token_counting
    for mine, its in zip(own.to_arrays()[0], trace.to_arrays()[0], strict=True):
        assert np.array_equal(mine, its)


def test_a_part_of_a_trace_is_numbered_anew_and_begins_at_0(samples: dict[str, Path], tmp_path: Path) -> None:
    part = read_trace(samples["agentic"]).take(np.arange(10, 20))
    path = tmp_path / "part"
    path.write_bytes(encode(part))
    own = read_trace(path)
    assert own.number.tolist() == list(range(10))
    assert own.arrival_ns.tolist() == (part.arrival_ns - part.arrival_ns[0]).tolist()
    assert own.hash_ids.tolist() == part.hash_ids.tolist()


WRONG: dict[str, tuple[Callable[[Trace], Trace], str]] = {
    "times that fall": (lambda t: replace(t, arrival_ns=5 - t.arrival_ns), "row [0-9]+: arrival_ns falls"),
    "no context": (lambda t: replace(t, context_tokens=t.context_tokens * 0), "row 1: context_tokens"),
    "ids that do not fit": (
        lambda t: replace(t, context_tokens=t.context_tokens + 1024),
        "row 1: hash_ids that do not",
    ),
    "no such session": (lambda t: replace(t, session=t.session - 5), "row 1: session"),
    "no such gap": (lambda t: replace(t, gap_ns=t.gap_ns - 5), "row 1: gap_ns"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_file_of_kvbenchs_own_that_cannot_be_true_is_an_error(
    samples: dict[str, Path], tmp_path: Path, change: Callable[[Trace], Trace], message: str
) -> None:
    path = tmp_path / "own"
    path.write_bytes(encode(change(read_trace(samples["mooncake"]))))
    with pytest.raises(KvbenchError, match=f"{path}, {message}"):
        read_trace(path, skip_bad_lines=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.replace_schema_metadata({}), "its metadata kvbench-trace is missing"),
        (lambda table: table.replace_schema_metadata({b"kvbench-trace": b'{"version": 9}'}), "metadata|version 9"),
        (lambda table: table.drop_columns(["gap_ns"]), "a Parquet file needs the columns"),
        (lambda table: table.slice(0, 0), "has no request of the kvbench format"),
        (
            lambda table: table.set_column(1, "context_tokens", pyarrow.array(["x"] * len(table))),
            "context_tokens must be whole numbers, all there, and is string",
        ),
        (
            lambda table: table.set_column(5, "hash_ids", pyarrow.array([1] * len(table))),
            "hash_ids is no column of lists",
        ),
        (
            lambda table: table.set_column(5, "hash_ids", pyarrow.array([["a"]] * len(table))),
            "hash_ids must be lists of uint64",
        ),
    ],
)
def test_a_parquet_file_that_kvbench_did_not_write_is_an_error(
    samples: dict[str, Path], tmp_path: Path, change: Callable[[pyarrow.Table], pyarrow.Table], message: str
) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(encode(read_trace(samples["mooncake"]))))
    path = tmp_path / "own"
    pyarrow.parquet.write_table(change(table), path)
    with pytest.raises(KvbenchError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["baseten", "kvbench"])
def test_a_damaged_parquet_file_is_an_error(samples: dict[str, Path], tmp_path: Path, name: str) -> None:
    content = samples[name].read_bytes()
    path = tmp_path / "trace"
    path.write_bytes(content[: len(content) // 2])
    for trace_format in ("auto", name):
        with pytest.raises(KvbenchError, match=f"cannot read trace {path}: damaged, or not whole, as Parquet"):
            read_trace(path, trace_format)
    path.write_bytes(samples["mooncake"].read_bytes())
    with pytest.raises(KvbenchError, match=f"{path} is no Parquet file, which a trace of the {name} format is"):
        read_trace(path, name)


def test_without_pyarrow_the_message_says_what_to_install(
    samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = read_trace(samples["mooncake"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for read in (lambda: read_trace(samples["baseten"]), lambda: encode(trace)):
        with pytest.raises(
            KvbenchError, match=r"needs pyarrow, which is not installed: pip install 'kvbench\[export\]'"
        ):
            read()


def test_names_of_sessions_may_be_of_any_type_and_text_that_is_none_is_damage(tmp_path: Path) -> None:
    rows = [completion(1, 5, None, provided_session_id=b"a"), completion(2, 5, None, provided_session_id=b"\xff")]
    path = parquet(tmp_path, rows)
    assert read_trace(path).session.tolist() == [0, 1]
    table = pyarrow.Table.from_pylist(rows)
    column = pyarrow.Array.from_buffers(pyarrow.string(), 2, table["provided_session_id"].combine_chunks().buffers())
    place = table.schema.get_field_index("provided_session_id")
    pyarrow.parquet.write_table(table.set_column(place, "provided_session_id", column), path)
    with pytest.raises(KvbenchError, match=f"cannot read trace {path}: damaged, or not whole, as Parquet"):
        read_trace(path)
