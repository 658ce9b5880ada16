"""Ctrl-C and the other polite signals: noted, so that a rank can end in good order."""

import signal
import time
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A launcher that was interrupted sends SIGTERM; one that is asked to passes SIGUSR1 on."""

_STOPPED_S: Final = 0.25
"""Who has not looked for so long may have been stopped (Ctrl-Z) and is being continued."""


class Interrupt:
    """A context in which these signals set `seen` instead of ending the process. For the main thread.

    `launched`: a launcher started this process. Open MPI's mpirun, interrupted, sends its ranks SIGCONT, 0.25 s later
    SIGTERM and 0.25 s later SIGKILL. As nothing else continues a process that runs, SIGCONT then counts as well: it
    doubles the time to write what was measured.
    """

    def __init__(self, launched: bool = False) -> None:
        self._seen = False
        self._looked_s = 0.0
        self._signals = (*_SIGNALS, signal.SIGCONT) if launched else _SIGNALS
        self._before: dict[signal.Signals, object] = {}

    @property
    def seen(self) -> bool:
        """Whether the process was asked to end. To be looked at often while there is something to end."""
        self._looked_s = time.monotonic()
        return self._seen

    def __enter__(self) -> Self:
        for number in self._signals:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCONT or time.monotonic() - self._looked_s < _STOPPED_S:
            self._seen = True
