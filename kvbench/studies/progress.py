"""How far a study is: a bar that is redrawn in a terminal, a plain line now and then elsewhere.

Nothing is drawn while something is measured: the caller says when. The library that draws is loaded where there is a
terminal to draw in, which ranks but the first have none of.
"""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PLAIN_INTERVAL_S: Final = 10.0


class StudyProgress:
    """Shown on `console`; `total` is the number of steps. A context manager."""

    def __init__(self, console: "Console", what: str, total: int) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._done = 0
        self._start_s = self._shown_s = time.monotonic()
        self._bar: Progress | None = None
        if console.is_interactive:
            self._bar = _bar_on(console)
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self) -> None:
        """One more step is done; draws at once."""
        self._done += 1
        now_s = time.monotonic()
        left_s = (now_s - self._start_s) / self._done * (self._total - self._done)
        text = f"{self._what} {self._done} of {self._total}, about {clock_text(left_s)} left"
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=text, refresh=True)
        elif now_s - self._shown_s >= _PLAIN_INTERVAL_S:
            self._shown_s = now_s
            self._console.print(text, soft_wrap=True, highlight=False)


def _bar_on(console: "Console") -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - see above

    return Progress(TextColumn("{task.description}"), BarColumn(), console=console, auto_refresh=False, transient=True)


def clock_text(seconds: float) -> str:
    """`seconds` for people: `45 s`, `12 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
