"""Histograms of times and sizes: a fixed layout of buckets, within 1 % of any value, that is merged by adding.

The layout is log-linear, as that of HdrHistogram (G. Tene, https://hdrhistogram.org; the bound is also that of
DDSketch, C. Masson, J. E. Rim and H. K. Lee, PVLDB 12(12), 2019): every octave is cut into 64 buckets of equal width.
The bucket of a value is read off its float64: the exponent and the first 6 bits of the mantissa. A bucket is then at
most 1/64 of its lower edge wide, and a value is taken for the bucket's middle, so it is at most 1/128 (0.79 %) off;
values below 128 are exact. A percentile between two neighbours is between the middles that they are taken for, and so
as near.

4033 buckets of 8 bytes, 32 KB, hold all of int64, whatever is counted. Count, sum, least and most are kept beside,
exact. No file and no MPI here.
"""

from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_SUB_BITS: Final = 6
_SUB_BUCKETS: Final = 1 << _SUB_BITS
_OCTAVES: Final = 63

BUCKETS: Final = 1 + _OCTAVES * _SUB_BUCKETS
"""Bucket 0 holds zero; bucket 1 + 64 e + s holds the values from 2^e (1 + s/64) to below 2^e (1 + (s + 1)/64)."""

HISTOGRAM_BYTES: Final = 8 * BUCKETS
"""Of its buckets."""

RELATIVE_ERROR: Final = 1 / (2 * _SUB_BUCKETS)
"""How far a percentile can be from the exact one, as a share of it."""

NOTHING_LEAST: Final = 2**63 - 1
NOTHING_MOST: Final = -(2**63)
"""`least` and `most` of a histogram without values: any value replaces them, as MPI's minimum and maximum do."""

_SHIFT: Final = 52 - _SUB_BITS
_FIRST_KEY: Final = 1023 << _SUB_BITS
_BATCH: Final = 1 << 16


def bucket_of(values: NDArray[Any]) -> NDArray[np.intp]:
    """The bucket of each of `values` (int64, in any order). Values below zero are counted in that of zero."""
    # Above 2^53 the float64 is rounded: by far less than the width of a bucket.
    bits = np.maximum(values, 0).astype(np.float64).view(np.int64)
    key = (bits >> _SHIFT) - (_FIRST_KEY - 1)
    return np.asarray(np.clip(key, 0, BUCKETS - 1), np.intp)


def middles() -> NDArray[np.float64]:
    """The value that each bucket stands for: the middle of the whole numbers in it (shape BUCKETS)."""
    keys = np.arange(_FIRST_KEY, _FIRST_KEY + BUCKETS, dtype=np.int64) << _SHIFT
    edges = keys.view(np.float64)
    low, high = np.ceil(edges[:-1]), np.ceil(edges[1:]) - 1
    # Where a bucket holds no whole number, nothing is ever counted in it.
    return np.concatenate(([0.0], np.where(high >= low, (low + high) / 2, edges[:-1])))


def percentiles_of(
    counts: NDArray[Any], wanted: Sequence[float], least: float | None = None, most: float | None = None
) -> NDArray[np.float64]:
    """The `wanted` percentiles (0 to 100) of what is in `counts` (shape BUCKETS); NaN where nothing is.

    Interpolated between neighbours as numpy does. `least` and `most`, where they are known, are the first and the last.
    """
    below = np.cumsum(counts, dtype=np.int64)
    total = int(below[-1])
    if not total:
        return np.full(len(wanted), np.nan)
    positions = np.asarray(wanted, np.float64) / 100 * (total - 1)
    lower = np.floor(positions)
    value = middles()
    # The bucket of the n-th smallest (from 0) is the first that has more than n in it and below it.
    low, high = (value[np.searchsorted(below, place, side="right")] for place in (lower, np.ceil(positions)))
    for one, place in ((low, lower), (high, np.ceil(positions))):
        if least is not None:
            one[...] = np.where(place == 0, least, np.maximum(one, least))
        if most is not None:
            one[...] = np.where(place == total - 1, most, np.minimum(one, most))
    return np.asarray(low + (high - low) * (positions - lower), np.float64)


class Histogram:
    """The buckets of one population of whole numbers (times in ns, sizes in bytes), with its exact count and sum."""

    __slots__ = ("counts", "least", "most", "total")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self.total = 0
        """The sum of the values, of 64 bits as numpy and MPI add: 292 years of time, or 8 EiB."""
        self.least = NOTHING_LEAST
        self.most = NOTHING_MOST

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self.counts.sum())

    def add(self, values: NDArray[Any]) -> None:
        """Count `values` (int64, 1-D). Those below zero count as zero, and show in `least` and `total`."""
        if not len(values):
            return
        # In pieces that stay in the processor's cache.
        for first in range(0, len(values), _BATCH):
            self.counts += np.bincount(bucket_of(values[first : first + _BATCH]), minlength=BUCKETS)
        self.total = _as_int64(self.total + int(values.sum(dtype=np.int64)))
        self.least = min(self.least, int(values.min()))
        self.most = max(self.most, int(values.max()))

    def merge(self, other: "Histogram") -> None:
        """Count what is in `other` too."""
        self.counts += other.counts
        self.total = _as_int64(self.total + other.total)
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)

    def percentiles(self, wanted: Sequence[float]) -> NDArray[np.float64]:
        """The `wanted` percentiles (0 to 100), within RELATIVE_ERROR of the exact ones; NaN where there is no value."""
        return percentiles_of(self.counts, wanted, self.least, self.most)

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        """A histogram of `values`."""
        histogram = cls()
        histogram.add(values)
        return histogram


def _as_int64(total: int) -> int:
    return (total + 2**63) % 2**64 - 2**63
