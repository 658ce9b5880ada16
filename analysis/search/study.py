"""What a search says, from its study file: the limit with its interval, each probe, and one sentence."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.search.limit import UNKNOWN, Limit, capacity, limit_of
from kvbench_analysis.search.response import Response, Tried
from kvbench_analysis.search.strategy import Bounds, Outcome, Probe, next_load, overall, verdict
from kvbench_analysis.search.throughput import most_served, next_load_for_most
from kvbench_analysis.tables.load import Run

from kvbench.records.objectives import Objective
from kvbench.records.reader import KvbenchError
from kvbench.records.search import Asked, asked_of

JSON_VERSION: Final = 1
"""Raised whenever a key of the JSON changes its meaning or goes; new keys do not raise it."""

_NEAR: Final = 0.2
"""Of the logarithm of the load: from probes so near to the limit its rate of requests is told."""
_APART: Final = 1.25
"""Times the lowest load that is exceeded: so far no chance leads."""
_PROBES: Final = (
    "probe", "load", "seconds", "took_s", "requests", "offered_per_s", "served_per_s", "served_share", "grew",
    "unserved",
)  # fmt: skip


@dataclass(frozen=True)
class SearchFigures:
    """What a search says so far."""

    asked: Asked
    objectives: tuple[Objective, ...]
    outcome: Outcome
    limit: Limit
    """The highest load, per rank; with max-throughput the one with the highest throughput, and those as good."""
    requests_per_s: Limit
    """At that load, of all ranks."""
    limits: tuple[Limit, ...]
    """Of each objective by itself."""
    served: Limit
    """What can be served, where the backlog of a probe grew."""
    probes: pd.DataFrame
    """One row for each, with `verdict` (of all probes at its load) and `figure_s_N` of objective N."""
    next_load: float | None


def bounds_of(asked: Asked) -> Bounds:
    """Where is searched, and how long."""
    return Bounds(asked.low, asked.high, asked.start, asked.whole, asked.precision, asked.most)


def responses_of(objectives: Sequence[Objective]) -> list[Response]:
    """The curve of each objective."""
    return [Response(None if each.percentile is None else 1 - each.percentile / 100) for each in objectives]


def search_figures(run: Run) -> SearchFigures:
    """The figures of a study file. Raises KvbenchError where it is none of a search."""
    asked = asked_of(run.attributes)
    tables = {name: run.table(name) for name in ("probes", "objectives", "measured")}
    if asked is None or not set(_PROBES) <= set(tables["probes"]):
        raise KvbenchError(f"{run.path} is not the study file of a search")
    try:
        return _figures(asked, tables["probes"], tables["objectives"], tables["measured"])
    except (KeyError, IndexError, ValueError) as error:
        raise KvbenchError(f"{run.path}: its tables do not fit together") from error


def _figures(asked: Asked, rows: pd.DataFrame, known: pd.DataFrame, measured: pd.DataFrame) -> SearchFigures:
    objectives = tuple(
        Objective(str(row["figure"]), _percentile(row["percentile"]), float(row["bound_s"]), str(row["qos"]) or None)
        for row in known.to_dict("records")
    )
    probes = [_probe(row, measured, len(objectives)) for row in rows.to_dict("records")]
    if asked.aim == "max-throughput":
        return _of_throughput(asked, objectives, probes, _shown(rows, measured, ["" for _ in probes]))
    responses = responses_of(objectives)
    following, outcome = next_load(probes, responses, bounds_of(asked))
    by_load = {
        load: verdict([each for each in probes if each.load == load], responses)
        for load in {probe.load for probe in probes}
    }
    shown = _shown(rows, measured, [by_load[probe.load] for probe in probes])
    limit = overall(probes, responses) if probes and outcome not in ("never-met", "never-exceeded") else UNKNOWN
    return SearchFigures(
        asked=asked,
        objectives=objectives,
        outcome=outcome,
        limit=_whole(limit) if asked.whole else limit,
        requests_per_s=_rate(limit, shown, asked),
        limits=tuple(limit_of([probe.tried[n] for probe in probes], each) for n, each in enumerate(responses)),
        served=capacity([probe.served for probe in probes]),
        probes=shown,
        next_load=following,
    )


def _of_throughput(
    asked: Asked, objectives: tuple[Objective, ...], probes: list[Probe], shown: pd.DataFrame
) -> SearchFigures:
    points = list(zip(shown["load"].astype(float), shown["served_per_s"].astype(float), strict=True))
    following, outcome = next_load_for_most(points, bounds_of(asked))
    highest = most_served(points) if points else None
    return SearchFigures(
        asked=asked,
        objectives=objectives,
        outcome=outcome,
        limit=UNKNOWN if highest is None else highest.load,
        requests_per_s=UNKNOWN if highest is None else highest.requests_per_s,
        limits=(),
        served=UNKNOWN,
        probes=shown,
        next_load=following,
    )


def _percentile(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _probe(row: dict[Any, Any], measured: pd.DataFrame, objectives: int) -> Probe:
    load, grew = float(row["load"]), bool(row["grew"])
    mine = measured[measured["probe"] == row["probe"]].sort_values("objective") if objectives else measured
    tried = tuple(
        Tried(load, float(each["over_share"]), int(each["requests"]), float(each["inflation"]), grew)
        for each in mine.to_dict("records")
    )
    if len(tried) != objectives:
        raise ValueError(f"probe {row['probe']} has {len(tried)} of {objectives} objectives")
    return Probe(load, tried, grew, float(row["offered_per_s"]), float(row["served_per_s"]))


def _shown(rows: pd.DataFrame, measured: pd.DataFrame, verdicts: list[str]) -> pd.DataFrame:
    shown = rows.assign(verdict=verdicts)
    for number in sorted(set(measured["objective"])) if len(measured) else ():
        of = measured[measured["objective"] == number].set_index("probe")
        for name in ("figure_s", "over_share", "requests"):
            shown[f"{name}_{number}"] = shown["probe"].map(of[name])
    return shown


def _whole(limit: Limit) -> Limit:
    """The highest whole load within the limit. The interval of a limit that is just below a whole number may reach it:
    it is what the limit's is, brought down."""
    floor = [math.floor(value) if math.isfinite(value) else value for value in (limit.estimate, limit.low, limit.high)]
    return Limit(*map(float, floor))


def _rate(limit: Limit, probes: pd.DataFrame, asked: Asked) -> Limit:
    """Requests/s of all ranks at a load: what came (of users: what was served) for each unit of load, near it."""
    if not math.isfinite(limit.estimate) or not len(probes):
        return UNKNOWN
    loads = probes["load"].to_numpy(float)
    rates = probes["served_per_s" if asked.whole else "offered_per_s"].to_numpy(float)
    near = np.abs(np.log(loads / limit.estimate)) <= _NEAR
    near = near if near.any() else np.ones(len(loads), bool)
    each = float((rates[near] / loads[near]).mean())
    return Limit(limit.estimate * each, limit.low * each, limit.high * each)


def met_again(probes: pd.DataFrame) -> tuple[float, float] | None:
    """The lowest load that is met above one that is exceeded, with the nearest of those; each tried more than once, and
    some of them far apart, as an answer near the limit may be wrong. None where there is none."""
    often = probes.groupby("load").filter(lambda those: len(those) > 1)
    exceeded, met = (often.loc[often["verdict"] == each, "load"] for each in ("exceeded", "met"))
    above = met[met > exceeded.min()]
    if above.empty or above.max() < _APART * exceeded.min():
        return None
    return float(exceeded[exceeded < above.min()].max()), float(above.min())


def to_json(figures: SearchFigures, sentence: str) -> str:
    """`figures` as JSON; a figure that there is not, or is infinite, is null."""
    content = {
        "format": "kvbench-search",
        "version": JSON_VERSION,
        "varies": figures.asked.key,
        "aim": figures.asked.aim,
        "ranks": figures.asked.ranks,
        "outcome": figures.outcome,
        "sentence": sentence,
        "limit_per_rank": _limit(figures.limit),
        "requests_per_s": _limit(figures.requests_per_s),
        "served_at_most_per_rank": _limit(figures.served),
        "objectives": [
            {"objective": str(objective), "limit_per_rank": _limit(limit)}
            for objective, limit in zip(figures.objectives, figures.limits, strict=False)
        ],
        "probes": [
            {str(name): _plain(value) for name, value in row.items()} for row in figures.probes.to_dict("records")
        ],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _limit(limit: Limit) -> dict[str, float | None]:
    return {
        "estimate": _plain(limit.estimate),
        "low": _plain(limit.low) if limit.low > 0 else None,
        "high": _plain(limit.high),
    }


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
