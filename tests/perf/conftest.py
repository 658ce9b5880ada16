"""Performance checks, run on demand: `bash launch/test.sh tests/perf`. They print one table at the end.

They compare figures that were measured in turns in one run, never with an absolute time. They need fio, mpirun, a tmpfs
at /dev/shm and a disk (KVBENCH_PERF_DISK, a directory; the temporary directory where it is not set).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pytest

from kvbench.cluster.launch.mpirun import find_mpirun, mpirun_command, mpirun_environment

sys.path.insert(0, str(Path(__file__).parent))
from rank_reads import Reads

ROUNDS = 5
RANKS = 2
SECONDS = 1.0


@dataclass(frozen=True)
class Figure:
    """A line of the table: median of a ratio, with the least and the greatest."""

    what: str
    ratios: list[float]
    wanted: str
    detail: str

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    def __str__(self) -> str:
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return f"{self.what:<62} {self.ratio:>7.2f}  {spread:>16}  {self.wanted:<10} {self.detail}"


_figures: list[Figure] = []


@pytest.fixture
def report() -> Callable[[Figure], None]:
    """Adds a line to the table."""
    return _figures.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if _figures:
        terminalreporter.section("performance: ratios measured in turns, median and range")
        terminalreporter.write_line(f"{'ratio':<62} {'median':>7}  {'range':>16}  {'wanted':<10} medians")
        for figure in _figures:
            terminalreporter.write_line(str(figure))


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory on tmpfs."""
    directory = Path("/dev/shm/kvbench-perf")
    directory.mkdir(exist_ok=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk."""
    parent = os.environ.get("KVBENCH_PERF_DISK")
    directory = Path(parent) / "kvbench-perf" if parent else tmp_path / "kvbench-perf"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def ranks_read(reads: Reads) -> dict[str, float]:
    """What `RANKS` ranks got, as rank_reads.py prints it."""
    mpirun = find_mpirun()
    program = str(Path(__file__).with_name("rank_reads.py"))
    command = [*mpirun_command(mpirun, RANKS), sys.executable, program, json.dumps(asdict(reads))]
    environment = mpirun_environment(mpirun, os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def fio_reads(reads: Reads) -> float:
    """GB/s that fio reads with a job for each rank: the files that `ranks_read` reads, in the same order and blocks.

    `ranks_read` has written them. fio's buffer is one block on small pages, as kvbench's is where `Reads` has no arena.
    """
    if shutil.which("fio") is None:
        pytest.fail("fio is not installed: it is what the bandwidth is compared with")
    command = [
        "fio",
        "--rw=read",
        f"--bs={reads.io_bytes}",
        "--ioengine=psync",
        f"--direct={int(reads.read_path == 'direct')}",
        "--time_based",
        f"--runtime={reads.seconds}",
        "--file_service_type=sequential",
        "--group_reporting",
        "--readonly",
        "--allow_file_create=0",
        "--invalidate=0",
        "--output-format=json",
    ]
    for rank in range(RANKS):
        for number, file in enumerate(reads.files(rank)):
            # Under a name that fio can count: the same file.
            link = Path(file).with_name(f"fio.{number}")
            if not link.exists():
                link.hardlink_to(file)
        command += [f"--name=rank-{rank}", f"--directory={reads.folder(rank)}", "--filename_format=fio.$filenum"]
        command += [f"--nrfiles={reads.objects}", f"--filesize={reads.object_bytes}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return float(json.loads(done.stdout)["jobs"][0]["read"]["bw_bytes"]) / 1e9


def in_turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[list[float], float, float]:
    """first / second, measured A B B A A B; and the medians of both. A round before them writes the files."""
    first(), second()
    pairs = []
    for turn in range(ROUNDS):
        if turn % 2:
            later = second()
            pairs.append((first(), later))
        else:
            pairs.append((first(), second()))
    return [a / b for a, b in pairs], median(a for a, _ in pairs), median(b for _, b in pairs)
