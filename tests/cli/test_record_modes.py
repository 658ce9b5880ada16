"""Real runs of four ranks under mpirun with all rows, with histograms and with samples: the same work and sums."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_command import QUICK, Command, remains
from samples import sample_trace

pytestmark = pytest.mark.slow

Start = Callable[..., Command]
MODES = ("full", "histogram", "sampled")
RANKS = 4


@pytest.fixture
def files(under_mpirun: Start, folder: Path, tmp_path: Path) -> dict[str, Path]:
    """One trace, replayed as fast as possible, once in each mode: every run makes the same operations."""
    trace = sample_trace(tmp_path, "mooncake")
    found = {}
    for mode in MODES:
        found[mode] = tmp_path / f"{mode}.h5"
        settings = (
            *QUICK,
            f"workload={{kind: trace, path: {trace}, max_requests: 60}}",
            "pacing.mode=asap",
            "duration_s=null",
            "model={layers: 1, kv_heads: 1, head_dim: 8}",
            "cache.block_tokens=512",
            "tiers.0.capacity_bytes=1MiB",
            "tiers.1.capacity_bytes=2MiB",
            f"records={mode}",
        )
        ended = under_mpirun(*settings, ranks=RANKS, out=found[mode]).ended()
        assert ended.code == 0, ended.err
        assert ("percentiles: " in ended.out) == (mode != "full")
    assert not remains(folder)
    return found


def counts(run: ka.Run) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """What a summary says of every kind of operation, and that does not depend on timing."""
    table = ka.summarize(run).operations
    columns = ["tier", "op", "path", "operations", "bytes", "tokens", "size_min_bytes", "size_max_bytes", "failed"]
    return {tuple(row[:3]): tuple(row[3:]) for row in table[columns].itertuples(index=False, name=None)}


def test_four_ranks_in_every_mode_count_the_same_operations(files: dict[str, Path]) -> None:
    runs = {mode: ka.load(path) for mode, path in files.items()}
    full = runs["full"]
    assert len({run.attributes["fingerprint"] for run in runs.values()}) == 1
    assert counts(full)
    for mode in ("histogram", "sampled"):
        run = runs[mode]
        assert run.mode == mode
        assert counts(run) == counts(full)
        assert run.attributes["records_population"] == len(full.records)
        assert run.attributes["requests_population"] == len(full.requests) == 60
        # So few rows fit into the sample: these are figures of the very rows that the sums are of.
        assert run.sampled_1_in() == 1
        rows = run.records
        assert sorted(rows["rank"].unique()) == list(range(RANKS))
        assert run.ranks["rows"].sum() == len(rows) == len(full.records)
        good = rows[(rows["phase"] == "measure") & (rows["errno"] == 0)]
        summary = ka.summarize(run)
        assert summary.operations["bytes"].sum() == good["nbytes"].sum()
        for row in summary.latency[summary.latency["part"] == "wall"].to_dict("records"):
            mine = good[(good["tier"] == row["tier"]) & (good["op"] == row["op"]) & (good["path"] == row["path"])]
            assert row["operations"] == len(mine)
            assert row["mean_ns"] == pytest.approx(mine["wall_ns"].mean())
            for column, percentile in (("p50_ns", 50), ("p95_ns", 95), ("p99_9_ns", 99.9)):
                assert row[column] == pytest.approx(np.percentile(mine["wall_ns"], percentile), rel=0.01)
        of_ranks = summary.ranks.groupby("rank")["operations"].sum()
        assert of_ranks.sum() == good["op"].isin(["read", "write"]).sum()
        assert summary.nodes["operations"].sum() == of_ranks.sum()
        assert json.loads(ka.to_json(summary))["run"]["records"] == mode
