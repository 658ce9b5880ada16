"""What rank 0 shows while a run is under way: a table that is redrawn in a terminal, a plain line elsewhere.

The figures come as one vector of counters (`counters`), added up over the ranks. The other ranks do not load this
module, nor the library that it prints with.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from rich.box import HEAVY_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kvbench.console import make_table
from kvbench.run.counters import tier_figures
from kvbench.units import GIB

_PLAIN_INTERVAL_S: Final = 5.0


class Listener(Protocol):
    """Who hears what is shown."""

    def begin_load(self, tier_names: Sequence[str]) -> None:
        """The next counters begin at 0; they are of these tiers."""

    def show(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> None:
        """The summed counters of a load after `elapsed_s`."""


class View:
    """Shows progress on `console` (rank 0). Use as a context manager."""

    def __init__(
        self,
        console: Console,
        tier_names: Sequence[str],
        ranks: int,
        heading: Callable[[float], str] | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`heading`: from the seconds that the load still takes, what to say of it before its own figures. `listener`
        is told whatever is shown, more often than a plain line is printed."""
        self._listener = listener
        self._heading = heading
        self._console = console
        self._tier_names = tier_names
        self._ranks = ranks
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_interactive else None
        self._last_plain_s = time.monotonic()

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        if self._listener:
            self._listener.begin_load(self._tier_names)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> None:
        """Show the summed counters `elapsed_s` after the start of the load."""
        if self._listener:
            self._listener.show(totals, elapsed_s, duration_s)
        if self._live:
            # The last line is an empty one: launchers hand lines on, and keep back what has no end yet.
            self._live.update(Group(self._table(totals, elapsed_s, duration_s), ""), refresh=True)
            return
        if time.monotonic() - self._last_plain_s >= _PLAIN_INTERVAL_S:
            self._last_plain_s = time.monotonic()
            self._console.print(self._line(totals, elapsed_s, duration_s), soft_wrap=True, highlight=False)

    def _table(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> Group:
        table = make_table(("tier", "GiB/s", "operations/s", "P95 so far, ms", "failed"), lines=HEAVY_HEAD)
        for name, operations, nbytes, failed, p95_ms in self._figures(totals):
            seconds = max(elapsed_s, 1e-9)
            gib_per_s, per_s = nbytes / GIB / seconds, operations / seconds
            table.add_row(name, f"{gib_per_s:.2f}", f"{per_s:.0f}", f"{p95_ms:.3g}", f"{failed}")
        return Group(Text(f"{self._clock(elapsed_s, duration_s)}, {self._ranks} ranks", "italic"), table)

    def _line(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> str:
        seconds = max(elapsed_s, 1e-9)
        parts = [
            f"{name} {nbytes / GIB / seconds:.2f} GiB/s, {operations / seconds:.0f} op/s, P95 {p95_ms:.3g} ms"
            + (f", {failed} failed" if failed else "")
            for name, operations, nbytes, failed, p95_ms in self._figures(totals)
        ]
        return f"{self._clock(elapsed_s, duration_s)}: " + "; ".join(parts)

    def _clock(self, elapsed_s: float, duration_s: float | None) -> str:
        heading = ""
        if self._heading is not None and duration_s is not None:
            heading = self._heading(max(0.0, duration_s - elapsed_s)) + ": "
        return heading + _clock(elapsed_s, duration_s)

    def _figures(self, totals: npt.NDArray[np.int64]) -> list[tuple[str, int, int, int, float]]:
        every = [(name, tier_figures(totals, tier)) for tier, name in enumerate(self._tier_names)]
        return [(name, of.operations, of.nbytes, of.failed, of.p95_ms) for name, of in every]


def _clock(elapsed_s: float, duration_s: float | None) -> str:
    if duration_s is None:
        return f"{elapsed_s:.0f} s"
    return f"{elapsed_s:.0f} of {duration_s:.0f} s, {max(0.0, duration_s - elapsed_s):.0f} s left"
