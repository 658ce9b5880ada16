"""Ctrl-C and other signals: what was measured until then is in the run file, and no cache file is left.

Whatever a command is at, it ends when it is asked to, or says what it waits for and ends when it is asked again. The
functions and files that are waited for here never give anything: without the signal these commands would not end.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kvbench_command import ENDLESS, KVBENCH, QUICK, Command, Ended, attributes, column, objects, remains

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]

STOPPING = "kvbench: stopping; what was measured is written (again to end the ranks at once)"
WAITING = ("(again to end at once)", "(again to end them at once)")
HELD = (sys.executable, Path(__file__).parent / "programs" / "held.py")


class Fifo:
    """A file that gives nothing to who reads it, and has no end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end: int | None = None

    def reached(self) -> bool:
        """Whether somebody reads it."""
        if self._end is None:
            with suppress(OSError):
                self._end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        return self._end is not None

    def close(self) -> None:
        if self._end is not None:
            os.close(self._end)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with closing(Fifo(tmp_path / "fifo")) as made:
        yield made


@pytest.fixture
def waiting(fifo: Fifo, tmp_path: Path) -> Path:
    """A configuration whose trace gives nothing."""
    config = tmp_path / "waiting.yaml"
    config.write_text(f"workload: {{kind: trace, path: {fifo.path}, format: mooncake}}\npacing: {{mode: asap}}\n")
    return config


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
    assert ended.verdict == [STOPPING, "kvbench: interrupted"]
    assert f"{tmp_path}/run.h5 holds what was measured, marked interrupted" in ended.out
    check_interrupted(kvbench, tmp_path / "run.h5", folder, 2)


def test_a_single_process_ends_in_good_order_too(start_run: Start, kvbench: Call, folder: Path, tmp_path: Path) -> None:
    command = start_run(*ENDLESS)
    wait_for_work(command, folder, 1)
    command.send(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    assert ended.verdict == ["kvbench: interrupted"]
    check_interrupted(kvbench, tmp_path / "run.h5", folder, 1)


def test_a_bare_mpirun_passes_sigusr1_on(under_mpirun: Start, kvbench: Call, folder: Path, tmp_path: Path) -> None:
    command = under_mpirun(*ENDLESS)
    wait_for_work(command, folder, 2)
    command.send(signal.SIGUSR1)
    ended = command.ended()
    assert ended.code != 0
    assert ended.verdict == ["kvbench: interrupted"]
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


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_trace_that_gives_nothing_is_given_up(
    start_run: Start, folder: Path, tmp_path: Path, fifo: Fifo, waiting: Path, ranks: int
) -> None:
    command = start_run(config=waiting, options=("--ranks", ranks) if ranks > 1 else ())
    command.wait_for(fifo.reached)
    command.send(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    assert ended.verdict == [*([STOPPING] if ranks > 1 else []), "kvbench: interrupted during plan"]
    assert remains(folder) == []
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("where", ["!import:kvbench.commands.main", "import:kvbench.run.runner", "import:mpi4py.MPI"])
def test_what_is_still_being_loaded_ends_without_a_word(start_run: Start, fifo: Fifo, where: str) -> None:
    command = start_run(program=(*HELD, where, fifo.path))
    command.wait_for(fifo.reached)
    command.send(signal.SIGINT)
    assert command.ended() == Ended(-signal.SIGINT, "", "")


def test_a_phase_that_hears_nothing_is_ended_and_what_it_leaves_can_be_cleaned(
    start_run: Start, kvbench: Call, folder: Path, tmp_path: Path, spills: Path, fifo: Fifo
) -> None:
    command = start_run(program=(*HELD, "kvbench.run.bench:check_paths", fifo.path))
    command.wait_for(fifo.reached)
    command.send(signal.SIGTERM)
    ended = command.ended()
    assert ended.code == 1
    (message,) = ended.messages
    clean = f"`kvbench clean '{folder}'` deletes the cache files that are left"
    assert message == f"kvbench: interrupted during check. {clean}"
    assert remains(spills) == []
    assert kvbench("clean", folder, "--yes").code == 0
    assert remains(folder) == []


def test_a_signal_to_one_rank_ends_those_that_did_not_get_it(
    under_mpirun: Start, folder: Path, tmp_path: Path, fifo: Fifo
) -> None:
    """Rank 0 reads the configuration while rank 1 waits to be told of it."""
    command = under_mpirun(program=(*HELD, "kvbench.run.order:load_config", fifo.path))
    command.wait_for(fifo.reached)
    (waits,) = [rank for rank in command.descendants() if rank.environ().get("OMPI_COMM_WORLD_RANK") == "1"]
    waits.send_signal(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    assert ended.messages == ["kvbench: interrupted during plan; all ranks end"]
    assert remains(folder) == []


def test_asked_twice_a_run_does_not_wait_for_storage_that_gives_nothing_back(
    start_run: Start, folder: Path, fifo: Fifo
) -> None:
    command = start_run(*ENDLESS, program=(*HELD, "kvbench.engine.worker:Worker.run", fifo.path))
    command.wait_for(fifo.reached)
    ended = command.keep_doing(lambda: command.send(signal.SIGINT))
    assert ended.code == 1
    (message,) = ended.verdict
    assert message.startswith("kvbench: interrupted twice. `kvbench recover ")


def test_asked_twice_while_the_run_file_is_written_what_was_measured_is_in_the_spill_files(
    start_run: Start, kvbench: Call, tmp_path: Path, spills: Path, fifo: Fifo
) -> None:
    command = start_run(*QUICK, program=(*HELD, "kvbench.run.runner:gather_outcome", fifo.path))
    command.wait_for(fifo.reached)
    ended = command.keep_doing(lambda: command.send(signal.SIGINT))
    assert ended.code == 1
    (message,) = ended.verdict
    assert message.startswith("kvbench: interrupted twice. `kvbench recover ")
    assert not (tmp_path / "run.h5").exists()
    assert kvbench("recover", spills, "-o", tmp_path / "run.h5").code == 0
    assert (column(tmp_path / "run.h5", "ranks/rows") > 0).all()


def test_a_summary_that_nobody_waits_for_leaves_a_run_that_is_complete(
    start_run: Start, tmp_path: Path, fifo: Fifo
) -> None:
    command = start_run(*QUICK, program=(*HELD, "!kvbench.commands.analysis:show_result", fifo.path))
    command.wait_for(fifo.reached)
    command.send(signal.SIGINT)
    ended = command.ended()
    assert (ended.code, ended.err) == (130, "kvbench: interrupted\n")
    assert attributes(tmp_path / "run.h5")["status"] == "complete"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("", ("trace", "info", "{fifo}")),
        ("", ("datasize", "{waiting}")),
        ("kvbench_analysis:load", ("summary", "{whole}")),
        ("!kvbench_analysis:load", ("report", "{whole}", "-o", "{folder}/report.html")),
        ("kvbench_analysis:compare", ("compare", "{whole}", "--vs", "other.h5")),
        ("!kvbench.records.spill.recover:recover", ("recover", "{folder}", "-o", "{folder}/run.h5")),
        ("kvbench.mlperf.check.checker:check_tree", ("mlperf", "check", "{folder}")),
    ],
)
def test_any_command_ends_with_one_line(
    start: Start, fifo: Fifo, waiting: Path, folder: Path, where: str, words: tuple[str, ...]
) -> None:
    whole = Path(__file__).parent.parent / "records" / "version-0.1" / "run.h5"
    program = (*HELD, where, fifo.path) if where else KVBENCH
    places = {"fifo": fifo.path, "waiting": waiting, "folder": folder, "whole": whole}
    command = start(*program, *(word.format(**places) for word in words))
    command.wait_for(fifo.reached)
    command.send(signal.SIGINT)
    assert command.ended() == Ended(130, "", "kvbench: interrupted\n")
    assert remains(folder) == []
