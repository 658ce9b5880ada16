"""Ctrl-C and the other signals that ask a process to end: what becomes of them in each phase of its life.

- While commands are loaded and while MPI starts (`at_once`) nothing has been made yet: the kernel ends the process.
- What a rank computes for itself ends where it is (`Interrupt.raising`).
- Where something would be lost (`Interrupt.waits_for`: the load, and all that follows it) the rank goes on to its good
  end, and what it waits for is said.
- Anywhere else a signal is noted; the next agreement of the ranks ends the phase for all of them.

Python runs a signal's handler between two steps of the main thread, which may be in one system call or MPI call for
long. A thread of its own therefore hears every signal at once, and ends the job when the main thread does not answer in
time, or when it is asked a second time.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from kvbench.units import for_stderr

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

ASKING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A launcher that was interrupted sends SIGTERM; one that is asked to passes SIGUSR1 on."""

ANSWER_S: Final = 1.2
"""So long the main thread may take to leave, or to come to where there is something to wait for."""

_STOPPED_S: Final = 0.25
"""Who has not looked for so long may have been stopped (Ctrl-Z) and is being continued."""
_ONE_PRESS_S: Final = 0.3
"""`timeout` sends its signal twice, and a terminal and a launcher may both pass one Ctrl-C on."""
_LOOK_S: Final = 0.5
_EXIT_CODE: Final = 1

Ending = Callable[[str], object]
"""Ends this process, and the job's others, with a text; called by a thread, from which it need not return."""


class Interrupted(KeyboardInterrupt):
    """The process was asked to end while it computed something that nobody needs any more."""


def say(text: str) -> None:
    """Print on stderr from wherever this is called, as Python's own stderr may be in use; nobody need be reading."""
    with contextlib.suppress(OSError):
        os.write(2, for_stderr(f"kvbench: {text}\n"))


def _end_here(text: str) -> None:
    say(text)
    os._exit(_EXIT_CODE)


@contextmanager
def at_once() -> Iterator[None]:
    """A context in which the kernel ends the process at a signal that asks it to, without a word: for what may take
    long in a library, where no handler runs, and has nothing to lose. What is ignored stays ignored."""
    before: dict[signal.Signals, object] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in ASKING}
        before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.getsignal returned


class Interrupt:
    """A context in which these signals set `seen` instead of ending the process. For the main thread.

    `launched`: a launcher started this process. Open MPI's mpirun, interrupted, sends its ranks SIGCONT, 0.25 s later
    SIGTERM and 0.25 s later SIGKILL. As nothing else continues a process that runs, SIGCONT then counts as well: it
    doubles the time to write what was measured. `speaks`: whether this rank says what is waited for.
    """

    def __init__(
        self,
        launched: bool = False,
        speaks: bool = True,
        end: Ending = _end_here,
        asking: tuple[signal.Signals, ...] = ASKING,
    ) -> None:
        self.end = end
        """What the thread calls when the main thread does not answer, or when it is asked again."""
        self.phase = ""
        """What the main thread is at, for the message."""
        self.waits_for = ""
        """What has to be done before the process may end; empty where nothing would be lost."""
        self.flag = array("i", [0])
        """1 from the first signal on, set by the thread: calls of the stopwatch look at it while they run."""
        self._launched = launched
        self._speaks = speaks
        self._seen = False
        self._raises = False
        self._looked_s = 0.0
        self._signals = (*asking, signal.SIGCONT) if launched else asking
        self._before: dict[signal.Signals, object] = {}
        self._wakeup_before = -1
        self._hook_before = sys.unraisablehook
        self._heard = self._hear = -1
        self._thread = threading.Thread(target=self._listen, name="kvbench-signals", daemon=True)

    @property
    def seen(self) -> bool:
        """Whether the process was asked to end. To be looked at often while there is something to end."""
        self._looked_s = time.monotonic()
        return self._seen

    @property
    def stops(self) -> bool:
        """Whether the phase is to end now, as the process was asked to and nothing has to be kept."""
        return self._seen and not self.waits_for

    @contextmanager
    def raising(self) -> Iterator[None]:
        """A context that a signal ends where it is with Interrupted, once; also one that came before. For what a rank
        computes by itself and makes nothing that would be left behind."""
        before, self._raises = self._raises, True
        try:
            if self._seen:
                raise Interrupted
            yield
        finally:
            self._raises = before and not self._seen

    @contextmanager
    def ended_by(self, end: Ending) -> Iterator[None]:
        """A context in which the thread calls `end` instead of ending this process alone."""
        before, self.end = self.end, end
        try:
            yield
        finally:
            self.end = before

    def __enter__(self) -> Self:
        self._hear, self._heard = os.pipe()
        os.set_blocking(self._heard, False)
        self._wakeup_before = signal.set_wakeup_fd(self._heard, warn_on_full_buffer=False)
        self._hook_before, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        self._thread.start()
        for number in self._signals:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raises = False
        for number, handler in self._before.items():
            # A launcher may ask again whom it has asked: that ends nothing once it has been heard.
            asked_again = self._launched and number == signal.SIGUSR1 and (self._seen or handler is signal.SIG_DFL)
            signal.signal(number, signal.SIG_IGN if asked_again else handler)  # type: ignore[arg-type]  # as it was
        signal.set_wakeup_fd(self._wakeup_before)
        sys.unraisablehook = self._hook_before
        os.close(self._heard)
        self._thread.join()
        os.close(self._hear)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGCONT and time.monotonic() - self._looked_s >= _STOPPED_S:
            return
        self._seen = True
        if self._raises:
            self._raises = False
            raise Interrupted

    def _on_unraisable(self, unraisable: "UnraisableHookArgs") -> None:
        """Nothing is said of an Interrupted that came where Python can raise nothing, as in a finalizer."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._hook_before(unraisable)

    # What follows is called by the thread alone.

    def _listen(self) -> None:
        asked_s: float | None = None
        look_s: float | None = None
        said = ""
        ended = False
        while True:
            wait_s = None if look_s is None else max(0.0, look_s - time.monotonic())
            if select.select([self._hear], [], [], wait_s)[0]:
                numbers = os.read(self._hear, 256)
                if not numbers:
                    return
                for number in numbers:
                    if number not in self._signals or number == signal.SIGCONT:
                        continue
                    if asked_s is None:
                        asked_s = time.monotonic()
                        look_s = asked_s + ANSWER_S
                        self.flag[0] = 1
                    elif not ended and self._is_second(number) and time.monotonic() - asked_s > _ONE_PRESS_S:
                        ended = True
                        self.end("interrupted twice")
                continue
            look_s = time.monotonic() + _LOOK_S
            if ended:
                continue
            if not self.waits_for:
                ended = True
                self.end(f"interrupted during {self.phase}" if self.phase else "interrupted")
            elif self._speaks and self.waits_for != said:
                said = self.waits_for
                say(f"interrupted: {said} (again to end at once)")

    def _is_second(self, number: int) -> bool:
        """Whether it is more than the same request passed on again: a launcher repeats SIGUSR1, and its SIGTERM is
        followed by SIGKILL anyway."""
        return number == signal.SIGINT or (number == signal.SIGTERM and not self._launched)
