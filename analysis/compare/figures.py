"""The figures that runs are compared by, of the repeats of one target together, with what varies in them kept apart.

What varies is the repeat where there are several, and otherwise the block of time in the one run.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import percentiles
from kvbench_analysis.tables.statistics import Figure, Floats, PooledPercentiles, RatioOfSums
from kvbench_analysis.tables.time_bins import block_count, block_numbers, spread
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Op, Phase, RequestState, label

PERCENTILES: Final = (50.0, 95.0, 99.0)
PARTS: Final = ("wall", "device", "host")
_GIB: Final = 1024**3
OPS: Final = (Op.READ, Op.WRITE)


class Metric(NamedTuple):
    """What is compared; `tier` and `op` are "" for requests."""

    metric: str
    tier: str
    op: str
    unit: str
    better: str
    """`higher` or `lower`; "" where neither is."""
    percentile: float
    """0 for what is no percentile."""


@dataclass(frozen=True)
class TargetFigures:
    """Figures of one target that come from the same values."""

    metrics: tuple[Metric, ...]
    figure: Figure
    values: Floats
    """Of all repeats together, one per metric."""
    of_runs: Floats
    """(runs, metrics): of each repeat."""
    count: int
    """Operations or requests behind them."""
    relative_error: float = 0.0
    """How far `values` can be off because they were read off histograms."""


@dataclass
class _Parts:
    """Values of one figure by unit, and by run."""

    of_units: dict[int, NDArray[Any]]
    run_of_unit: dict[int, int]


def target_figures(runs: Sequence[Run], overlapping: Collection[tuple[str, str]] = ()) -> list[TargetFigures]:
    """All figures of one target, of the rows that its files have. Reads a column of all its runs at a time.

    Of tiers and operations that are `overlapping`, rows have a wall time alone.

    Where files hold samples, as many rows of each are taken as make it one sample: `compare_condensed` has the rest.
    """
    several = len(runs) > 1
    most = max(run.sampled_1_in() for run in runs)
    moved: dict[tuple[str, str], list[tuple[int, Floats, Floats]]] = defaultdict(list)
    times: dict[tuple[str, str, str], _Parts] = defaultdict(lambda: _Parts({}, {}))
    latency = _Parts({}, {})
    lookups: dict[str, list[tuple[int, Floats, Floats]]] = defaultdict(list)
    seconds: list[Floats] = []
    for number, run in enumerate(runs):
        edges = _edges(run, several)
        seconds.append(np.diff(edges) / 1e9)
        _operations(run, number, edges, moved, times, run.sampled_1_in() / most)
        _requests(run, number, edges, latency, lookups)
    found = []
    for (tier, op), rates in moved.items():
        # A repeat without such operations moved nothing in its time.
        idle = set(range(len(runs))) - {number for number, _, _ in rates}
        rates += [(number, np.zeros(len(seconds[number])), seconds[number]) for number in sorted(idle)]
        metric = Metric("gib_per_s", tier, op, "GiB/s", "higher", 0.0)
        found.append(
            _ratio(metric, rates, len(runs), sum(len(part) for part in times[tier, op, "wall"].of_units.values()))
        )
        for part in PARTS if (tier, op) not in overlapping else ("wall",):
            found.append(_percentiles(part, tier, op, times[tier, op, part], len(runs)))
    if latency.of_units:
        found.append(_percentiles("request", "", "", latency, len(runs)))
    for name, counts in lookups.items():
        metric = Metric(name, "", "", "", "higher", 0.0)
        found.append(_ratio(metric, counts, len(runs), int(sum(below.sum() for _, _, below in counts))))
    return found


def _edges(run: Run, several: bool) -> NDArray[np.int64]:
    """The edges of the run's units: the measured window, whole or in blocks of time."""
    window = Window.of(run.attributes)
    if window.seconds is None:
        return np.zeros(2, np.int64)
    blocks = 1
    if not several:
        columns = run.columns(["phase", "wall_ns"])
        walls = columns["wall_ns"][columns["phase"] == Phase.MEASURE]
        blocks = block_count(window.end_ns - window.start_ns, float(walls.mean()) if len(walls) else 0.0)
    return np.linspace(window.start_ns, window.end_ns, blocks + 1).astype(np.int64)


def _operations(
    run: Run,
    number: int,
    edges: NDArray[np.int64],
    moved: dict[tuple[str, str], list[tuple[int, Floats, Floats]]],
    times: dict[tuple[str, str, str], _Parts],
    share: float,
) -> None:
    codes = run.columns(["phase", "errno", "op", "tier"])
    is_shown = np.isin(np.arange(len(Op)), OPS)[codes["op"]]
    rows = np.flatnonzero((codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0) & is_shown)
    if not len(rows):
        return
    kind = codes["tier"][rows].astype(np.int64) * len(OPS) + (codes["op"][rows] == Op.WRITE)
    del codes
    kinds = [(str(tier), label(op)) for tier in run.tiers["name"] for op in OPS]
    columns = run.columns(["t_start_ns", "wall_ns", "nbytes"])
    start, wall, nbytes = (columns.pop(name)[rows] for name in ("t_start_ns", "wall_ns", "nbytes"))
    units = len(edges) - 1
    seconds = np.diff(edges) / 1e9
    bytes_in = spread(start, wall, [nbytes], edges, kind, len(kinds))[0] if seconds[0] else None
    for found in np.unique(kind):
        inside = np.full(units, np.nan) if bytes_in is None else bytes_in[found] * run.sampled_1_in() / _GIB
        moved[kinds[found]].append((number, inside, seconds))
    if share < 1:
        # A repeat of which more rows were kept would else count for more than it is.
        kept = np.random.default_rng(number).random(len(rows)) < share
        rows, kind, start, wall = rows[kept], kind[kept], start[kept], wall[kept]
    groups = Grouping(kind * units + block_numbers(start, int(edges[0]), int(edges[-1]), units))
    for part in PARTS:
        values = wall if part == "wall" else run.columns([f"{part}_ns"])[f"{part}_ns"][rows]
        for key, group in zip(groups.keys, groups.split(values), strict=True):
            parts = times[(*kinds[key // units], part)]
            unit = number * units + key % units
            # A copy, as the whole column would else be kept for the sake of one part of it.
            parts.of_units[unit] = group.copy()
            parts.run_of_unit[unit] = number


def _requests(
    run: Run,
    number: int,
    edges: NDArray[np.int64],
    latency: _Parts,
    lookups: dict[str, list[tuple[int, Floats, Floats]]],
) -> None:
    names = ["phase", "state", "intended_ns", "end_ns", "hit_objects", "miss_objects", "hit_tokens", "miss_tokens"]
    columns = run.columns(names, "requests")
    measured = columns["phase"] == Phase.MEASURE
    if not measured.any():
        return
    units = len(edges) - 1
    block = block_numbers(columns["intended_ns"], int(edges[0]), int(edges[-1]), units)
    done = measured & (columns["state"] == RequestState.DONE)
    groups = Grouping(block[done])
    taken = (columns["end_ns"] - columns["intended_ns"])[done]
    for key, group in zip(groups.keys, groups.split(taken), strict=True):
        latency.of_units[number * units + key] = group.copy()
        latency.run_of_unit[number * units + key] = number
    # Look-ups of several kinds have no common share.
    kinds = (("prefix_blocks", "objects"), ("prefix_hits", "tokens")) if run.serves_as_engine else ()
    for name, unit in kinds:
        hits, misses = (
            np.bincount(block[measured], columns[f"{kind}_{unit}"][measured], minlength=units).astype(np.float64)
            for kind in ("hit", "miss")
        )
        if (hits + misses).sum():
            lookups[name].append((number, hits, hits + misses))


def _ratio(metric: Metric, sums: list[tuple[int, Floats, Floats]], runs: int, count: int) -> TargetFigures:
    above, below = (np.concatenate([entry[place] for entry in sums]) for place in (1, 2))
    of_runs = np.full((runs, 1), np.nan)
    for number, upper, lower in sums:
        of_runs[number] = upper.sum() / lower.sum() if lower.sum() else np.nan
    figure = RatioOfSums(above, below)
    values = figure.evaluate(np.ones((1, figure.units)))[0]
    return TargetFigures((metric,), figure, values, of_runs, count)


def _percentiles(name: str, tier: str, op: str, parts: _Parts, runs: int) -> TargetFigures:
    metrics = tuple(Metric(f"{name}_p{p:g}_ns", tier, op, "ns", "lower", p) for p in PERCENTILES)
    figure = PooledPercentiles(list(parts.of_units.values()), PERCENTILES)
    of_runs = np.full((runs, len(PERCENTILES)), np.nan)
    for number in set(parts.run_of_unit.values()):
        mine = [values for unit, values in parts.of_units.items() if parts.run_of_unit[unit] == number]
        of_runs[number] = percentiles(np.concatenate(mine), PERCENTILES, overwrite=True)
    return TargetFigures(metrics, figure, figure.exact, of_runs, figure.values)
