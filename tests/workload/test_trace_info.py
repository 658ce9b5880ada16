"""Statistics of a trace, against a trace small enough to count by hand and against the real ones."""

from collections.abc import Callable
from dataclasses import asdict, astuple
from pathlib import Path

import pytest

from kvbench.workload.trace_info import trace_info
from kvbench.workload.traces import read_trace


def test_statistics_of_a_trace_counted_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"timestamp": 100, "input_length": 1024, "output_length": 10, "hash_ids": [1, 2]}\n'
        "oops\n"
        '{"timestamp": 1600, "input_length": 1124, "output_length": 30, "hash_ids": [1, 2, 3]}\n'
        '{"timestamp": 2100, "input_length": 612, "output_length": 20, "hash_ids": [1, 4]}\n'
    )
    info = trace_info(read_trace(path, skip_bad_lines=True))
    assert (info.requests, info.span_ns, info.bad_lines) == (3, 2_000_000_000, 1)
    assert astuple(info.output) == pytest.approx((60, 20, 20, 29, 30))
    assert info.context.total == 1024 + 1124 + 612
    assert info.reuse is not None
    assert asdict(info.reuse) == pytest.approx(
        {
            "block_tokens": 512,
            "total_blocks": 7,
            "distinct_blocks": 4,
            "reusable_fraction": 3 / 7,
            "token_hit_rate": 3 * 512 / 2760,
            "prefix_blocks": 3,
            "prefix_tokens": 3 * 512,
            "prefix_token_rate": 3 * 512 / 2760,
            "most_reused_id": 1,
            "most_reused_uses": 3,
        }
    )
    rows = dict(info.as_rows())
    assert rows["requests"] == "3"
    assert rows["span"] == "2.000 s, 1.5 requests/s"
    assert rows["blocks seen before"] == "42.86%"
    assert rows["bad lines left out"] == "1"
    assert f"{path}, line 2: " in rows["first bad line"]


def test_a_format_without_hash_ids_says_that_reuse_is_unknown(samples: dict[str, Path]) -> None:
    info = trace_info(read_trace(samples["burstgpt"]))
    assert info.reuse is None
    assert dict(info.as_rows())["reuse"].startswith("unknown")


def test_a_trace_without_times_says_so_and_how_tokens_were_counted(samples: dict[str, Path]) -> None:
    rows = dict(trace_info(read_trace(samples["sharegpt"])).as_rows())
    assert rows["span"] == "no arrival times"
    assert rows["tokens counted"].startswith(("characters / 4", "tiktoken"))
    assert "blocks of 16 tokens" in rows


def test_the_real_mooncake_trace_has_its_known_reuse(real_trace: Callable[[str], Path]) -> None:
    info = trace_info(read_trace(real_trace("mooncake_synthetic.jsonl")))
    assert info.reuse is not None
    assert (info.requests, info.reuse.total_blocks, info.reuse.distinct_blocks) == (3993, 121_877, 43_924)
    assert info.reuse.reusable_fraction == pytest.approx(1 - 43_924 / 121_877)
    assert info.context.max == 191_378
