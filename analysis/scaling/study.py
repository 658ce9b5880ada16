"""The table of a scaling study: how throughput grows with ranks and nodes, and the fitted Universal Scalability Law.

A series varies one thing: the ranks of a node at a fixed number of nodes, or the nodes at the largest number of ranks.
`scaling` fits; here are the series, and what is printed of them.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.scaling.usl import UslFit, fit_usl
from kvbench_analysis.tables.of_study import read_study_table
from kvbench_analysis.tables.statistics import bootstrap_interval
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console

from kvbench.records.reader import KvbenchError

JSON_VERSION: Final = 1
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

METRICS: Final = {"storage_gib_per_s": "GiB/s of storage", "requests_per_s": "requests/s"}

_FAR: Final = 100
"""A peak at more than so many times the largest size measured is not told: it hangs on noise."""

_WANTED: Final = ("scaling", "nodes", "ranks_per_node", "users_per_rank", "repeat", *METRICS)
_SERIES: Final = ["scaling", "across", "fixed", "metric"]


@dataclass(frozen=True)
class ScalingFigures:
    """Everything that a scaling study says. `low` and `high` bound 95 % intervals."""

    points: pd.DataFrame
    """One row per series and size: `scaling` (weak, strong), `across` (`ranks of a node` or `nodes`), `fixed` (how many
    there are of the other), `metric`, `n`, `repeats`, `throughput` (mean over the repeats, of all ranks together) with
    its interval, and `efficiency`, by that of the smallest size times how much larger this one is."""
    terms: pd.DataFrame
    """One row per series and term of the law: `term`, `meaning`, `estimate`, `low`, `high`."""
    notes: tuple[str, ...]
    """Series that could not be fitted, and why."""


def load_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the table of a scaling study. Raises KvbenchError naming what is wrong with it."""
    table = read_study_table(path, "a scaling study")
    missing = [name for name in _WANTED if name not in table]
    if missing:
        raise KvbenchError(f"{path} is not the table of a scaling study: it has no column {', '.join(missing)}")
    for name in _WANTED[1:]:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise KvbenchError(f"{path} is not the table of a scaling study: {name} does not hold numbers")
    return table


def scaling_figures(table: pd.DataFrame, rng: np.random.Generator) -> ScalingFigures:
    """The series of `table` and their fits."""
    points: list[dict[str, Any]] = []
    terms: list[pd.DataFrame] = []
    notes: list[str] = []
    for key, rows, size in _series(table):
        for metric, name in METRICS.items():
            series: dict[str, Any] = dict(zip(_SERIES, (*key, metric), strict=True))
            points += [series | point for point in _points(rows, size, metric, rng)]
            try:
                fit: UslFit = fit_usl(rows[size], rows[metric], rng)
            except KvbenchError as error:
                notes.append(f"{_title(series)}, {name}: not fitted: {error}")
                continue
            fitted = fit.terms()
            for place, column in enumerate(_SERIES):
                fitted.insert(place, column, series[column])
            terms.append(fitted)
    empty = [*_SERIES, "term", "meaning", "estimate", "low", "high"]
    return ScalingFigures(
        points=pd.DataFrame(points, columns=[*_SERIES, "n", "repeats", "throughput", "low", "high", "efficiency"]),
        terms=pd.concat(terms, ignore_index=True) if terms else pd.DataFrame(columns=empty),
        notes=tuple(notes),
    )


def _series(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str, int], pd.DataFrame, str]]:
    """(scaling, what varies, how many of the other), the rows, and the column of the size; each of several sizes."""
    for kind, rows in table.groupby("scaling", sort=False):
        for nodes, found in rows.groupby("nodes"):
            yield (str(kind), "ranks of a node", int(str(nodes))), found, "ranks_per_node"
        most = int(rows["ranks_per_node"].max())
        across = rows[rows["ranks_per_node"] == most]
        if len(set(across["nodes"])) > 1:
            yield (str(kind), "nodes", most), across, "nodes"


def _points(rows: pd.DataFrame, size: str, metric: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    least: tuple[int, float] | None = None
    for n in sorted(rows[size].unique()):
        values = rows.loc[rows[size] == n, metric].to_numpy(np.float64)
        mean = bootstrap_interval(values, np.mean, rng)
        least = least or (int(n), mean.estimate)
        linear = least[1] * int(n) / least[0]
        yield {
            "n": int(n),
            "repeats": len(values),
            "throughput": mean.estimate,
            "low": mean.low,
            "high": mean.high,
            "efficiency": mean.estimate / linear if linear else float("nan"),
        }


def _title(series: dict[str, Any]) -> str:
    number = series["fixed"]
    plural = "" if number == 1 else "s"
    others = f"{number} node{plural}" if series["across"] == "ranks of a node" else f"{number} rank{plural} a node"
    return f"{series['scaling']} scaling over {series['across']}, {others}"


def to_json(figures: ScalingFigures) -> str:
    """`figures` as JSON; a figure that there is not, or is infinite, is null."""
    content = {
        "format": "kvbench-scaling",
        "version": JSON_VERSION,
        "points": [_plain(row) for row in figures.points.to_dict("records")],
        "terms": [_plain(row) for row in figures.terms.to_dict("records")],
        "notes": list(figures.notes),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def print_scaling(figures: ScalingFigures, console: Console) -> None:
    """Print, for each series, its throughputs and the law that was fitted to them."""
    for key, rows in figures.points.groupby(_SERIES, sort=False):
        series: dict[str, Any] = dict(zip(_SERIES, key, strict=True))
        console.print()
        body = []
        for row in rows.to_dict("records"):
            bounds = units.NONE if math.isnan(row["low"]) else f"{_digits(row['low'])} to {_digits(row['high'])}"
            body.append([row["n"], row["repeats"], _digits(row["throughput"]), bounds, units.share(row["efficiency"])])
        title = f"{_title(series)}: {METRICS[series['metric']]}"
        headings = [str(series["across"]), "repeats", "throughput", "95 % interval", "efficiency"]
        print_table(console, title, headings, body)
        fitted = figures.terms[(figures.terms[_SERIES] == list(key)).all(axis=1)]
        if len(fitted):
            console.print(_law(fitted, int(rows["n"].max())), highlight=False)
    for note in figures.notes:
        console.print(safe_text(note, "yellow"))


def _law(fitted: pd.DataFrame, largest: int) -> str:
    terms = {row["term"]: row for row in fitted.to_dict("records")}
    sigma, kappa, peak, highest = (_term(terms[name]) for name in ("sigma", "kappa", "peak_n", "peak_throughput"))
    one = _term(terms["lambda"])
    if terms["peak_n"]["estimate"] > _FAR * largest:
        end = f"no peak in reach of the sizes measured, {largest} at most"
    else:
        end = f"predicted peak {highest} at {peak}"
    return f"contention (sigma) {sigma}, coherency (kappa) {kappa}, throughput of one (lambda) {one}; {end}"


def _term(row: dict[Any, Any]) -> str:
    bounds = f" ({_digits(row['low'])} to {_digits(row['high'])})" if not math.isnan(row["low"]) else ""
    return f"{_digits(row['estimate'])}{bounds}"


def _digits(value: float) -> str:
    if math.isinf(value):
        return "unlimited"
    return "0" if abs(value) < 1e-6 else f"{value:.2g}" if abs(value) < 1e-3 else units.digits(value)


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    values = {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
