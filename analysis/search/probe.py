"""What the run of one probe says: rates, backlog, and of each objective the figure and the share over its bound.

Figures are from the intended start of each request, so that one that waited behind others counts its wait (no
coordinated omission). Of figures that contain the wait, a request that was not done at the end of the probe counts as
over the bound if it had waited longer by then, also if it never began; those that came less than the bound before the
end are left out, done or not, since of them only the fast would be known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from kvbench_analysis.figures.requests import class_name
from kvbench_analysis.search.response import Floats, Tried, inflation_of, variance_of_log_mean
from kvbench_analysis.search.served import backlog
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.objectives import Objective
from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Phase, RequestState
from kvbench.records.search import WAITED

FEWEST: Final = 20
"""Requests, below which a probe says nothing of a percentile."""


@dataclass(frozen=True)
class Figures:
    """One objective in one probe."""

    requests: int
    figure_s: float
    """The percentile or mean. Of requests that were not done, what they had waited stands for it."""
    tried: Tried


@dataclass(frozen=True)
class ProbeFigures:
    """One probe, all ranks together."""

    seconds: float
    requests: int
    offered_per_s: float
    served_per_s: float
    served_share: float
    grew: bool
    unserved: int
    objectives: tuple[Figures, ...]


def probe_figures(
    run: Run, load: float, objectives: Sequence[Objective], seconds: float, comes_by_itself: bool
) -> ProbeFigures:
    """The figures of a probe at `load` that was to last `seconds`. `comes_by_itself`: requests, or sessions, come
    whether or not those before were served, so that a backlog can grow.

    Raises KvbenchError where the load was over long before, or there are too few requests.
    """
    columns = _columns(run)
    start_ns = int(run.attributes["measure_start_ns"])
    came_s, began_s, end_s = ((columns[name] - start_ns) / 1e9 for name in ("intended_ns", "start_ns", "end_ns"))
    done = columns["state"] == RequestState.DONE
    lasted = _lasted(run, came_s, end_s[done], seconds, load)
    waiting_s = _waiting(run, began_s, came_s, lasted)
    every_s = np.concatenate([came_s, waiting_s])
    inside = (every_s >= 0) & (every_s < lasted)
    in_time = done & (end_s <= lasted)
    grew, share = backlog(every_s, end_s[in_time], lasted) if comes_by_itself else (False, 1.0)
    served = int(np.count_nonzero(in_time & (end_s > 0)))
    return ProbeFigures(
        seconds=lasted,
        requests=int(inside.sum()),
        offered_per_s=float(inside.sum() / lasted),
        served_per_s=served / lasted,
        served_share=share,
        grew=grew,
        unserved=int(inside.sum()) - int(np.count_nonzero(in_time & (came_s >= 0))),
        objectives=tuple(
            _figures(run, load, each, columns, (came_s, end_s, waiting_s), done, lasted, grew) for each in objectives
        ),
    )


def _columns(run: Run) -> dict[str, NDArray[Any]]:
    names = ["phase", "state", "qos", "intended_ns", "start_ns", "end_ns", "storage_ns", "look_up_ns", "load_ns"]
    names += ["first_token_ns", "modelled_decode_ns", "output_tokens", "hit_tokens"]
    columns = run.columns(names, "requests")
    mask = columns["phase"] != Phase.PRECONDITION
    order = np.argsort(columns["intended_ns"][mask], kind="stable")
    return {name: values[mask][order] for name, values in columns.items()}


def _lasted(run: Run, came_s: Floats, done_s: Floats, seconds: float, load: float) -> float:
    """How long the load came: to the end of the probe, or to the last request where there were no more."""
    last_s = float(came_s.max()) if len(came_s) else 0.0
    if _left_waiting(run) > 0 or last_s >= 0.9 * seconds:
        return seconds
    ended_s = float(max(done_s.max(initial=0.0), last_s))
    if ended_s >= 0.9 * seconds or ended_s >= seconds - float(np.diff(came_s).max(initial=0.0)):
        return seconds
    if ended_s < 0.5 * seconds:
        raise KvbenchError(
            f"at a load of {load:g} the requests of the workload are over after {ended_s:.3g} of {seconds:g} s: give "
            "shorter probes (--seconds, --warmup), a lower --to, or a longer workload (workload.replay_cycles of a "
            "trace, more workload.users of sessions)"
        )
    return last_s


def _left_waiting(run: Run) -> int:
    ranks = run.ranks
    return int(ranks["waiting_requests"].clip(lower=0).sum()) if "waiting_requests" in ranks else 0


def _waiting(run: Run, began_s: Floats, came_s: Floats, lasted: float) -> Floats:
    """When those came that never began: evenly, behind the last that did."""
    many = _left_waiting(run)
    first = max(0.0, float(came_s.max(initial=0.0)))
    return np.linspace(min(first, lasted), lasted, many, endpoint=False)


def _figures(
    run: Run,
    load: float,
    objective: Objective,
    columns: dict[str, NDArray[Any]],
    times: tuple[Floats, Floats, Floats],
    done: NDArray[np.bool_],
    lasted: float,
    grew: bool,
) -> Figures:
    came_s, _, waiting_s = times
    bound = objective.bound_s
    values, told = _values(objective.figure, columns, times[1] - came_s, done)
    until = lasted - bound if objective.figure in WAITED else lasted
    if until < lasted / 2:
        raise KvbenchError(
            f"probes of {lasted:.3g} s are too short for {objective}: of requests that come near their end it is not "
            f"known; give --seconds {4 * bound:g} or more, and a workload that lasts so long"
        )
    counts = (came_s >= 0) & (came_s < until)
    if objective.qos is not None:
        codes = [code for code in np.unique(columns["qos"]) if class_name(run, int(code)) == objective.qos]
        share = float(np.isin(columns["qos"], codes).mean()) if len(columns["qos"]) else 0.0
        counts &= np.isin(columns["qos"], codes)
        # Of those that never began the class is not known: they are dealt out as the others are.
        waiting_s = waiting_s[:: max(1, round(1 / share))] if share else waiting_s[:0]
    if objective.figure in WAITED:
        waited = lasted - came_s
        values = np.where(told, values, waited)
        told = told | (waited >= bound)
        late = waiting_s[waiting_s < until]
        chosen = np.concatenate([values[counts & told], lasted - late])
    else:
        chosen = values[counts & told]
    if len(chosen) < FEWEST:
        raise KvbenchError(
            f"at a load of {load:g} a probe has {len(chosen)} requests for {objective.name}, and {FEWEST} are needed: "
            "give longer probes (--seconds), or a higher --from"
        )
    if objective.percentile is None:
        mean = max(float(chosen.mean()), 1e-9)
        tried = Tried(load, float(np.log(mean / bound)), len(chosen), variance_of_log_mean(chosen), grew)
        return Figures(len(chosen), mean, tried)
    over = chosen >= bound
    figure = float(np.percentile(chosen, objective.percentile, method="inverted_cdf"))
    return Figures(len(chosen), figure, Tried(load, float(over.mean()), len(chosen), inflation_of(over), grew))


def _values(
    figure: str, columns: dict[str, NDArray[Any]], latency_s: Floats, done: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """The figure (s) of each request, and of which it is known."""
    if figure in ("load", "look_up"):
        told = done & (columns[f"{figure}_ns"] >= 0)
        return columns[f"{figure}_ns"] / 1e9, told & (columns["hit_tokens"] > 0) if figure == "load" else told
    if figure == "tpot":
        tokens = columns["output_tokens"].astype(np.float64) - 1
        return columns["modelled_decode_ns"] / 1e9 / np.maximum(tokens, 1), done & (tokens >= 1)
    if figure == "ttft":
        return columns["first_token_ns"] / 1e9, columns["first_token_ns"] > 0
    if figure == "queue":
        return (columns["start_ns"] - columns["intended_ns"]) / 1e9, np.ones(len(done), bool)
    return (columns["storage_ns"] / 1e9 if figure == "storage" else latency_s), done
