"""Runs over two client nodes of two ranks each, on node-local storage and on a volume that the nodes share."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from node_bed import NodeBed

from kvbench.workload.trace_samples import write_samples

OnNodes = Callable[..., Any]

SPACE_SHARE = 0.95
"""Of the free space, what the ranks on a filesystem take together where the configuration leaves it to them."""


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """Options for a short replay that ends by itself, however slow the machine is."""
    trace = write_samples(tmp_path, np.random.default_rng(7))["mooncake"]
    chosen = [
        f"workload={{kind: trace, path: {trace}, max_requests: 60}}",
        "pacing.mode=asap",
        "duration_s=null",
        "model={layers: 1, kv_heads: 1, head_dim: 8}",
        "cache.block_tokens=512",
        "tiers=[{kind: file}]",
        "calibration.seconds=0",
        "io.arena_bytes=32MiB",
        "io.threads=2",
    ]
    return [word for setting in chosen for word in ("--set", setting)]


def kvbench_run(directory: Path, out: Path, settings: list[str]) -> list[object]:
    return [sys.executable, "-m", "kvbench", "run", "smoke", "--dir", directory, "--out", out, *settings]


@pytest.mark.parametrize("shared", [False, True], ids=["node-local", "shared"])
def test_one_file_holds_both_nodes_and_the_ranks_divide_the_space(
    bed: NodeBed, on_nodes: OnNodes, settings: list[str], tmp_path: Path, shared: bool
) -> None:
    directory, out = bed.shared if shared else bed.local, tmp_path / "run.h5"
    free_bytes = int(bed.call("exec", 1, "stat", "--file-system", "--format", "%a", directory)) * int(
        bed.call("exec", 1, "stat", "--file-system", "--format", "%S", directory)
    )
    outcome = on_nodes(*kvbench_run(directory, out, settings))
    assert outcome.code == 0, outcome.err
    assert "4 ranks on 2 nodes" in outcome.out

    run = ka.load(out)
    assert run.attributes["status"] == "complete"
    assert list(run.nodes["host"]) == [f"{bed.name}-n1", f"{bed.name}-n2"]
    assert list(run.nodes["filesystem_group"]) == ([0, 0] if shared else [0, 1])
    assert all(run.nodes["filesystem"] == "fuse.glusterfs") == shared
    assert list(run.ranks["node"]) == [0, 0, 1, 1]

    sharing = 4 if shared else 2
    expected = SPACE_SHARE * free_bytes / sharing
    # The machine's disk fills and empties while other programs run.
    assert np.allclose(run.ranks["storage_capacity_bytes"], expected, rtol=0.1), (run.ranks, expected)

    moved = run.records[(run.records["errno"] == 0) & (run.records["nbytes"] > 0)]
    for rank in range(4):
        operations = set(moved[moved["rank"] == rank]["op"])
        assert {"read", "write"} <= operations, f"rank {rank} did {operations}"
    for node in (1, 2):
        assert bed.files(node, directory) == [], "the run's files are removed"


def test_kvbench_starts_its_ranks_on_the_hosts_of_a_hostfile(bed: NodeBed, settings: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    words = [*kvbench_run(bed.local, out, settings), "--ranks", 4, "--hostfile", bed.hostfile]
    done = subprocess.run(
        [str(word) for word in words],
        env=bed.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(ka.load(out).ranks["host"]) == [f"{bed.name}-n{node}" for node in (1, 1, 2, 2)]
