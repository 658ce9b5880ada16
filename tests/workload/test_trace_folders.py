"""A trace of several files: a folder, or what a pattern matches, in order of time, of one format."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from trace_rows import agentic, asked, bailian, delta, mooncake, written

from kvbench.errors import KvbenchError
from kvbench.workload.traces import read_trace, sniff_format


def test_files_are_merged_in_order_of_time_and_of_their_names(tmp_path: Path) -> None:
    written(tmp_path, mooncake(timestamp=20, output_length=3), mooncake(timestamp=40, output_length=5), name="b")
    written(tmp_path, mooncake(timestamp=10, output_length=1), mooncake(timestamp=20, output_length=2), name="a")
    written(tmp_path, mooncake(timestamp=30, output_length=4), name="c")
    for path in (tmp_path, tmp_path / "*", f"{tmp_path}/[abc]"):
        trace = read_trace(path)
        assert trace.output_tokens.tolist() == [1, 2, 3, 4, 5]
        assert trace.arrival_ns.tolist() == [0, 10_000_000, 10_000_000, 20_000_000, 30_000_000]
        assert trace.number.tolist() == list(range(5))
        assert trace.source == str(path)
    assert len(read_trace(tmp_path / "[ac]")) == 3


def test_a_trace_in_pieces_is_the_same_trace(samples: dict[str, Path], tmp_path: Path) -> None:
    for name, header in (("mooncake", 0), ("azure", 1), ("burstgpt", 1)):
        folder = tmp_path / name
        folder.mkdir()
        lines = samples[name].read_bytes().splitlines(keepends=True)
        for piece, start in enumerate(range(header, len(lines), 25)):
            content = b"".join([*lines[:header], *lines[start : start + 25]])
            (folder / f"{piece}.gz").write_bytes(gzip.compress(content))
        assert read_trace(folder).digest == read_trace(samples[name]).digest


def test_conversations_begin_together_and_keep_their_own_times(tmp_path: Path) -> None:
    written(tmp_path, agentic(asked(0, [1]), asked(9, [1]), id="a"), name="a.json")
    written(tmp_path, agentic(asked(4, [1]), asked(5, [1]), id="b"), name="b.json")
    trace = read_trace(tmp_path)
    assert (trace.arrival_ns / 1e9).tolist() == [0, 4, 5, 9]
    assert trace.session.tolist() == [0, 1, 1, 0]


def test_a_stray_file_of_another_format_is_named(tmp_path: Path) -> None:
    written(tmp_path, mooncake(), name="a")
    written(tmp_path, bailian(0, -1, 0), name="b")
    with pytest.raises(KvbenchError, match=f"{tmp_path}/b is of the bailian format, but {tmp_path}/a .*of mooncake"):
        read_trace(tmp_path, skip_bad_lines=True)
    (tmp_path / "b").write_text("These are traces.")
    with pytest.raises(KvbenchError, match=f"{tmp_path}/b, line 1: no known trace format"):
        read_trace(tmp_path)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, mooncake(), name="a")
    written(tmp_path, "nothing", name=".hidden")
    (tmp_path / "folder").mkdir()
    assert len(read_trace(tmp_path)) == 1
    assert sniff_format(tmp_path) == "mooncake"


def test_blocks_of_two_sizes_are_no_one_trace(tmp_path: Path) -> None:
    written(tmp_path, agentic(asked(0, [1])), name="a")
    written(tmp_path, agentic(asked(0, [1]) | {"in": 32}, block_size=32), name="b")
    with pytest.raises(KvbenchError, match=f"{tmp_path}/b has blocks of 32 tokens, but {tmp_path}/a of 64"):
        read_trace(tmp_path)


def test_files_of_different_centuries_are_no_one_trace(tmp_path: Path) -> None:
    written(tmp_path, mooncake(), name="a")
    written(tmp_path, mooncake(timestamp=2**52), name="b")
    with pytest.raises(KvbenchError, match=f"{tmp_path}/b begins more than 100 years after"):
        read_trace(tmp_path)


def test_bad_lines_are_counted_over_all_files_and_the_first_is_shown(tmp_path: Path) -> None:
    written(tmp_path, mooncake(), name="a")
    written(tmp_path, mooncake(), "oops", name="b")
    written(tmp_path, mooncake(), "oops", "again", name="c")
    trace = read_trace(tmp_path, skip_bad_lines=True)
    assert (len(trace), trace.bad_lines) == (3, 3)
    assert trace.first_bad_line.startswith(f"{tmp_path}/b, line 2: ")


def test_a_folder_or_a_pattern_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match="this directory has no files"):
        read_trace(tmp_path)
    with pytest.raises(KvbenchError, match="no file matches this pattern"):
        read_trace(tmp_path / "*.json")


def test_a_name_that_looks_like_a_pattern_is_the_file_of_that_name(tmp_path: Path) -> None:
    assert len(read_trace(written(tmp_path, mooncake(), name="trace[1].jsonl"))) == 1


def test_text_conversations_of_two_files_share_nothing(samples: dict[str, Path], tmp_path: Path) -> None:
    for name in ("sharegpt", "messages"):
        folder = tmp_path / name
        folder.mkdir()
        for copy in "ab":
            shutil.copy(samples[name], folder / copy)
        alone = read_trace(samples[name])
        both = read_trace(folder)
        assert len(np.unique(both.hash_ids)) == 2 * len(np.unique(alone.hash_ids))
        assert int(both.session.max()) == (2 * int(alone.session.max()) + 1 if name == "messages" else -1)


def test_sessions_of_two_files_are_two_sessions(tmp_path: Path) -> None:
    rows = [delta("a", 10, [1], timestamp=0), delta("a", 10, [2], delay=5)]
    for name in "ab":
        written(tmp_path, *rows, name=name)
    trace = read_trace(tmp_path)
    assert trace.session.tolist() == [0, 1, 0, 1]
