"""Ranks that are killed: `kvbench recover` makes a run file of all they had measured, up to the last second."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
from kvbench_command import ENDLESS, Command, Ended, attributes, column, remains

from kvbench import timed_io
from kvbench.records.file import text_array

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]

RANKS = 4
BEHIND_S = 5.0
"""A spill file is at most a second behind; a machine that is busy with other things may take longer."""


def ranks_of(command: Command) -> dict[int, psutil.Process]:
    """The processes of the ranks, by rank."""
    found = {}
    for process in command.descendants():
        try:
            rank = process.environ().get("OMPI_COMM_WORLD_RANK")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if rank is not None and any("kvbench" in word for word in process.cmdline()):
            found[int(rank)] = process
    return found


def measured_for(spills: Path, seconds: float) -> Callable[[], bool]:
    """Whether each rank has had its spill file for so long and has written rows there."""
    since: list[float] = []

    def look() -> bool:
        files = list(spills.glob("*.spill"))
        if len(files) == RANKS and all(path.stat().st_size > 20_000 for path in files) and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > seconds

    return look


def last_end_ns(run_file: Path, rank: int) -> int:
    mine = column(run_file, "records/rank") == rank
    return int((column(run_file, "records/t_start_ns") + column(run_file, "records/wall_ns"))[mine].max())


def check_recovered(kvbench: Call, spills: Path, run_file: Path) -> str:
    """Recover, and check that the file is whole and read by the commands; returns its status message."""
    ended = kvbench("recover", spills, "-o", run_file)
    assert ended.code == 0, ended.err
    assert "The spill files are still there; when you need them no more: rm " in ended.out
    described = attributes(run_file)
    assert described["status"] == "recovered"
    assert described["ranks"] == RANKS
    rows = column(run_file, "ranks/rows")
    assert rows.sum() == len(column(run_file, "records/rank"))
    for rank, first, count in zip(
        *(column(run_file, f"ranks/{name}").tolist() for name in ("rank", "first_row", "rows")), strict=True
    ):
        assert (column(run_file, "records/rank")[first : first + count] == rank).all()
    shown = kvbench("summary", run_file)
    assert shown.code == 0
    assert "the run was recovered" in " ".join(shown.out.split())
    assert kvbench("report", run_file, "--out", run_file.with_suffix(".html")).code == 0
    return str(described["status_message"])


def test_all_that_the_ranks_had_measured_when_one_was_killed(
    under_mpirun: Start, kvbench: Call, spills: Path, tmp_path: Path, host: str
) -> None:
    command = under_mpirun(*ENDLESS, "duration_s=30", "warmup_s=0", ranks=RANKS)
    command.wait_for(measured_for(spills, 2))
    killed_ns = timed_io.now_ns()
    ranks_of(command)[1].kill()
    ended = command.ended()
    assert ended.code != 0
    assert not (tmp_path / "run.h5").exists()
    assert len(remains(spills)) == RANKS
    run_file = tmp_path / "recovered.h5"
    said = check_recovered(kvbench, spills, run_file)
    assert said.startswith(f"from the spill files of {RANKS} of {RANKS} ranks; ended early of 30 s: ")
    assert f"rank 1 on {host} at " in said
    assert column(run_file, "ranks/rank").tolist() == list(range(RANKS))
    assert killed_ns - BEHIND_S * 1e9 < last_end_ns(run_file, 1) < killed_ns + 1e9
    assert len(column(run_file, "samples/t_ns")) > 0
    assert column(run_file, "nodes/cpus").tolist() == [psutil.cpu_count()]
    assert (column(run_file, "ranks/peak_rss_bytes") > 0).all()
    again = shutil.copy(run_file, tmp_path / "again.h5")
    with h5py.File(again, "r+") as file:
        # A run is not compared with itself.
        file.attrs["run_id"] = text_array("20260101-000000-abcdef")
    compared = kvbench("compare", run_file, "--vs", again)
    assert compared.code == 0
    assert "recovered" in compared.out


def test_all_ranks_killed_at_once(
    under_mpirun: Start, kvbench: Call, folder: Path, spills: Path, tmp_path: Path
) -> None:
    command = under_mpirun(*ENDLESS, ranks=RANKS)
    command.wait_for(measured_for(spills, 1))
    processes = ranks_of(command)
    killed_ns = timed_io.now_ns()
    for process in processes.values():
        process.kill()
    command.ended()
    before = remains(folder)
    run_file = tmp_path / "recovered.h5"
    said = check_recovered(kvbench, spills, run_file)
    assert remains(folder) == before, "recovering touches nothing but its run file"
    assert all(f"rank {rank} on " in said for rank in range(RANKS))
    for rank in range(RANKS):
        assert killed_ns - BEHIND_S * 1e9 < last_end_ns(run_file, rank) < killed_ns + 1e9


def test_mpirun_killed_and_rank_0_whose_file_is_gone(
    under_mpirun: Start, kvbench: Call, spills: Path, tmp_path: Path
) -> None:
    command = under_mpirun(*ENDLESS, ranks=RANKS)
    command.wait_for(measured_for(spills, 1))
    processes = ranks_of(command)
    command.send(signal.SIGKILL)
    command.ended()
    for process in processes.values():
        # Its ranks end with it, or are ended by the node.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(30)
    next(iter(spills.glob("*-rank-0.spill"))).unlink()
    run_file = tmp_path / "recovered.h5"
    said = check_recovered(kvbench, spills, run_file)
    assert said.startswith(f"from the spill files of {RANKS - 1} of {RANKS} ranks; those of rank 0 are missing")
    assert column(run_file, "ranks/rank").tolist() == [1, 2, 3]
    assert set(np.unique(column(run_file, "records/rank"))) == {1, 2, 3}
