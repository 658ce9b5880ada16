"""One key space over two client nodes on a volume that they share: reads across nodes, and what cannot be shared."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from node_bed import NodeBed

from kvbench.workload.trace_samples import write_samples

pytestmark = pytest.mark.slow

OnNodes = Callable[..., Any]


def shared_replay(bed: NodeBed, tmp_path: Path, directory: Path, *settings: str) -> list[object]:
    trace = write_samples(tmp_path, np.random.default_rng(7))["mooncake"]
    chosen = [
        f"workload={{kind: trace, path: {trace}, max_requests: 60, serving: reference}}",
        "pacing.mode=asap",
        "duration_s=null",
        "model={layers: 1, kv_heads: 1, head_dim: 8}",
        "cache.block_tokens=512",
        "tiers=[{kind: file, capacity_bytes: 64MiB}]",
        "calibration.seconds=0",
        "io.arena_bytes=32MiB",
        "io.threads=2",
        "payload.verify=full",
        "namespace=shared",
        *settings,
    ]
    options = [word for setting in chosen for word in ("--set", setting)]
    out = tmp_path / "run.h5"
    return [sys.executable, "-m", "kvbench", "run", "smoke", "--dir", directory, "--out", out, *options]


def test_decode_ranks_read_over_the_network_what_prefill_ranks_wrote_on_the_other_node(
    bed: NodeBed, on_nodes: OnNodes, tmp_path: Path
) -> None:
    outcome = on_nodes(*shared_replay(bed, tmp_path, bed.shared, "roles=prefill=0-1,decode=2-3"))
    assert outcome.code == 0, outcome.err
    run = ka.load(tmp_path / "run.h5")
    reads = run.records[(run.records["op"] == "read") & (run.records["rank"] >= 2)]
    assert len(reads)
    assert set(reads["locality"]) == {"other-node"}
    sharing = ka.summarize(run).sharing
    assert sharing.counts["handed_over_requests"] > 0
    assert [sharing.counts[f"{kind}_violations"] for kind in ("missing", "torn", "stale", "unseen")] == [0, 0, 0, 0]
    found = run.table("visibility")
    found = found[found["readable_ns"] > 0]
    # No object is seen before it was written, on clocks that differ by more than a day (docs/testbed.md).
    assert (found["readable_ns"] > found["written_ns"]).all()
    assert set(found["locality"]) == {2}
    for node in (1, 2):
        assert bed.files(node, bed.shared) == [], "the run's files are removed"


def test_nodes_that_see_different_directories_cannot_share_a_key_space(
    bed: NodeBed, on_nodes: OnNodes, tmp_path: Path
) -> None:
    outcome = on_nodes(*shared_replay(bed, tmp_path, bed.local))
    assert outcome.code == 1
    assert "namespace is shared, but" in outcome.err
    assert f"{bed.name}-n2" in outcome.err
    assert not (tmp_path / "run.h5").exists()
