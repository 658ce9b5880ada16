"""kvbench's own launcher: exit codes, hosts, Ctrl-C, and what happens when it dies."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kvbench.cluster.launch.mpirun import Mpirun, find_mpirun, launch, mpirun_command, mpirun_environment

Start = Callable[..., Any]


def _alive(pids: list[int], timeout_s: float = 10) -> list[psutil.Process]:
    """Those of `pids` that are still there after at most `timeout_s` seconds."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return list(alive)


@pytest.mark.parametrize("code", [0, 1, 77])
def test_the_exit_code_is_that_of_the_failing_rank(start_launcher: Start, code: int) -> None:
    outcome = start_launcher(2, "-", "waiting", "exit", code).outcome()
    assert outcome.code == code
    assert ("rank 1 fails" in outcome.err) == (code != 0)


def test_a_failing_rank_leaves_one_message_and_no_notices(start_launcher: Start) -> None:
    outcome = start_launcher(3, "-", "agreeing", "1:abort").outcome()
    assert outcome.code != 0
    assert outcome.err.startswith("kvbench: rank 1 on ")
    assert "----" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_all_ranks_to_stop_by_themselves(start_launcher: Start, number: int) -> None:
    running = start_launcher(2, "-", "waiting", "stop", 7)
    assert running.line().startswith("ready passed on ")
    os.kill(running.pid, number)
    outcome = running.outcome()
    assert outcome.code == 7
    assert outcome.lines == ["rank 0 stopped", "rank 1 stopped"]
    assert outcome.err.startswith("kvbench: stopping")


def test_ranks_that_know_nothing_of_the_signal_yet_end_by_it_and_that_is_an_interrupt(start_launcher: Start) -> None:
    running = start_launcher(2, "-", "waiting", "starting", 0)
    running.line()
    os.kill(running.pid, signal.SIGINT)
    outcome = running.outcome()
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        "kvbench: stopping; what was measured is written (again to end the ranks at once)",
        "kvbench: interrupted",
    ]


def test_ranks_that_do_not_answer_are_waited_for_and_that_is_said(
    mpirun: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, go = tmp_path / "there", tmp_path / "go"
    deaf = "import pathlib, signal, sys, time\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
    deaf += "pathlib.Path(sys.argv[1]).touch()\nwhile not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)"
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "have not answered" in text:
            go.touch()

    def ask() -> None:
        while not there.exists():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("kvbench.cluster.launch.mpirun.say", say)
    monkeypatch.setattr("kvbench.cluster.launch.mpirun._ANSWER_S", 0)
    asking = threading.Thread(target=ask)
    asking.start()
    assert launch(1, [], [str(there), str(go)], program=[sys.executable, "-c", deaf]) == 0
    asking.join()
    assert said == [
        "stopping; what was measured is written (again to end the ranks at once)",
        "the ranks have not answered yet (again to end them at once)",
    ]


STRICT = """#!/bin/bash
# A launcher that knows `-n` and no other option, as some sites have; ranks are started by a real one.
[ "$1" != --version ] || { echo "mpiexec version 1.2.12"; exit; }
[[ $1 == -n && $3 != -* ]] || { echo "mpiexec: unrecognized option $1 $3" >&2; exit 64; }
ranks=$2
shift 2
exec REAL "$@"
"""


@pytest.fixture
def strict(mpirun: Mpirun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a Python whose mpirun rejects what it does not know."""
    real = shlex.join(mpirun_command(mpirun, 2)).replace("-n 2", '-n "$ranks"')
    launcher = tmp_path / "mpiexec"
    launcher.write_text(STRICT.replace("REAL", real))
    launcher.chmod(0o700)
    for name, value in mpirun_environment(mpirun, os.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("kvbench.cluster.launch.mpirun.shutil.which", lambda name, path=None: str(launcher))
    return launcher


def test_a_launcher_that_rejects_options_that_it_does_not_know_starts_ranks(
    strict: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = [sys.executable, str(Path(__file__).parent / "programs" / "places.py")]
    code = launch(2, [], [], program=program)
    out, err = capfd.readouterr()
    assert code == 0, err
    # Launchers pass on what ranks print as it comes: the end of one's line may stand behind another's.
    assert "rank 1 of 2: node 0 of 1, local 1 of 2" in out
    assert find_mpirun() == Mpirun(strict, "other")
    rejected = subprocess.run([strict, "--mca", "a", "b", "true"], capture_output=True, text=True, check=False)
    assert (rejected.returncode, rejected.stderr) == (64, "mpiexec: unrecognized option --mca b\n")


@pytest.mark.parametrize(
    "further", [[signal.SIGTERM, signal.SIGHUP], pytest.param([signal.SIGTERM], marks=pytest.mark.slow)]
)
def test_further_signals_end_ranks_that_do_not_stop(start_launcher: Start, further: list[int]) -> None:
    running = start_launcher(2, "-", "waiting", "stubborn", 0)
    pids = [int(word) for word in running.line().split()[-2:]]
    # Different ones, as two pending signals of one number are one.
    for number in [signal.SIGINT, *further]:
        os.kill(running.pid, number)
    assert running.outcome().code != 0
    assert not _alive(pids)


def test_mpirun_and_the_ranks_end_when_the_launcher_is_killed(start_launcher: Start) -> None:
    running = start_launcher(2, "-", "waiting", "stubborn", 0)
    pids = [int(word) for word in running.line().split()[-2:]]
    os.kill(running.pid, signal.SIGKILL)
    assert not _alive(pids)


@pytest.mark.slow
def test_ranks_are_spread_over_the_hosts_which_are_two_nodes(start_launcher: Start, two_hosts: dict[str, str]) -> None:
    outcome = start_launcher(3, "east,west", "places", **two_hosts).outcome()
    assert outcome.code == 0, outcome.err
    assert outcome.lines == [
        "rank 0 of 3: node 0 of 2, local 0 of 2, hosts east,west",
        "rank 1 of 3: node 0 of 2, local 1 of 2",
        "rank 2 of 3: node 1 of 2, local 0 of 1",
    ]


def test_without_an_mpi_library_a_launched_rank_says_so_and_a_lone_one_runs() -> None:
    program = str(Path(__file__).parent / "programs" / "places.py")
    environment = os.environ | {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}
    alone = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert alone.stdout.startswith("rank 0 of 1: node 0 of 1")
    environment |= {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}
    launched = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert launched.returncode != 0
    assert "do not match: Open MPI's mpirun started 4 ranks" in launched.stderr
