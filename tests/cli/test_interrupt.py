"""The signals that ask a process to end, and the one that only sometimes does."""

import os
import signal

import pytest

from kvbench.cluster.signals import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_polite_signal_is_seen_and_ends_nothing(number: int) -> None:
    before = signal.getsignal(number)
    with Interrupt() as asked:
        assert not asked.seen
        os.kill(os.getpid(), number)
        assert asked.seen
    assert signal.getsignal(number) is before


def test_to_be_continued_while_running_means_that_mpirun_is_ending_its_ranks() -> None:
    with Interrupt(launched=True) as asked:
        assert not asked.seen
        os.kill(os.getpid(), signal.SIGCONT)
        assert asked.seen


def test_to_be_continued_after_a_stop_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("kvbench.cluster.signals.time.monotonic", lambda: now_s)
    with Interrupt(launched=True) as asked:
        assert not asked.seen
        now_s += 1
        os.kill(os.getpid(), signal.SIGCONT)
        assert not asked.seen


def test_to_be_continued_means_nothing_without_a_launcher() -> None:
    with Interrupt() as asked:
        assert not asked.seen
        os.kill(os.getpid(), signal.SIGCONT)
        assert not asked.seen
