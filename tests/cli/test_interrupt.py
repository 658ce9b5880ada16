"""The signals that ask a process to end, and the one that only sometimes does; and what follows when nobody answers."""

import os
import signal
import sys
import threading

import pytest

from kvbench.cluster.agree import Agreement, RanksFailed, RunInterrupted
from kvbench.cluster.comm import SerialComm
from kvbench.cluster.signals import ASKING, Interrupt, Interrupted, at_once


class Ends(list[str]):
    """With what texts the thread has ended the process."""

    def __init__(self) -> None:
        super().__init__()
        self._come = threading.Event()

    def __call__(self, text: str) -> None:
        self.append(text)
        self._come.set()

    def wait(self) -> None:
        """Until the first has come, in a call that no signal handler interrupts."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        assert self._come.wait(60)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread waits for an answer for a moment only."""
    monkeypatch.setattr("kvbench.cluster.signals.ANSWER_S", 0.01)
    monkeypatch.setattr("kvbench.cluster.signals._LOOK_S", 0.01)
    monkeypatch.setattr("kvbench.cluster.signals._ONE_PRESS_S", 0.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the thread has said."""
    texts: list[str] = []
    monkeypatch.setattr("kvbench.cluster.signals.say", texts.append)
    return texts


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


def test_what_is_computed_ends_where_it_is_and_only_once() -> None:
    with Interrupt() as asked:
        with pytest.raises(Interrupted), asked.raising():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert asked.seen


def test_what_is_not_begun_yet_is_not_begun_after_a_signal() -> None:
    with Interrupt() as asked:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted), asked.raising():
            pytest.fail("began")


def test_a_signal_in_a_finalizer_is_seen_and_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with Interrupt() as asked, asked.raising():
        Finalized()
        assert asked.seen
    assert capsys.readouterr().err == ""


def test_a_signal_ends_a_phase_in_which_it_can_end_where_it_is() -> None:
    def compute() -> None:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")

    with Interrupt() as asked, pytest.raises(RunInterrupted, match=r"^interrupted during plan$"):
        Agreement(SerialComm(), asked).run("plan", compute, computes=True)


def test_a_signal_ends_a_phase_that_makes_something_after_it_is_made() -> None:
    made = []

    def make() -> None:
        signal.raise_signal(signal.SIGINT)
        made.append("a file")

    with Interrupt() as asked:
        agreement = Agreement(SerialComm(), asked)
        with pytest.raises(RunInterrupted, match=r"^interrupted during check$"):
            agreement.run("check", make)
        assert made == ["a file"]
        asked.waits_for = "removing it"
        agreement.run("clean up", made.clear)
    assert made == []


def test_an_error_is_told_before_a_signal() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise OSError(28, "No space left on device", "/mnt/x")

    with Interrupt() as asked, pytest.raises(RanksFailed, match="No space left on device: /mnt/x") as raised:
        Agreement(SerialComm(), asked).run("check", fail)
    assert not isinstance(raised.value, RunInterrupted)


@pytest.mark.usefixtures("impatient")
def test_who_does_not_answer_is_ended_and_the_phase_is_named(said: list[str]) -> None:
    ends = Ends()
    with Interrupt(end=ends) as asked:
        asked.phase = "check"
        os.kill(os.getpid(), signal.SIGINT)
        ends.wait()
        assert ends == ["interrupted during check"]
    assert said == []


@pytest.mark.usefixtures("impatient")
def test_what_has_to_be_done_before_the_end_is_said_once_and_waited_for(said: list[str]) -> None:
    ends = Ends()
    with Interrupt(end=ends) as asked:
        asked.waits_for = "writing x.h5"
        signal.raise_signal(signal.SIGINT)
        while not said:
            threading.Event().wait(0.01)
        asked.waits_for = "removing the cache files in /mnt"
        while len(said) < 2:
            threading.Event().wait(0.01)
    assert said == [
        "interrupted: writing x.h5 (again to end at once)",
        "interrupted: removing the cache files in /mnt (again to end at once)",
    ]
    assert ends == []


@pytest.mark.parametrize(
    ("launched", "second", "ending"),
    [
        (False, signal.SIGINT, True),
        (False, signal.SIGTERM, True),
        (True, signal.SIGINT, True),
        (False, signal.SIGUSR1, False),
        (True, signal.SIGTERM, False),
        (True, signal.SIGUSR1, False),
    ],
)
@pytest.mark.usefixtures("impatient", "said")
def test_who_asks_again_ends_the_process_at_once_but_a_launcher_only_repeats_itself(
    launched: bool, second: signal.Signals, ending: bool
) -> None:
    ends = Ends()
    with Interrupt(launched, end=ends) as asked:
        asked.waits_for = "writing x.h5"
        signal.raise_signal(signal.SIGUSR1)
        # One after the other, as the thread may find both at once and would take them for one request.
        while not asked.flag[0]:
            threading.Event().wait(0.001)
        signal.raise_signal(second)
        if ending:
            ends.wait()
        else:
            signal.raise_signal(signal.SIGINT)
            ends.wait()
    assert ends == ["interrupted twice"]


def test_a_signal_that_comes_twice_at_once_is_one(said: list[str]) -> None:
    """`timeout` sends its signal to its child, and then to all of its process group."""
    ends = Ends()
    with Interrupt(end=ends) as asked:
        asked.waits_for = "writing x.h5"
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGINT):
            signal.raise_signal(number)
    assert ends == []


def test_while_nothing_is_made_the_kernel_ends_the_process() -> None:
    with Interrupt() as asked:
        handlers = {number: signal.getsignal(number) for number in ASKING}
        with at_once():
            assert {signal.getsignal(number) for number in ASKING} == {signal.SIG_DFL}
        assert {number: signal.getsignal(number) for number in ASKING} == handlers
        assert not asked.seen


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_launched_rank_that_is_leaving_is_not_ended_by_being_asked_again() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        with Interrupt(launched=True):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_thread_is_gone_with_its_context() -> None:
    threads, hook, wakeup = threading.active_count(), sys.unraisablehook, signal.set_wakeup_fd(-1)
    with Interrupt(), Interrupt():
        assert threading.active_count() == threads + 2
    assert threading.active_count() == threads
    assert sys.unraisablehook is hook
    assert signal.set_wakeup_fd(wakeup) == -1
