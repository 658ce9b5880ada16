"""What every rank counts of its own records while a run is under way: one vector, which is added up over the ranks.

Shows nothing: see `live`, which only rank 0 loads.
"""

import errno
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kvbench.records.recorder import RowStore
from kvbench.records.schema import MOVING_OPS

_BINS: Final = 160
_BINS_PER_OCTAVE: Final = 4
_LOWEST_NS: Final = 256
_WIDTH: Final = 3 + _BINS
"""For each tier: operations, bytes, failed operations (which canceled ones are not), and a histogram of wall time in
quarters of an octave."""

HISTOGRAM_EDGES_S: Final = _LOWEST_NS * 2.0 ** np.arange(1, _BINS // _BINS_PER_OCTAVE + 1) / 1e9
"""Upper edges of `octaves`; in the last is all that is longer, too."""


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


class TierFigures(NamedTuple):
    """Of a tier, from the counters of all ranks."""

    operations: int
    nbytes: int
    failed: int
    p95_ms: float
    """Upper edge of the bin that holds it: within 19 % of the figure in the file."""


def tier_figures(totals: npt.NDArray[np.int64], tier: int) -> TierFigures:
    """The figures of tier number `tier` in the summed vector `totals`."""
    part = totals[tier * _WIDTH : (tier + 1) * _WIDTH]
    return TierFigures(int(part[0]), int(part[1]), int(part[2]), _percentile_ms(part[3:], 0.95))


def _percentile_ms(histogram: npt.NDArray[np.int64], quantile: float) -> float:
    total = int(histogram.sum())
    if total == 0:
        return 0.0
    place = int(np.searchsorted(np.cumsum(histogram), quantile * total))
    return float(_LOWEST_NS * 2 ** ((place + 1) / _BINS_PER_OCTAVE) / 1e6)


def octaves(totals: npt.NDArray[np.int64], tier: int) -> npt.NDArray[np.int64]:
    """How many operations of a tier there are in each octave of wall time, whose edges are HISTOGRAM_EDGES_S."""
    histogram = totals[tier * _WIDTH : (tier + 1) * _WIDTH][3:]
    return np.asarray(histogram.reshape(-1, _BINS_PER_OCTAVE).sum(axis=1))
