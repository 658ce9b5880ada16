"""What rank 0 shows while a run is under way: a table that is redrawn in a terminal, a plain line elsewhere.

The figures come as one vector of counters that every rank fills from its own records and that is added up over the
ranks; this module knows how to fill it and how to show the sum.
"""

import errno
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.box import HEAVY_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kvbench.console import make_table
from kvbench.records.recorder import RowStore
from kvbench.records.schema import MOVING_OPS
from kvbench.units import GIB

_BINS: Final = 160
_BINS_PER_OCTAVE: Final = 4
_LOWEST_NS: Final = 256
_WIDTH: Final = 3 + _BINS
"""For each tier: operations, bytes, failed operations (which canceled ones are not), and a histogram of wall time in
quarters of an octave."""
_PLAIN_INTERVAL_S: Final = 5.0


def counters_width(tiers: int) -> int:
    """Numbers in the vector for so many tiers."""
    return tiers * _WIDTH


class Counters:
    """Counts a rank's records as they come; one vector of int64 for all of its threads."""

    def __init__(self, stores: Sequence[RowStore], tiers: int) -> None:
        self._stores = stores
        self._seen = [store.count for store in stores]
        self._tiers = tiers
        self.vector: npt.NDArray[np.int64] = np.zeros(counters_width(tiers), dtype=np.int64)

    @property
    def seen(self) -> list[int]:
        """Rows of each store that are counted."""
        return self._seen

    def update(self) -> npt.NDArray[np.int64]:
        """Take in the rows that were committed since the last call; returns the totals so far."""
        for index, store in enumerate(self._stores):
            for rows in store.views(self._seen[index]):
                self._seen[index] += len(rows)
                self._add(rows)
        return self.vector

    def _add(self, rows: npt.NDArray[np.void]) -> None:
        # Column by column: to pick whole rows out would copy all of each, and cost the load more than to make them.
        moves, errors = np.isin(rows["op"], MOVING_OPS), rows["errno"]
        for tier in range(self._tiers):
            part = self.vector[tier * _WIDTH : (tier + 1) * _WIDTH]
            mine = moves & (rows["tier"] == tier)
            done = mine & (errors == 0)
            part[0] += np.count_nonzero(done)
            part[1] += int(rows["nbytes"][done].sum())
            part[2] += np.count_nonzero(mine & (errors != 0) & (errors != errno.ECANCELED))
            octaves = np.log2(np.maximum(rows["wall_ns"][done], _LOWEST_NS) / _LOWEST_NS)
            bins = np.minimum((octaves * _BINS_PER_OCTAVE).astype(np.int64), _BINS - 1)
            part[3:] += np.bincount(bins, minlength=_BINS)


class View:
    """Shows progress on `console` (rank 0). Use as a context manager."""

    def __init__(
        self, console: Console, tier_names: Sequence[str], ranks: int, heading: Callable[[float], str] | None = None
    ) -> None:
        """`heading`: from the seconds that the load still takes, what to say of it before its own figures."""
        self._heading = heading
        self._console = console
        self._tier_names = tier_names
        self._ranks = ranks
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_interactive else None
        self._last_plain_s = time.monotonic()

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> None:
        """Show the summed counters `elapsed_s` after the start of the load."""
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
        rows = []
        for tier, name in enumerate(self._tier_names):
            part = totals[tier * _WIDTH : (tier + 1) * _WIDTH]
            rows.append((name, int(part[0]), int(part[1]), int(part[2]), _percentile_ms(part[3:], 0.95)))
        return rows


def _percentile_ms(histogram: npt.NDArray[np.int64], quantile: float) -> float:
    """Upper edge of the bin that holds the quantile: within 19 % of the figure in the file."""
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    place = int(np.searchsorted(np.cumsum(histogram), quantile * total))
    return float(_LOWEST_NS * 2 ** ((place + 1) / _BINS_PER_OCTAVE) / 1e6)


def _clock(elapsed_s: float, duration_s: float | None) -> str:
    if duration_s is None:
        return f"{elapsed_s:.0f} s"
    return f"{elapsed_s:.0f} of {duration_s:.0f} s, {max(0.0, duration_s - elapsed_s):.0f} s left"
