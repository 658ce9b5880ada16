"""Comparison: the same work on two or more targets, metric by metric, and whether a difference is more than chance.

docs/contention.md says how the intervals are made. Runs that did different work are refused.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.compare.comparability import check_ordinary, check_same_work, differences, same_work
from kvbench_analysis.compare.condensed import with_exact
from kvbench_analysis.compare.figures import Metric, TargetFigures, target_figures
from kvbench_analysis.compare.splits import Kind, overlapping_kinds, split_figures, thread_times, told
from kvbench_analysis.figures.thread_time import ThreadTime
from kvbench_analysis.summary.presence import presence
from kvbench_analysis.tables.distinct import check_distinct
from kvbench_analysis.tables.load import Run, load
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.tables.statistics import Interval, ratio_interval_of, resample_figure
from kvbench_analysis.tables.window import Window

from kvbench.records.reader import KvbenchError

METRIC_COLUMNS: Final = (
    "baseline", "target", "metric", "tier", "op", "unit", "better", "baseline_value", "target_value", "ratio", "low",
    "high", "significant", "verdict", "backed", "baseline_runs", "baseline_min", "baseline_max", "baseline_resampled",
    "target_runs", "target_min", "target_max", "target_resampled",
)  # fmt: skip
RUN_COLUMNS: Final = ("label", "source", "metric", "tier", "op", "unit", "value")
WARNING_COLUMNS: Final = ("code", "label", "source", "message")


@dataclass(frozen=True)
class Comparison:
    """What `compare` found, as tidy tables."""

    metrics: pd.DataFrame
    """METRIC_COLUMNS: one row per target (all but the first, which is the baseline), metric, tier and op.

    `ratio` is target by baseline, `low` and `high` its 95 % interval; `verdict` is `better`, `worse` or `same` (not
    significant), "" where there is no interval; `*_min` and `*_max` are of the single repeats; `*_resampled` says what
    the interval was made from: `runs` or `blocks`; `backed` is False for percentiles with too few operations."""
    runs: pd.DataFrame
    """RUN_COLUMNS: the value of every metric in every run."""
    differences: pd.DataFrame
    """What the runs differ in (`comparability.differences`)."""
    warnings: pd.DataFrame
    """WARNING_COLUMNS: what a reader must know first; `label` and `source` are "" where it is about all."""


def compare(
    groups: Mapping[str, Sequence[Run | str | os.PathLike[str]]],
    *,
    force: bool = False,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """Compare targets; `groups` maps each target's label to its runs (repeats), the first being the baseline.

    `force` compares runs of different fingerprints all the same. `rng` draws the bootstrap samples; without one, the
    same files give the same figures. Raises KvbenchError where the runs did not do the same work, naming every
    difference, where there are not two targets with a run each, where a run is given twice or is one of a what-if
    study, and for damaged files.
    """
    loaded = {label: [run if isinstance(run, Run) else load(run) for run in runs] for label, runs in groups.items()}
    if len(loaded) < 2 or not all(loaded.values()):
        raise KvbenchError("a comparison needs at least two targets, each with at least one run file")
    check_distinct([run for runs in loaded.values() for run in runs])
    check_ordinary(loaded)
    found = differences(loaded)
    if not force:
        check_same_work(loaded, found)
    rng = np.random.default_rng(0) if rng is None else rng
    times = {label: [thread_times(run) for run in runs] for label, runs in loaded.items()}
    split = list(dict.fromkeys(kind for of in times.values() for one in of for kind in overlapping_kinds(one)))
    figures = {}
    for label, runs in loaded.items():
        own = {kind for one in times[label] for kind in overlapping_kinds(one)}
        figures[label] = [*with_exact(target_figures(runs, own), runs), *split_figures(times[label], split)]
    baseline, *targets = loaded
    metrics = [
        {"baseline": baseline, "target": target} | row
        for target in targets
        for row in _metrics(figures[baseline], figures[target], rng)
    ]
    return Comparison(
        metrics=pd.DataFrame(metrics, columns=list(METRIC_COLUMNS)),
        runs=pd.DataFrame(_of_runs(loaded, figures), columns=list(RUN_COLUMNS)),
        differences=found,
        warnings=pd.DataFrame(
            [*_warnings(loaded, found), *_overlapping(loaded, times)], columns=list(WARNING_COLUMNS), dtype=object
        ),
    )


def _metrics(
    baseline: list[TargetFigures], target: list[TargetFigures], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    first, second = ({one.metrics: one for one in figures} for figures in (baseline, target))
    for metrics in dict.fromkeys([*first, *second]):
        pair = (first.get(metrics), second.get(metrics))
        draws = [None if one is None else resample_figure(one.figure, rng) for one in pair]
        for place, metric in enumerate(metrics):
            row: dict[str, Any] = metric._asdict()
            needed = operations_needed(metric.percentile) if metric.percentile else 1
            row["backed"] = all(one is not None and one.count >= needed for one in pair)
            for name, one in zip(("baseline", "target"), pair, strict=True):
                row |= _side(name, one, place)
            row |= _difference(metric, pair, draws, place)
            yield row


def _side(name: str, figures: TargetFigures | None, place: int) -> dict[str, Any]:
    if figures is None:
        empty = dict.fromkeys((f"{name}_value", f"{name}_min", f"{name}_max"), float("nan"))
        return {**empty, f"{name}_runs": 0, f"{name}_resampled": ""}
    of_runs = figures.of_runs[:, place]
    known = of_runs[~np.isnan(of_runs)]
    return {
        f"{name}_value": float(figures.values[place]),
        f"{name}_min": float(known.min()) if len(known) else float("nan"),
        f"{name}_max": float(known.max()) if len(known) else float("nan"),
        f"{name}_runs": len(known),
        f"{name}_resampled": "runs" if len(of_runs) > 1 else "blocks",
    }


def _difference(
    metric: Metric, pair: tuple[TargetFigures | None, TargetFigures | None], draws: list[Any], place: int
) -> dict[str, Any]:
    one, other = pair
    result = {"ratio": float("nan"), "low": float("nan"), "high": float("nan"), "significant": False, "verdict": ""}
    if one is None or other is None:
        return result
    interval = ratio_interval_of(
        (float(one.values[place]), float(other.values[place])),
        (draws[0][:, place], draws[1][:, place]),
        (one.figure.units, other.figure.units),
    )
    # What histograms leave open on both sides is part of the interval.
    open_by = (1 + one.relative_error) * (1 + other.relative_error)
    interval = Interval(interval.estimate, interval.low / open_by, interval.high * open_by)
    significant = interval.excludes(1.0)
    verdict = "" if np.isnan(interval.low) else "same"
    if not metric.better:
        verdict = ""
    elif significant:
        verdict = "better" if (interval.estimate > 1) == (metric.better == "higher") else "worse"
    found = {"ratio": interval.estimate, "low": interval.low, "high": interval.high}
    return result | found | {"significant": significant, "verdict": verdict}


def _of_runs(loaded: Mapping[str, list[Run]], figures: Mapping[str, list[TargetFigures]]) -> list[dict[str, Any]]:
    return [
        {"label": label, "source": str(run.path), "value": float(one.of_runs[number, place])} | metric._asdict()
        for label, runs in loaded.items()
        for number, run in enumerate(runs)
        for one in figures[label]
        for place, metric in enumerate(one.metrics)
    ]


def _overlapping(
    loaded: Mapping[str, list[Run]], times: Mapping[str, list[dict[Kind, ThreadTime]]]
) -> Iterator[tuple[str, str, str, str]]:
    for label, runs in loaded.items():
        for run, of_run in zip(runs, times[label], strict=True):
            if said := told(of_run):
                yield "of-batches", label, str(run.path), said


def _warnings(loaded: Mapping[str, list[Run]], found: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    if not same_work(loaded):
        keys = ", ".join(dict.fromkeys(found["key"])) or "the version of kvbench"
        yield "different-work", "", "", f"the runs did not do the same work: they differ in {keys}"
    if any(run.config.get("compute") for runs in loaded.values() for run in runs):
        yield (
            "modelled-compute",
            "",
            "",
            "the times of requests contain modelled compute, which nobody measured; their ratio says less of storage",
        )
    timers = {str(run.attributes["timer"]) for runs in loaded.values() for run in runs}
    for label, runs in loaded.items():
        if len(runs) == 1:
            message = (
                "one run only: its interval comes from blocks of its time and does not hold what differs between runs"
            )
            yield "one-run", label, str(runs[0].path), message
        for run in runs:
            source, status = str(run.path), str(run.attributes["status"])
            if status != "complete":
                yield (
                    status,
                    label,
                    source,
                    "the run did not complete: its figures are of what was measured up to there",
                )
            for caution in presence(run, Window.of(run.attributes)):
                yield caution.code, label, source, caution.message
            if str(run.attributes["timer"]) == "python":
                others = "; other runs were not" if len(timers) > 1 else ""
                yield "timer-python", label, source, f"timed in Python, with waits for the interpreter in it{others}"
            if run.mode != "full":
                message = (
                    f"percentiles are {run.percentiles_are}; intervals are of a sample of 1 in {run.sampled_1_in()}"
                )
                yield run.mode, label, source, message
    for key in dict.fromkeys(found["key"]):
        if str(key).endswith("(resolved)") or key == "nodes":
            values = ", ".join(dict.fromkeys(found.loc[found["key"] == key, "value"]))
            yield (
                "different-" + ("nodes" if key == "nodes" else "capacity"),
                "",
                "",
                f"the runs differ in {key}: {values}",
            )
