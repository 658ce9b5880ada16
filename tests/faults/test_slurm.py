"""A real Slurm on the nodes of the test bed: jobs of the batch script, and what ends them before their time."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from breaking import missing
from kvbench_command import attributes, column
from node_bed import NodeBed

from kvbench.records.spill.recover import recover

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "slurm.sbatch"
MPICH = ROOT / ".venv-mpich"
"""`bash launch/test.sh --mpi mpich` makes it."""
LONGEST_S = 150
ENOUGH_BYTES = 32 * 1024
SHORT = ("--set", "duration_s=2")
ENDLESS = ("--set", "duration_s=600")
WAYS = ("pmix", "pmi2", "mpirun")


def call_slurm(bed: NodeBed, *words: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "launch" / "testbed" / "slurm.sh"
    command = ["bash", str(script), "--name", bed.name, *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)


@dataclass(frozen=True)
class Job:
    """A job of `launch/slurm.sbatch` on both nodes, two ranks on each, submitted on node 1."""

    slurm: "Slurm"
    number: str
    folder: Path

    @property
    def out(self) -> Path:
        """The run file."""
        return self.folder / f"kvbench-{self.number}.h5"

    @property
    def said(self) -> str:
        return (self.folder / f"kvbench-{self.number}.log").read_text()

    @property
    def spilled(self) -> list[Path]:
        """Spill files of ranks."""
        return sorted(self.folder.glob("spill/*.spill"))

    def wait_for(self, what: Callable[[], object], of: str) -> None:
        until_s = time.monotonic() + LONGEST_S
        while not what():
            assert time.monotonic() < until_s, f"no {of} within {LONGEST_S} s:\n{self.said}"
            time.sleep(0.2)

    def wait_until_at_work(self) -> None:
        """Until each rank has measured something."""
        self.wait_for(
            lambda: len(self.spilled) == 4 and all(file.stat().st_size > ENOUGH_BYTES for file in self.spilled), "load"
        )

    def wait_for_end(self) -> None:
        self.wait_for(lambda: not self.slurm.on_first("squeue", "--noheader", "--jobs", self.number).strip(), "end")


@dataclass(frozen=True)
class Slurm:
    """That of a test bed."""

    bed: NodeBed
    folder: Path

    def on_first(self, *words: object, **environment: str) -> str:
        """What a command of Slurm's says on node 1; nothing where it knows a job no more."""
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "testbed" / "testbed.sh"), "--name", self.bed.name, "exec", "1"]
            + [str(word) for word in words],
            env=self.bed.environment | {"SLURM_CONF": str(self.bed.state / "slurm" / "slurm.conf")} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 or "Invalid job id" in done.stderr, done.stderr
        return done.stdout

    def submit(self, way: str, *options: str, sbatch: tuple[str, ...] = ()) -> Job:
        """A job whose ranks are started by `way`, one of WAYS."""
        (self.folder / "spill").mkdir()
        python = MPICH / "bin" if way == "pmi2" else Path(sys.executable).parent
        words = ("sbatch", "--parsable", f"--chdir={self.folder}", "--nodes=2", "--ntasks-per-node=2", *sbatch)
        number = self.on_first(
            *words,
            SCRIPT,
            *("--spill", self.folder / "spill", *options),
            PATH=f"{python}:{os.environ['PATH']}",
            KVBENCH_VENV=str(python.parent),
            KVBENCH_CONFIG="smoke",
            KVBENCH_DIR=str(self.bed.local),
            KVBENCH_MPI=way,
        )
        return Job(self, number.strip(), self.folder)


@pytest.fixture(scope="module")
def with_slurm(bed: NodeBed) -> Iterator[NodeBed]:
    """The test bed with Slurm on it."""
    checked = call_slurm(bed, "check")
    if checked.returncode != 0:
        what = f"Slurm: {checked.stderr.strip()}"
        reason = missing(what)
        if reason is None:
            pytest.fail(f"CI must have {what}")
        pytest.skip(reason)
    made = call_slurm(bed, "up")
    assert made.returncode == 0, made.stdout + made.stderr
    yield bed
    taken_down = call_slurm(bed, "down")
    assert taken_down.returncode == 0, taken_down.stderr


@pytest.fixture
def slurm(with_slurm: NodeBed, tmp_path_factory: pytest.TempPathFactory) -> Slurm:
    """Jobs lie where all nodes see them: nodes have /tmp in common with this machine."""
    return Slurm(with_slurm, tmp_path_factory.mktemp("job"))


@pytest.mark.parametrize("way", WAYS)
def test_the_batch_script_runs_on_all_ranks_of_both_nodes(slurm: Slurm, way: str) -> None:
    if way == "pmi2" and not (MPICH / "bin" / "kvbench").exists():
        assert os.environ.get("CI") != "true", "CI must have MPICH"
        pytest.skip("needs MPICH in .venv-mpich (bash launch/test.sh --mpi mpich)")
    job = slurm.submit(way, *SHORT)
    job.wait_for_end()
    assert job.said.count("O_DIRECT alignment") == 2, "kvbench doctor looked at each node"
    assert "4 ranks on 2 nodes" in job.said
    found = attributes(job.out)
    assert (found["status"], found["ranks"], found["cache_directory"]) == ("complete", 4, "local")
    assert ("MPICH" if way == "pmi2" else "Open MPI") in job.said
    assert [slurm.bed.files(node, slurm.bed.local) for node in (1, 2)] == [[], []]


@pytest.mark.parametrize("way", ["pmix", "mpirun"])
def test_a_job_that_is_cancelled_keeps_what_it_measured(slurm: Slurm, way: str) -> None:
    job = slurm.submit(way, *ENDLESS)
    job.wait_until_at_work()
    slurm.on_first("scancel", job.number)
    job.wait_for_end()
    if way == "pmix":
        assert attributes(job.out)["status"] == "interrupted", job.said
        assert len(column(job.out, "records/rank"))
        assert [slurm.bed.files(node, slurm.bed.local) for node in (1, 2)] == [[], []]
    else:
        # mpirun, which is told as well, leaves its ranks half a second.
        check_kept(job)


def test_a_job_whose_time_is_nearly_up_ends_in_good_order(slurm: Slurm) -> None:
    job = slurm.submit("pmix", *ENDLESS, sbatch=("--time=2", "--signal=USR1@70"))
    job.wait_for_end()
    assert "TIME LIMIT" not in job.said.upper(), job.said
    assert attributes(job.out)["status"] == "interrupted", job.said
    assert len(column(job.out, "records/rank"))


def test_with_mpirun_in_the_job_a_run_is_asked_to_end_before_the_time_is_up(slurm: Slurm) -> None:
    job = slurm.submit("mpirun", *ENDLESS, sbatch=("--export=ALL,KVBENCH_SECONDS=20",))
    job.wait_for_end()
    assert attributes(job.out)["status"] == "interrupted", job.said


@pytest.mark.parametrize("way", ["pmix", "mpirun"])
def test_a_node_that_is_lost_leaves_what_was_measured_to_recover(slurm: Slurm, way: str) -> None:
    job = slurm.submit(way, *ENDLESS, "--patience", "5")
    job.wait_until_at_work()
    slurm.bed.call("kill", 2)
    try:
        job.wait_for_end()
        check_kept(job)
    finally:
        slurm.bed.call("start", 2)
        assert call_slurm(slurm.bed, "start", "2").returncode == 0
    assert f"{slurm.bed.name}-n2" in job.said


def check_kept(job: Job) -> None:
    """The records are in the run file, or in spill files that make one."""
    if job.spilled:
        out = job.folder / "recovered.h5"
        recover([job.folder / "spill"], out)
    else:
        out = job.out
    rows = column(out, "records/rank")
    assert set(rows) == {0, 1, 2, 3}, job.said
