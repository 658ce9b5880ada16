"""Nodes and shared storage that fail, on the test bed: two client nodes of two ranks each, and a GlusterFS volume."""

import errno
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from breaking import Victim
from kvbench_command import attributes, column
from laid_out import BUCKET, NIXL, PLAIN_AND_EACH, SHORT_CONTEXTS, skip_without_library
from node_bed import NodeBed

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]

PATIENCE_S = 5
MOST_SECONDS = 60
STOPPED_S = 5
ON_ONE_TIER = (*SHORT_CONTEXTS[:-1], "tiers=[{kind: file, capacity_bytes: 48MiB, layout: {kind: slab}}]")
AWAY = {
    "files": ("", ("tiers=[{kind: file}]",)),
    "bucket": (
        "buckets, batches synced: ",
        (*SHORT_CONTEXTS[:-1], f"tiers=[{BUCKET[-1].removeprefix('tiers.1=')}]", "io.sync=batch"),
    ),
    "nixl": ("files by NIXL: ", (*SHORT_CONTEXTS[:-1], "tiers=[{kind: file, capacity_bytes: 48MiB}]", *NIXL[-3:])),
    "slab-rings": ("slab on rings: ", (*ON_ONE_TIER, "io.engine=uring", "io.depth=8", "io.threads=2")),
}


@pytest.fixture
def on_nodes(over_nodes: Break, bed: NodeBed) -> Iterator[Break]:
    """Like `victim`, over both nodes, on their local directories where nothing else is said."""

    def begin(*settings: str, directory: Path = bed.local, own: bool = False) -> Victim:
        return over_nodes(bed, PATIENCE_S, *settings, directory=directory, own=own)

    yield begin
    for node in (1, 2):
        bed.call("restore", node)


def on_node(bed: NodeBed, node: int, *words: object) -> str:
    return bed.call("exec", node, *words)


def programs_left(bed: NodeBed, node: int) -> bool:
    """Whether a rank lives on a node."""
    return "kvbench run" in on_node(bed, node, "ps", "-eo", "args")


def wait_for_no_rank(bed: NodeBed, nodes: tuple[int, ...]) -> None:
    """Fails when ranks are left on the nodes after a while."""
    until_s = time.monotonic() + MOST_SECONDS
    while any(programs_left(bed, node) for node in nodes):
        assert time.monotonic() < until_s, "ranks are left"
        time.sleep(0.2)


def clean_on(bed: NodeBed, node: int, directory: Path) -> list[str]:
    """`kvbench clean` on a node; names of what is in its directory then."""
    python = next(iter(bed.environment["PATH"].split(":"))) + "/python"
    on_node(bed, node, python, "-m", "kvbench", "clean", directory, "--yes")
    return bed.files(node, directory)


@PLAIN_AND_EACH
def test_a_nodes_network_cut(on_nodes: Break, bed: NodeBed, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    skip_without_library(name)
    run = on_nodes(*layout)
    run.break_it(lambda: bed.call("cut", 2))
    outcome = run.outcome()
    assert outcome.seconds < MOST_SECONDS
    assert len(outcome.ended.messages) == 1
    assert f"rank 2 on {bed.name}-n2 and 1 more: no sign of life for {PATIENCE_S} s" in outcome.message
    wait_for_no_rank(bed, (1, 2))
    rows, _ = run.recovered()
    assert len(rows) == 4
    assert sum(rows) >= outcome.before > 0
    assert [clean_on(bed, node, bed.local) for node in (1, 2)] == [[], []]
    tell(f"{name}network of node 2 cut (mpirun, 2 x 2 ranks, --patience {PATIENCE_S})", outcome, sum(rows))


@PLAIN_AND_EACH
def test_a_whole_node_killed(on_nodes: Break, bed: NodeBed, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    skip_without_library(name)
    run = on_nodes(*layout, own=True)
    run.break_it(lambda: bed.call("kill", 2))
    outcome = run.outcome()
    bed.call("start", 2)
    assert outcome.ended.code != 0
    assert outcome.seconds < MOST_SECONDS
    assert len(outcome.ended.messages) == 1
    assert f"{bed.name}-n2" in outcome.message or f"{bed.subnet}.2" in outcome.message
    assert "all ranks end" in outcome.message
    wait_for_no_rank(bed, (1,))
    rows, _ = run.recovered()
    assert sum(rows) >= outcome.before > 0
    assert [clean_on(bed, node, bed.local) for node in (1, 2)] == [[], []]
    tell(f"{name}node 2 and all in it killed (kvbench run --ranks, 2 x 2 ranks)", outcome, sum(rows))


@pytest.mark.parametrize("which", AWAY)
def test_a_shared_filesystem_that_is_away_for_a_while(
    on_nodes: Break, bed: NodeBed, run_file: Path, tell: Tell, which: str
) -> None:
    name, layout = AWAY[which]
    skip_without_library(name)
    run = on_nodes(*layout, directory=bed.shared)

    def stop() -> None:
        bed.call("stop-storage")
        time.sleep(STOPPED_S)
        bed.call("continue-storage")

    run.break_it(stop)
    run.go_on()
    run.command.send(signal.SIGUSR1)
    outcome = run.outcome()
    assert outcome.ended.verdict == ["kvbench: interrupted"]
    assert attributes(run_file)["status"] == "interrupted"
    assert set(column(run_file, "records/errno")) <= {0, errno.ECANCELED}
    wall_ns = column(run_file, "records/wall_ns")
    longest_s = float(np.max(wall_ns)) / 1e9
    assert longest_s > STOPPED_S - 1, "the stall shows in the records"
    assert bed.files(1, bed.shared) == []
    rows = int(column(run_file, "ranks/rows").sum())
    assert rows > outcome.before > 0
    tell(
        f"{name}GlusterFS server stopped for {STOPPED_S} s",
        outcome,
        rows,
        f"none, the run goes on until it is asked to stop; the longest operation took {longest_s:.1f} s",
    )
