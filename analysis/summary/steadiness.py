"""Warnings of a run that was not the same from its beginning to its end, or whose storage was not steady before it."""

from collections.abc import Iterator

import pandas as pd
from kvbench_analysis.figures.preconditioning import Preconditioning
from kvbench_analysis.summary.caution import Caution
from kvbench_analysis.text import units

_WAYS = {"GiB/s": lambda value: f"{units.digits(value)} GiB/s", "ms": lambda value: units.duration(value * 1e6)}


def steadiness(halves: pd.DataFrame, before: Preconditioning | None) -> Iterator[Caution]:
    """`halves` is of `half_figures`."""
    differing = halves[halves["differs"]] if len(halves) else halves
    if len(differing):
        told = "; ".join(
            f"{row['what']}, {row['figure']}: {_value(row['first'], row['unit'])}, then "
            f"{_value(row['second'], row['unit'])} ({row['change']:+.0%})"
            for row in differing.to_dict("records")
        )
        yield Caution(
            "halves-differ",
            f"the second half of the run is not like the first: {told}. Figures are of both together: with a longer "
            "warm-up (warmup_s), or after --precondition steady, they may be of one state",
        )
    if before is not None and before.asked == "steady" and not before.steady:
        yield Caution("not-steady", f"{before.text}: the run began all the same")


def _value(value: float, unit: str) -> str:
    return _WAYS[unit](value) if unit in _WAYS else f"{value:.3g} {unit}"
