"""Objects in a bucket that both nodes of the test bed reach, each through a gateway of its own."""

import subprocess
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, Command, attributes, overrides
from node_bed import NodeBed

pytestmark = pytest.mark.slow

OBJECTS = ("tiers.1={kind: object, capacity_bytes: 96MiB}", "io.depth=4", "calibration.seconds=0", "duration_s=1")


def keys(bed: NodeBed) -> dict[str, str]:
    """What s3/env.sh sets."""
    words = ["bash", "-c", '. "$0"; env --null', str(bed.state / "s3" / "env.sh")]
    lines = subprocess.run(words, env={}, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: value for name, _, value in (line.partition("=") for line in lines) if name.startswith("AWS_")}


def run_on_both(bed: NodeBed, out: Path) -> None:
    words = ["mpirun", "--hostfile", bed.hostfile, "-n", 4, *KVBENCH, "run", "smoke", "--dir", "s3://kvbench/bed"]
    words += ["--out", out, "--overwrite", "--expect", "shared", *overrides(*OBJECTS)]
    ended = Command(words, bed.environment | keys(bed), timeout_s=150).ended()
    assert ended.code == 0, ended.err
    found = attributes(out)
    assert (found["status"], found["ranks"], found["nodes"]) == ("complete", 4, 2)


def test_both_nodes_reach_one_bucket_and_one_that_was_lost_does_again(ceph_bed: NodeBed, run_file: Path) -> None:
    assert {path.stat().st_mode & 0o077 for path in (ceph_bed.state / "s3", ceph_bed.state / "s3" / "env.sh")} == {0}
    run_on_both(ceph_bed, run_file)
    ceph_bed.call("kill", 2)
    ceph_bed.call("start", 2)
    run_on_both(ceph_bed, run_file)
    listed = ceph_bed.call("exec", "storage", "rados", "--pool", "default.rgw.buckets.data", "ls")
    assert ".kv" not in listed, "a run removes its objects"
