"""The table of a what-if study: what is predicted of each question, with its interval.

A run in which a part was to seem faster is compared with the baseline of the same repeat. Where a device was delayed,
which does not keep it busy, it is compared with a run in which `nothing` was faster, delayed as much: what delays do by
themselves is in both.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.of_study import read_study_table
from kvbench_analysis.tables.statistics import NO_INTERVAL, Interval, RatioOfSums, interval_of, resample_figure
from kvbench_analysis.whatif.run_figures import METRICS

from kvbench.records.reader import KvbenchError

JSON_VERSION: Final = 1
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

PARTS: Final = {
    "device": "storage",
    "host": "processors (host time)",
    "copies": "copies in user space",
    "cores": "number of cores",
    "nothing": "nothing (all delayed alike)",
}
FIGURES: Final = ("p95_ns", "p50_ns", "mean_ns", "requests_per_s")
_WANTED: Final = (
    "question", "factor", "repeat", "order", "stretch", "metric", "requests", *FIGURES, "device_share", "host_share",
    "runq_share", "copy_share",
)  # fmt: skip
BASELINE: Final = "baseline"
CONTROL: Final = "nothing"
_FEW: Final = 200
"""Requests that a P95 needs: 10 beyond it."""
_TELLS: Final = 0.1
"""A control that differs from the baseline by more than this share says that delays alone change much."""


@dataclass(frozen=True)
class WhatIfFigures:
    """What a what-if study says. All but the baseline is predicted."""

    metric: str
    """One of `run_figures.METRICS`, of which the times are."""
    repeats: int
    requests: float
    """Behind the times of a run of the baseline, on average."""
    baseline: dict[str, float]
    """Means over the repeats of FIGURES, and the shares of the parts of the time of operations."""
    questions: pd.DataFrame
    """One row per question and figure: `question`, `factor`, `figure` (one of FIGURES), `predicted`, `ratio` with
    `low` and `high`, and `corrected`: whether the ratio is to the control, and not to the baseline."""
    controls: pd.DataFrame
    """The same of the runs in which nothing was faster, uncorrected: 1 where delays alone change nothing."""
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


def load_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the table of a what-if study. Raises KvbenchError naming what is wrong with it."""
    table = read_study_table(path, "a what-if study")
    missing = [name for name in _WANTED if name not in table]
    if missing or not (table["question"] == BASELINE).any():
        lacks = f"the columns {', '.join(missing)}" if missing else "a baseline"
        raise KvbenchError(f"{path} is not the table of a what-if study: it lacks {lacks}")
    for name in (*_WANTED[1:5], *_WANTED[6:]):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise KvbenchError(f"{path} is not the table of a what-if study: {name} does not hold numbers")
    if set(table["metric"]) - set(METRICS) or len(set(table["metric"])) != 1:
        raise KvbenchError(f"{path} is not the table of a what-if study: its runs have no figure in common")
    return table


def whatif_figures(table: pd.DataFrame, rng: np.random.Generator) -> WhatIfFigures:
    """The figures of `table`, by the repeats that have all that is compared."""
    base = table[table["question"] == BASELINE].set_index("repeat")
    asked = table[~table["question"].isin([BASELINE, CONTROL])]
    controls = table[table["question"] == CONTROL]
    questions = [
        row
        for (question, factor), runs in asked.groupby(["question", "factor"], sort=False)
        for row in _rows(str(question), float(str(factor)), runs, base, _control_of(question, factor, controls), rng)
    ]
    told = [
        row
        for factor, runs in controls.groupby("factor", sort=False)
        for row in _rows(CONTROL, float(str(factor)), runs, base, None, rng)
    ]
    columns = ["question", "factor", "figure", "predicted", "ratio", "low", "high", "repeats", "corrected"]
    metric = str(table["metric"].iloc[0])
    shares = [name for name in _WANTED if name.endswith("_share")]
    figures = WhatIfFigures(
        metric=metric,
        repeats=len(base),
        requests=float(base["requests"].mean()),
        baseline={name: float(base[name].mean()) for name in (*FIGURES, *shares)},
        questions=pd.DataFrame(questions, columns=columns),
        controls=pd.DataFrame(told, columns=columns),
        sentences=(),
        notes=(),
    )
    return replace(figures, sentences=tuple(_sentences(figures)), notes=tuple(_notes(figures)))


def _control_of(question: Any, factor: Any, controls: pd.DataFrame) -> pd.DataFrame | None:
    """The runs that show what delays do by themselves, where a device was delayed; None: it was not."""
    if question == "device" or float(factor) < 1:
        return None
    found = controls[controls["factor"] == factor]
    return found.set_index("repeat") if len(found) else None


def _rows(
    question: str,
    factor: float,
    runs: pd.DataFrame,
    base: pd.DataFrame,
    control: pd.DataFrame | None,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    runs = runs.set_index("repeat")
    repeats = runs.index.intersection(base.index)
    if control is not None:
        repeats = repeats.intersection(control.index)
    for figure in FIGURES:
        before = (base if control is None else control).loc[repeats, figure].to_numpy(np.float64)
        after = runs.loc[repeats, figure].to_numpy(np.float64)
        interval = _ratio(after, before, rng)
        yield {
            "question": question,
            "factor": factor,
            "figure": figure,
            "predicted": float(base[figure].mean()) * interval.estimate,
            "ratio": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "repeats": len(repeats),
            "corrected": control is not None,
        }


def _ratio(after: Any, before: Any, rng: np.random.Generator) -> Interval:
    """Mean by mean, of pairs, which are resampled together."""
    if not len(before) or not before.sum() > 0:
        return NO_INTERVAL
    figure = RatioOfSums(after, before)
    estimate = float(after.sum() / before.sum())
    return interval_of(estimate, resample_figure(figure, rng)[:, 0], len(before))


def change(ratio: float) -> str:
    """A ratio as a change: `-12 %`."""
    return "-" if math.isnan(ratio) else f"{100 * (ratio - 1):+.0f} %"


def times_as(question: str, factor: float) -> str:
    """A question in words: `storage 2 times as fast`."""
    if question == "cores":
        return f"{factor:g} times the cores"
    if question == "copies":
        return f"copies in user space at {1 / factor:.3g} of their cost"
    return f"{PARTS.get(question, question)} {factor:g} times as fast"


def _sentences(figures: WhatIfFigures) -> Iterator[str]:
    for (question, factor), rows in figures.questions.groupby(["question", "factor"], sort=False):
        by = {str(row["figure"]): row for row in rows.to_dict("records")}
        time, rate = by["p95_ns"], by["requests_per_s"]
        name = METRICS[figures.metric]
        words = times_as(str(question), float(str(factor)))
        yield f"With {words}: {name} P95 {_told(time)}; requests/s {_told(rate)} (predicted)."


def _told(row: dict[Any, Any]) -> str:
    bounds = f"{change(row['low'])} to {change(row['high'])}"
    if math.isnan(row["low"]):
        return change(row["ratio"])
    if row["low"] <= 1 <= row["high"]:
        return f"no change that can be told from chance ({bounds})"
    return f"{change(row['ratio'])} ({bounds})"


def _notes(figures: WhatIfFigures) -> Iterator[str]:
    if figures.requests < _FEW:
        yield (
            f"few: a P95 of {figures.requests:.0f} requests a run hangs on a few of them ({_FEW} are needed): measure "
            "longer"
        )
    for row in figures.controls.to_dict("records"):
        if row["figure"] in ("p95_ns", "requests_per_s") and abs(row["ratio"] - 1) > _TELLS:
            what = "P95" if row["figure"] == "p95_ns" else "requests/s"
            yield (
                f"delays alone ({row['factor']:g} times, nothing faster) changed {what} by {change(row['ratio'])}: "
                "something that cannot be delayed takes part, or the storage is near its limit and was shared by fewer "
                "at a time. Predictions but that of storage, which delays no device, are ratios to those runs"
            )
    asked = set(figures.questions["question"])
    for question, share in (("copies", "copy_share"), ("device", "device_share")):
        if question in asked and figures.baseline[share] < 0.01:
            taken = 100 * figures.baseline[share]
            yield f"{PARTS[question]}: {taken:.1f} % of the time of operations, so that little can come of it"


def to_json(figures: WhatIfFigures) -> str:
    """`figures` as JSON; a figure that there is not is null. Times are in ns."""
    content = {
        "format": "kvbench-whatif",
        "version": JSON_VERSION,
        "metric": figures.metric,
        "repeats": figures.repeats,
        "requests": figures.requests,
        "baseline": _plain(figures.baseline),
        "predicted": [_plain(row) for row in figures.questions.to_dict("records")],
        "controls": [_plain(row) for row in figures.controls.to_dict("records")],
        "sentences": list(figures.sentences),
        "notes": list(figures.notes),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    values = {str(key): value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
