"""A real shared filesystem whose parts fail: CephFS, two copies on two OSDs, on the test bed's two client nodes."""

import errno
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from breaking import Outcome, Victim
from kvbench_command import attributes, column
from node_bed import NodeBed

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]

PATIENCE_S = 5
MOST_SECONDS = 60
AWAY_S = 5
ROOM_BYTES = 600 * 2**20
WENT_ON = "none, the run goes on until it is asked to stop; the longest operation took {:.1f} s"


@pytest.fixture
def on_cephfs(over_nodes: Break, ceph_bed: NodeBed) -> Iterator[Break]:
    """Like `victim`, two ranks on each node, in CephFS; whatever daemon was killed runs again afterwards."""
    # CephFS makes room some time after a file was deleted.
    wait_until(lambda: free_bytes(ceph_bed) > ROOM_BYTES)
    yield lambda *settings: over_nodes(ceph_bed, PATIENCE_S, *settings, directory=ceph_bed.cephfs)
    for line in ceph_bed.call("status").splitlines():
        if "Ceph cluster: not running" in line:
            ceph_bed.call("restart-ceph", line.split()[1])
    wait_until(lambda: "up:active" in ceph(ceph_bed, "mds", "stat"))


def wait_until(done: Callable[[], object]) -> None:
    """Fails when it is not so after a while."""
    until_s = time.monotonic() + MOST_SECONDS
    while not done():
        assert time.monotonic() < until_s
        time.sleep(0.2)


def free_bytes(bed: NodeBed) -> int:
    """Room in CephFS, as a node sees it."""
    blocks, size = bed.call("exec", 1, "stat", "-f", "-c", "%a %S", bed.cephfs).split()
    return int(blocks) * int(size)


def ceph(bed: NodeBed, *words: object) -> str:
    """What Ceph's management command prints."""
    return bed.call("exec", "storage", "ceph", *words)


def check_went_on(outcome: Outcome, run_file: Path, bed: NodeBed) -> tuple[int, float]:
    """A run that was asked to stop ended as if nothing had been; returns its rows and the longest operation's
    seconds."""
    assert outcome.ended.verdict == ["kvbench: interrupted"]
    assert attributes(run_file)["status"] == "interrupted"
    assert set(column(run_file, "records/errno")) <= {0, errno.ECANCELED}
    assert bed.files(1, bed.cephfs) == bed.files(2, bed.cephfs) == []
    rows = int(column(run_file, "ranks/rows").sum())
    assert rows > outcome.before > 0
    return rows, float(np.max(column(run_file, "records/wall_ns"))) / 1e9


def check_failed_on_nodes(outcome: Outcome, run_file: Path, words: str) -> int:
    """The run ended with one message; its file, marked `failed`, holds at least what there was. Returns its rows."""
    assert outcome.ended.code != 0
    assert outcome.seconds < MOST_SECONDS
    assert len(outcome.ended.messages) == 1, outcome.ended.err
    assert words in outcome.message
    assert attributes(run_file)["status"] == "failed"
    rows = int(column(run_file, "ranks/rows").sum())
    assert rows >= outcome.before > 0
    return rows


def clean_on(bed: NodeBed, node: int) -> list[str]:
    """`kvbench clean` on a node; names of what is in CephFS then."""
    python = next(iter(bed.environment["PATH"].split(":"))) + "/python"
    bed.call("exec", node, python, "-m", "kvbench", "clean", bed.cephfs, "--yes")
    return bed.files(node, bed.cephfs)


def test_a_quota(on_cephfs: Break, ceph_bed: NodeBed, run_file: Path, tell: Tell) -> None:
    run = on_cephfs()
    quota = ("setfattr", "-n", "ceph.quota.max_bytes", "-v")
    run.break_it(lambda: ceph_bed.call("exec", 2, *quota, "1", ceph_bed.cephfs))
    outcome = run.outcome()
    ceph_bed.call("exec", 2, *quota, "0", ceph_bed.cephfs)
    rows = check_failed_on_nodes(outcome, run_file, "Disk quota exceeded")
    assert clean_on(ceph_bed, 1) == []
    tell("CephFS: a quota of the directory set that is used up", outcome, rows)


def test_a_client_dies(on_cephfs: Break, ceph_bed: NodeBed, run_file: Path, tell: Tell) -> None:
    run = on_cephfs()
    run.break_it(lambda: ceph_bed.call("exec", 2, "pkill", "-KILL", "^ceph-fuse$"))
    outcome = run.outcome()
    ceph_bed.call("exec", 2, "umount", "--lazy", ceph_bed.cephfs)
    ceph_bed.call("mount", 2, "cephfs")
    rows = check_failed_on_nodes(outcome, run_file, "mount it again")
    assert clean_on(ceph_bed, 2) == []
    tell("CephFS: ceph-fuse on node 2 killed", outcome, rows)


def test_a_client_is_evicted(on_cephfs: Break, ceph_bed: NodeBed, run_file: Path, tell: Tell) -> None:
    run = on_cephfs()
    run.break_it(
        lambda: ceph(ceph_bed, "tell", "mds.a", "client", "evict", f"client_metadata.hostname={ceph_bed.name}-n2")
    )
    outcome = run.outcome()
    ceph_bed.call("exec", 2, "umount", "--lazy", ceph_bed.cephfs)
    ceph_bed.call("mount", 2, "cephfs")
    rows = check_failed_on_nodes(outcome, run_file, "Cannot send after transport endpoint shutdown (this node's client")
    assert clean_on(ceph_bed, 2) == []
    tell("CephFS: node 2 evicted from the cluster", outcome, rows)


def test_an_osd_is_killed_and_the_run_goes_on_with_the_other_copy(
    on_cephfs: Break, ceph_bed: NodeBed, run_file: Path, tell: Tell
) -> None:
    run = on_cephfs("io.read_path=direct", "io.write_path=direct")
    run.break_it(lambda: ceph_bed.call("kill-ceph", "osd.1"))
    run.command.wait_for(lambda: "1 up" in ceph(ceph_bed, "osd", "stat"))
    run.go_on()
    run.command.send(signal.SIGUSR1)
    outcome = run.outcome()
    rows, longest_s = check_went_on(outcome, run_file, ceph_bed)
    tell("CephFS: one of two OSDs killed (2 copies)", outcome, rows, WENT_ON.format(longest_s))


@pytest.mark.parametrize("daemon", ["mds.a", "osd.0 and osd.1"])
def test_daemons_are_killed_and_started_again(
    on_cephfs: Break, ceph_bed: NodeBed, run_file: Path, tell: Tell, daemon: str
) -> None:
    run = on_cephfs()

    def kill_for_a_while() -> None:
        for one in daemon.split(" and "):
            ceph_bed.call("kill-ceph", one)
        time.sleep(AWAY_S)
        for one in daemon.split(" and "):
            ceph_bed.call("restart-ceph", one)

    run.break_it(kill_for_a_while)
    run.go_on()
    run.command.send(signal.SIGUSR1)
    outcome = run.outcome()
    rows, longest_s = check_went_on(outcome, run_file, ceph_bed)
    done = f"CephFS: {daemon} killed, and started again after {AWAY_S} s"
    tell(done, outcome, rows, WENT_ON.format(longest_s))
