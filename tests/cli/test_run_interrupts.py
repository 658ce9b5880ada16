"""Ctrl-C and other signals: what was measured until then is in the run file, and no cache file is left."""

import signal
from collections.abc import Callable
from pathlib import Path

from kvbench_command import ENDLESS, Command, Ended, attributes, column, objects, remains

Call = Callable[..., Ended]
Start = Callable[..., Command]


def check_interrupted(kvbench: Call, run_file: Path, folder: Path, ranks: int) -> None:
    """The run file is whole and says so, `summary` reads it, and the directory under test is as it was."""
    assert remains(folder) == []
    described = attributes(run_file)
    assert described["status"] == "interrupted"
    assert described["ranks"] == ranks
    assert (column(run_file, "ranks/rows") > 0).all()
    shown = kvbench("summary", run_file)
    assert shown.code == 0
    assert "interrupted" in shown.out


def wait_for_work(command: Command, folder: Path, ranks: int) -> None:
    command.wait_for(lambda: all(objects(folder, rank) for rank in range(ranks)))


def test_ctrl_c_ends_all_ranks_in_good_order(start_run: Start, kvbench: Call, folder: Path, tmp_path: Path) -> None:
    command = start_run(*ENDLESS, options=("--ranks", 2))
    wait_for_work(command, folder, 2)
    command.send(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    assert ended.messages == [
        "kvbench: stopping; what was measured is written (again to end the ranks at once)",
        "kvbench: interrupted",
    ]
    assert f"{tmp_path}/run.h5 holds what was measured, marked interrupted" in ended.out
    check_interrupted(kvbench, tmp_path / "run.h5", folder, 2)


def test_a_single_process_ends_in_good_order_too(start_run: Start, kvbench: Call, folder: Path, tmp_path: Path) -> None:
    command = start_run(*ENDLESS)
    wait_for_work(command, folder, 1)
    command.send(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    assert ended.messages == ["kvbench: interrupted"]
    check_interrupted(kvbench, tmp_path / "run.h5", folder, 1)


def test_a_bare_mpirun_passes_sigusr1_on(under_mpirun: Start, kvbench: Call, folder: Path, tmp_path: Path) -> None:
    command = under_mpirun(*ENDLESS)
    wait_for_work(command, folder, 2)
    command.send(signal.SIGUSR1)
    ended = command.ended()
    assert ended.code != 0
    assert ended.messages == ["kvbench: interrupted"]
    check_interrupted(kvbench, tmp_path / "run.h5", folder, 2)


def test_ctrl_c_at_a_bare_mpirun_leaves_no_half_written_run_file(
    under_mpirun: Start, folder: Path, tmp_path: Path
) -> None:
    """Open MPI kills its ranks half a second after it was interrupted. That mostly suffices, but nothing can be
    promised on a busy machine: what stands under the run file's name is whole, or nothing does."""
    command = under_mpirun(*ENDLESS)
    wait_for_work(command, folder, 2)
    command.send(signal.SIGINT)
    assert command.ended().code != 0
    run_file = tmp_path / "run.h5"
    if run_file.exists():
        assert attributes(run_file)["status"] == "interrupted"
        assert (column(run_file, "ranks/rows") > 0).all()


def test_a_run_goes_on_when_nobody_reads_its_output(
    start_run: Start, kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    command = start_run("duration_s=0.4", *ENDLESS[1:])
    wait_for_work(command, folder, 1)
    command.close_out()
    assert command.ended().code == 0
    assert attributes(tmp_path / "run.h5")["status"] == "complete"
