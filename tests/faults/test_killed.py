"""SIGKILL, and a process that is stopped: the others end, say who it was, and nothing that was measured is lost."""

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from breaking import Victim, all_gone, put_strangers
from judging import HOST, check_nothing_is_lost
from kvbench_command import remains
from laid_out import PLAIN_AND_EACH

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]


def test_a_killed_rank(victim: Break, folder: Path, tell: Tell) -> None:
    strangers = put_strangers(folder)
    run = victim(bare=True)
    run.break_it(lambda: run.rank(1).kill())
    outcome = run.outcome()
    assert len(outcome.ended.messages) == 1
    assert outcome.message.startswith(f"kvbench: rank 1 on {HOST} is gone: its process ended without a word")
    assert f"kvbench recover {run.spill}" in outcome.message
    assert f"kvbench clean '{folder}'" in outcome.message
    rows = check_nothing_is_lost(run, outcome, strangers)
    tell("kill -9 of rank 1 (mpirun, 2 ranks)", outcome, sum(rows))


@PLAIN_AND_EACH
def test_rank_0_killed(victim: Break, folder: Path, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    strangers = put_strangers(folder)
    run = victim(*layout, bare=True)
    run.break_it(lambda: run.rank(0).kill())
    outcome = run.outcome()
    assert len(outcome.ended.messages) == 1
    assert outcome.message.startswith(f"kvbench: rank 0 on {HOST} is gone: its process ended without a word")
    rows = check_nothing_is_lost(run, outcome, strangers)
    tell(f"{name}kill -9 of rank 0 (mpirun, 2 ranks)", outcome, sum(rows))


@PLAIN_AND_EACH
def test_mpirun_killed(victim: Break, folder: Path, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    strangers = put_strangers(folder)
    run = victim(*layout)
    ranks: list[psutil.Process] = []

    def kill() -> None:
        ranks.extend([run.rank(0), run.rank(1)])
        run.mpirun().kill()

    run.break_it(kill)
    outcome = run.outcome()
    assert all_gone([rank.pid for rank in ranks])
    assert len(outcome.ended.messages) == 1
    assert outcome.message.startswith(f"kvbench: mpirun on {HOST} was killed by SIGKILL; all ranks end")
    rows = check_nothing_is_lost(run, outcome, strangers)
    tell(f"{name}kill -9 of mpirun (kvbench run --ranks 2)", outcome, sum(rows))


@PLAIN_AND_EACH
def test_a_stopped_rank(victim: Break, folder: Path, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    strangers = put_strangers(folder)
    run = victim(*layout, bare=True, options=("--patience", 4))
    run.break_it(lambda: run.rank(1).send_signal(signal.SIGSTOP))
    outcome = run.outcome()
    assert len(outcome.ended.messages) == 1
    assert "the ranks have exchanged nothing for 4 s: no answer from rank 1 on " + HOST in outcome.message
    rows = check_nothing_is_lost(run, outcome, strangers)
    tell(f"{name}kill -STOP of rank 1 (mpirun, 2 ranks, --patience 4)", outcome, sum(rows))


def test_a_job_that_was_suspended_as_a_whole_goes_on(victim: Break, folder: Path) -> None:
    run = victim(bare=True, options=("--patience", 4))

    def suspend() -> None:
        ranks = [run.rank(0), run.rank(1)]
        for rank in ranks:
            rank.suspend()
        # Longer than the patience.
        psutil.wait_procs(ranks, timeout=6)
        for rank in ranks:
            rank.resume()

    run.break_it(suspend)
    run.go_on()
    run.command.send(signal.SIGUSR1)
    assert run.outcome().ended.verdict == ["kvbench: interrupted"]
    assert remains(folder) == []
