"""The test bed of client nodes (launch/testbed) as tests use it. It judges nothing."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from kvbench.cluster.launch.mpirun import Mpirun, check_reach
from kvbench.errors import KvbenchError

SCRIPT = Path(__file__).resolve().parents[3] / "launch" / "testbed" / "testbed.sh"


def call_testbed(
    *arguments: object, name: str | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Call testbed.sh, and return what it did."""
    words = ["bash", str(SCRIPT), *(["--name", name] if name else []), *map(str, arguments)]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def need_reach(mpirun: Mpirun) -> None:
    """Skip where mpirun lies in a folder from which it can start nothing on another host."""
    try:
        check_reach(mpirun, ["elsewhere"])
    except KvbenchError as error:
        pytest.skip(f"needs another folder: {error}")


@dataclass(frozen=True)
class NodeBed:
    """A test bed that is up: two nodes of two slots, `NAME-n1` and `NAME-n2`, and what they share."""

    name: str
    state: Path

    def call(self, *arguments: object) -> str:
        """Call testbed.sh on it; what it printed. Raises AssertionError with its message where it failed."""
        done = call_testbed(*arguments, name=self.name)
        assert done.returncode == 0, f"testbed.sh {arguments}: {done.stderr}"
        return done.stdout

    @property
    def subnet(self) -> str:
        """The first three numbers of the nodes' addresses; node I's is `SUBNET.I`."""
        return (self.state / "subnet").read_text().strip()

    @property
    def hostfile(self) -> Path:
        """For mpirun."""
        return self.state / "hosts"

    @property
    def local(self) -> Path:
        """The node-local directory, the same path on each node."""
        return self.state / "local"

    @property
    def shared(self) -> Path:
        """The directory on the GlusterFS volume that all nodes share."""
        return self.state / "shared"

    @property
    def cephfs(self) -> Path:
        """The directory on the CephFS that all nodes share, where the test bed was brought up with `--cephfs`."""
        return self.state / "cephfs"

    @cached_property
    def environment(self) -> dict[str, str]:
        """This process's variables and those of env.sh."""
        done = subprocess.run(
            ["bash", "-c", '. "$0"; env --null', str(self.state / "env.sh")], capture_output=True, text=True, check=True
        )
        environment = dict(line.partition("=")[::2] for line in done.stdout.split("\0") if line)
        # Unbuffered, Python writes a line and its end separately, and ranks' lines may come mixed.
        environment.pop("PYTHONUNBUFFERED", None)
        return environment

    def clock_ahead_ns(self, node: int) -> int:
        """By how much node `node`'s (1, 2) CLOCK_MONOTONIC is ahead of this machine's, exactly."""
        return int((self.state / "nodes" / str(node) / "clock_offset_s").read_text()) * 10**9

    def files(self, node: int, directory: Path) -> list[str]:
        """Names in `directory` as node `node` sees it."""
        return self.call("exec", node, "ls", "-A", directory).split()


@contextmanager
def brought_up(name: str, *options: object) -> Iterator[NodeBed]:
    """A test bed of two nodes of two slots, made with more `options` of `up`, and taken down afterwards."""
    made = call_testbed("up", "--nodes", 2, "--slots", 2, *options, name=name)
    if made.returncode != 0:
        pytest.fail(f"the test bed does not come up:\n{made.stdout}\n{made.stderr}")
    try:
        yield NodeBed(name, Path(os.environ.get("KVBENCH_TESTBED_ROOT", "/var/tmp/kvbench-testbed")) / name)
    finally:
        taken_down = call_testbed("down", name=name)
        assert taken_down.returncode == 0, taken_down.stderr
