"""Whether a run kept what its service promises, and its goodput: requests within all objectives, per second.

An objective is met as it is written, of a percentile or of the mean over the requests that were done. A request is
within it if its own figure is below the bound; it is within all if so for each that is for its class. What a request
does not have (a load, where it found nothing; a time per output token, of an answer of one) keeps it out of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.request_times import NO_COMPUTE, tpot_ns
from kvbench_analysis.figures.requests import ALL, class_name
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import operations_needed, percentiles
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.objectives import MODELLED, Objective, parse_objective
from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Phase, RequestState

_NAMES: Final = (
    "qos", "state", "intended_ns", "start_ns", "end_ns", "storage_ns", "look_up_ns", "load_ns", "hit_tokens",
    "first_token_ns", "modelled_decode_ns", "output_tokens",
)  # fmt: skip
_SERVED: Final = frozenset({"look_up", "load"})

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objectives:
    """Of the requests of the measured phase, or of a sample of them."""

    sampled_1_in: int
    """1: of all."""
    objectives: pd.DataFrame
    """A row for each: `objective` (as it is written), `figure`, `qos` (`all`, or its class), `bound_s`, `value_s` (of
    the run), `requests` (that have the figure), `enough` of them for the percentile, `met`, and whether the figure is
    `modelled` in part. Where a run does not have the figure, `absent` says why, and `value_s` is NaN, `met` None."""
    goodput: pd.DataFrame
    """Per QoS class, and `all`: `done` and `failed` requests, those `within` all objectives, `within_share` of those
    two, and `within_per_s` of the window, in which each counts by the share of its time inside. No rows where an
    objective cannot be told."""

    @property
    def met(self) -> bool | None:
        """Whether every objective was; None where one cannot be told."""
        told = list(self.objectives["met"])
        return None if None in told else all(told)


def objectives_of(run: Run) -> tuple[Objective, ...]:
    """Those of the run's configuration. Raises KvbenchError where the file has some that cannot be read."""
    texts = run.config.get("objectives") or ()
    if not isinstance(texts, list | tuple):
        raise KvbenchError(f"{run.path}: the objectives of its configuration are no list")
    return read_objectives([str(text) for text in texts], run, "the objectives of its configuration")


def read_objectives(texts: Sequence[str], run: Run, where: str) -> tuple[Objective, ...]:
    """Objectives for `run`. Raises KvbenchError naming one that cannot be read, or is of a class that it has not."""
    try:
        return tuple(parse_objective(text, run.qos_classes) for text in texts)
    except ValueError as error:
        raise KvbenchError(f"{run.path}: {where}: {error}") from error


def given_objectives(texts: Sequence[str], run: Run) -> tuple[Objective, ...]:
    """The same of those that are given for it. Raises KvbenchError also for a figure that the run does not have."""
    found = read_objectives(texts, run, "--slo")
    for objective in found:
        absent = _absent(run, objective)
        if absent:
            raise KvbenchError(f"{run.path}: --slo {objective}: {absent}")
    return found


def objective_figures(run: Run, window: Window, objectives: Sequence[Objective]) -> Objectives | None:
    """None where nothing was promised."""
    if not objectives:
        return None
    columns = _measured(run)
    done = columns["state"] == RequestState.DONE
    every = _times_s(columns)
    rows = [_row(run, objective, columns, every, done) for objective in objectives]
    sampled = run.sampled_1_in("requests")
    if any(row["absent"] for row in rows):
        return Objectives(sampled, pd.DataFrame(rows), pd.DataFrame())
    within = done & _within(run, objectives, columns["qos"], every)
    return Objectives(sampled, pd.DataFrame(rows), _goodput(run, window, columns, within, sampled))


def _measured(run: Run) -> dict[str, NDArray[Any]]:
    mask = run.columns(["phase"], "requests")["phase"] == Phase.MEASURE
    known = [name for name in _NAMES if name in run.file.tables["requests"].columns]
    columns = {name: values[mask] for name, values in run.columns(known, "requests").items()}
    return {name: columns.get(name, np.zeros(int(mask.sum()), np.int64)) for name in _NAMES}


def _times_s(columns: dict[str, NDArray[Any]]) -> dict[str, Floats]:
    """By figure, of every request; NaN where it has none."""

    def where(mask: NDArray[np.bool_], values_ns: NDArray[Any]) -> Floats:
        return np.where(mask, values_ns / 1e9, np.nan)

    look_up, load, first = columns["look_up_ns"], columns["load_ns"], columns["first_token_ns"]
    tpot = tpot_ns(columns["modelled_decode_ns"], columns["output_tokens"].astype(np.float64) - 1)
    return {
        "ttft": where(first > 0, first),
        "queue": (columns["start_ns"] - columns["intended_ns"]) / 1e9,
        "look_up": where(look_up >= 0, look_up),
        "load": where((load >= 0) & (columns["hit_tokens"] > 0), load),
        "storage": columns["storage_ns"] / 1e9,
        "tpot": tpot / 1e9,
        "latency": (columns["end_ns"] - columns["intended_ns"]) / 1e9,
    }


def _absent(run: Run, objective: Objective) -> str:
    """Why a run does not have the figure; else empty."""
    figure = objective.figure
    if figure in MODELLED and not run.attributes.get("compute_model_json"):
        return f"{figure}: {NO_COMPUTE}"
    told = "load_ns" in run.file.tables["requests"].columns
    if figure in _SERVED and not (run.serves_as_engine and told):
        return f"{figure}: requests of this run are not served as an engine does it (workload.serving)"
    return ""


def _row(
    run: Run, objective: Objective, columns: dict[str, NDArray[Any]], every: dict[str, Floats], done: NDArray[np.bool_]
) -> dict[str, Any]:
    absent = _absent(run, objective)
    chosen = done & _of_class(run, objective, columns["qos"])
    values = every[objective.figure][chosen]
    values = values[~np.isnan(values)]
    if not absent and not len(values):
        absent = "no request that was done has it"
    percentile = objective.percentile
    value = float("nan")
    if not absent:
        value = float(values.mean() if percentile is None else percentiles(values, (percentile,))[0])
    return {
        "objective": str(objective),
        "figure": objective.figure,
        "qos": objective.qos or ALL,
        "bound_s": objective.bound_s,
        "value_s": value,
        "requests": 0 if absent else len(values),
        "enough": percentile is None or len(values) >= operations_needed(percentile),
        "met": None if absent else value < objective.bound_s,
        "modelled": objective.figure in MODELLED,
        "absent": absent,
    }


def _of_class(run: Run, objective: Objective, qos: NDArray[Any]) -> NDArray[np.bool_]:
    if objective.qos is None:
        return np.ones(len(qos), bool)
    classes = run.qos_classes
    # A file that does not name its classes has none with this name.
    return np.asarray(qos == (classes.index(objective.qos) if objective.qos in classes else -1))


def _within(
    run: Run, objectives: Sequence[Objective], qos: NDArray[Any], every: dict[str, Floats]
) -> NDArray[np.bool_]:
    within = np.ones(len(qos), bool)
    for objective in objectives:
        beyond = every[objective.figure] >= objective.bound_s
        within &= ~(_of_class(run, objective, qos) & beyond)
    return within


def _goodput(
    run: Run, window: Window, columns: dict[str, NDArray[Any]], within: NDArray[np.bool_], sampled: int
) -> pd.DataFrame:
    qos, state = columns["qos"], columns["state"]
    inside = window.share_inside(columns["start_ns"], columns["end_ns"] - columns["start_ns"])
    codes = np.unique(qos)
    classes = [(ALL, np.ones(len(qos), bool))]
    classes += [(class_name(run, int(code)), qos == code) for code in (codes if len(codes) > 1 else ())]
    rows = []
    for name, mask in classes:
        done, failed = (int(np.count_nonzero(mask & (state == each))) for each in _COUNTED)
        good = int(np.count_nonzero(mask & within))
        rows.append(
            {
                "qos": name,
                "done": done,
                "failed": failed,
                "within": good,
                "within_share": good / (done + failed) if done + failed else float("nan"),
                "within_per_s": window.rate(float(inside[mask & within].sum()) * sampled),
            }
        )
    return pd.DataFrame(rows)


_COUNTED: Final = (RequestState.DONE, RequestState.FAILED)
"""Those that were cut short by the end of the load broke no promise, and kept none."""
