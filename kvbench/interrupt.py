"""Ctrl-C and the other polite signals: noted, so that a rank can end in good order."""

import signal
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""A launcher that was interrupted sends SIGTERM; one that is asked to passes SIGUSR1 on."""


class Interrupt:
    """A context in which these signals set `seen` instead of ending the process. For the main thread."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
