"""What was read from storage and written to it, and how fast: the headline figures alone, of runs with every row.

They are those of `operations`, of which these are a part: of a file with many rows, a third of its columns is read.
"""

from typing import Final, NamedTuple

import numpy as np
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import percentiles
from kvbench_analysis.tables.window import Window

from kvbench.records.schema import Op, Phase

DIRECTIONS: Final = {"read": Op.READ, "write": Op.WRITE}
_CODES: Final = ("phase", "errno", "op", "tier")
_VALUES: Final = ("t_start_ns", "wall_ns", "nbytes")
COLUMNS: Final = (*_CODES, *_VALUES)
"""Of /records, that are read."""
_GIB: Final = 1024**3


class Moves(NamedTuple):
    """Storage operations of one kind, those of all tiers that are storage."""

    operations: int
    gib_per_s: float
    """Per second of the measured window; NaN where there is none."""
    wall_p95_ns: float
    backed_by: int
    """The operations that the percentile is of."""


def storage_moves(run: Run, window: Window) -> dict[str, Moves]:
    """By DIRECTIONS, those that occur. Raises KvbenchError: damaged file."""
    codes = run.columns(_CODES)
    storage = np.flatnonzero(run.file.tiers_are_storage)
    counted = (codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0) & np.isin(codes["tier"], storage)
    rows = {name: np.flatnonzero(counted & (codes["op"] == op)) for name, op in DIRECTIONS.items()}
    del codes, counted
    rows = {name: of_op for name, of_op in rows.items() if len(of_op)}
    if not rows:
        return {}
    columns = run.columns(_VALUES)
    found = {}
    for name, of_op in rows.items():
        start, wall, nbytes = (columns[column][of_op] for column in _VALUES)
        inside = (window.share_inside(start, wall) * nbytes).sum()
        (p95,) = percentiles(wall, (95.0,), overwrite=True)
        found[name] = Moves(len(of_op), window.rate(inside / _GIB), float(p95), len(of_op))
    return found
