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

pytestmark = pytest.mark.slow

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
    assert run.attributes["cache_directory"] == ("shared" if shared else "local")

    ahead_ns = bed.clock_ahead_ns(2) - bed.clock_ahead_ns(1)
    assert run.nodes["clock_uncertainty_ns"][0] == 0
    assert run.nodes["clock_offset_ns"][0] == 0
    assert abs(run.nodes["clock_offset_ns"][1] - ahead_ns) <= run.nodes["clock_uncertainty_ns"][1]
    starts = run.records.groupby("rank")["t_start_ns"].min()
    assert starts.max() - starts.min() < ahead_ns / 10, "times of both nodes are on one clock"

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


@pytest.mark.parametrize("expect", ["shared", "local"])
def test_a_run_that_finds_what_it_expects_says_so(
    bed: NodeBed, on_nodes: OnNodes, settings: list[str], tmp_path: Path, expect: str
) -> None:
    out = tmp_path / "run.h5"
    directory = bed.shared if expect == "shared" else bed.local
    outcome = on_nodes(*kvbench_run(directory, out, settings), "--expect", expect)
    assert outcome.code == 0, outcome.err
    attributes = ka.load(out).attributes
    assert (attributes["cache_directory"], attributes["expected_directory"]) == (expect, expect)
    shown = "directory shared by all nodes" if expect == "shared" else "a directory on each node"
    assert shown in outcome.out


def test_a_forgotten_mount_is_an_error_before_anything_is_measured(
    bed: NodeBed, on_nodes: OnNodes, settings: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    bed.call("unmount", 2)
    try:
        outcome = on_nodes(*kvbench_run(bed.shared, out, settings), "--expect", "shared")
    finally:
        bed.call("mount", 2)
    assert outcome.code == 1
    assert f"--expect shared, but {bed.shared} is not the same place on all nodes:" in outcome.err
    assert f"{bed.name}-n1: fuse.glusterfs from " in outcome.err
    assert f"it seems not to be mounted on {bed.name}-n2: mount it there" in outcome.err
    assert not out.exists()
    assert [bed.files(node, bed.shared) for node in (1, 2)] == [[], []]


def test_a_shared_directory_that_should_be_local_is_an_error(
    bed: NodeBed, on_nodes: OnNodes, settings: list[str], tmp_path: Path
) -> None:
    outcome = on_nodes(*kvbench_run(bed.shared, tmp_path / "run.h5", settings), "--expect", "local")
    assert outcome.code == 1
    assert f"--expect local, but {bed.shared} is the same place on several nodes:" in outcome.err
    assert f"{bed.name}-n1, {bed.name}-n2: fuse.glusterfs from " in outcome.err


def test_a_file_made_on_one_node_is_seen_on_the_other_at_the_first_look_for_it(bed: NodeBed, on_nodes: OnNodes) -> None:
    """What the search for nodes that share a directory rests on, many times over, each with a new name."""
    program = Path(__file__).parent / "programs" / "sharing.py"
    outcome = on_nodes(sys.executable, program, bed.shared, 50, timeout_s=240)
    assert outcome.code == 0, outcome.err
    assert outcome.lines == ["50 of 50 found shared"]
