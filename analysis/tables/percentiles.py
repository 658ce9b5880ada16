"""Exact percentiles over whole populations, and how many operations they need to mean something.

Nothing is sampled, binned or averaged over ranks.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PERCENTILES: Final = (50.0, 95.0, 99.0, 99.9)
"""The percentiles of every distribution of a summary."""


def column_name(percentile: float) -> str:
    """The column of a percentile of times: `p50_ns`, `p99_9_ns`."""
    return f"p{percentile:g}_ns".replace(".", "_")


PERCENTILE_COLUMNS: Final = tuple(column_name(percentile) for percentile in PERCENTILES)


def percentiles(
    values: NDArray[Any], wanted: tuple[float, ...] = PERCENTILES, *, overwrite: bool = False
) -> NDArray[np.float64]:
    """The `wanted` percentiles (0 to 100) of `values`, interpolated between order statistics as numpy and pandas do.

    Takes linear time, and memory for one copy of `values`, or none with `overwrite`, which reorders them. NaN when
    there are no values.
    """
    if not len(values):
        return np.full(len(wanted), np.nan)
    positions = np.array(wanted) / 100 * (len(values) - 1)
    below, above = np.floor(positions).astype(np.intp), np.ceil(positions).astype(np.intp)
    ordered = values if overwrite else values.copy()
    ordered.partition(np.unique(np.concatenate((below, above))))
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    return np.asarray(low + (high - low) * (positions - below))


def operations_needed(percentile: float) -> int:
    """Operations that a percentile needs behind it: 10 beyond it, that is 10 / (1 - p)."""
    return round(1000 / (100 - percentile))


def backed_percentile(operations: int) -> float:
    """The highest of PERCENTILES that so many operations stand behind; NaN when none."""
    return max((p for p in PERCENTILES if operations >= operations_needed(p)), default=float("nan"))


def distribution(values: NDArray[Any], *, overwrite: bool = False) -> dict[str, float]:
    """The columns of a row of times in ns: `mean_ns` and PERCENTILE_COLUMNS, NaN where there are no values; how many
    the percentiles are of, and the highest that is backed. `overwrite` reorders the values, and spares a copy."""
    row = {"mean_ns": float(values.mean()) if len(values) else float("nan")}
    row |= dict(zip(PERCENTILE_COLUMNS, percentiles(values, overwrite=overwrite), strict=True))
    return row | {"percentiles_of": len(values), "backed_percentile": backed_percentile(len(values))}
