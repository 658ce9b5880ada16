"""Offered and served load of an open loop, side by side: what came in the measured window, and what was done in it."""

from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window

from kvbench.records.schema import Phase, RequestState

LOAD_COLUMNS: Final = ["unit", "offered", "offered_per_s", "served", "served_per_s", "unfinished", "waiting"]


def is_open_loop(run: Run) -> bool:
    """Whether requests came at times of their own, whether or not the system kept up."""
    pacing = run.config.get("pacing")
    return isinstance(pacing, dict) and pacing.get("mode") == "open" and not run.config.get("roles")


def load_figures(run: Run, window: Window) -> pd.DataFrame:
    """Per unit (`requests`, and `tokens` of their contexts), of all ranks, what came and what was done of it.

    `offered` came in the measured phase (until the load was to end, where that was set), `served` was done by the end
    of the window; `unfinished` had begun and was not done, and `waiting` had not begun. `offered_per_s` is over the
    time in which requests came: to the last that did or, where some were still waiting, to the end of the load.
    `served_per_s` is over the window, where a request that crosses its edge counts by the share of its time inside.
    Where a recovered or older file does not tell `waiting` it is NaN, and `offered` too; so are tokens where the file
    does not hold every request.

    Empty where there is no open loop: then requests follow completions, and nothing is offered. So it is where a
    request passes from a prefill rank to a decode rank.
    """
    if not is_open_loop(run) or window.seconds is None:
        return pd.DataFrame(columns=LOAD_COLUMNS)
    coming_s = _coming_s(run, window)
    rows = []
    for unit, begun, served, inside in _begun(run, window):
        waiting = _waiting(run, unit)
        offered = begun + waiting
        rows.append((unit, offered, offered / coming_s, served, window.rate(inside), begun - served, waiting))
    return pd.DataFrame(rows, columns=LOAD_COLUMNS)


def _coming_s(run: Run, window: Window) -> float:
    """From the start of the window to the last arrival; NaN where nothing came after its start."""
    duration_s, ends = run.config.get("duration_s"), window.seconds or np.nan
    until = min(ends, float(duration_s)) if duration_s else ends
    if _waiting(run, "requests") > 0:
        return until
    columns = run.columns(["phase", "intended_ns"], "requests")
    came_ns = columns["intended_ns"][columns["phase"] == Phase.MEASURE]
    last_s = (int(came_ns.max()) - window.start_ns) / 1e9 if len(came_ns) else 0.0
    return min(until, last_s) if last_s > 0 else np.nan


def _begun(run: Run, window: Window) -> list[tuple[str, float, float, float]]:
    """Of each unit: what had begun, what was done, and the same by the share of its time in the window."""
    if run.mode != "full":
        # The sums of all requests have no tokens of contexts.
        population = run.table("request_population")
        begun, served, inside = (float(population[name].sum()) for name in ("requests", "done", "done_inside"))
        return [("requests", begun, served, inside), ("tokens", np.nan, np.nan, np.nan)]
    names = ["phase", "state", "start_ns", "end_ns", "context_tokens"]
    columns = run.columns(names, "requests")
    mask = columns["phase"] == Phase.MEASURE
    start, end, tokens = (columns[name][mask] for name in ("start_ns", "end_ns", "context_tokens"))
    done = columns["state"][mask] == RequestState.DONE
    share = window.share_inside(start, end - start) * done
    amounts: list[tuple[str, Any]] = [("requests", np.ones(len(done))), ("tokens", tokens.astype(np.float64))]
    return [(unit, float(of.sum()), float(of[done].sum()), float((of * share).sum())) for unit, of in amounts]


def _waiting(run: Run, unit: str) -> float:
    ranks = run.ranks
    known = f"waiting_{unit}" in ranks and bool((ranks[f"waiting_{unit}"] >= 0).all())
    return float(ranks[f"waiting_{unit}"].sum()) if known else np.nan
