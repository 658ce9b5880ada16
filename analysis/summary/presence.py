"""Whether the measured window is the time that was asked for, and whether every rank was at work in all of it.

Rates are over the window, of all ranks together: a rank that was stopped, that began late or had ended long before the
others lowers them, and nothing else in the file says so.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from kvbench_analysis.summary.caution import Caution
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window
from kvbench_analysis.text import units

from kvbench.records.schema import Phase

_LEAST_SHARE: Final = 0.1
"""Of the window, that what is warned of lowers a rate by..."""
_LEAST_S: Final = 0.5
"""... and so long at least: in a short run a single request is a large part of it."""
_RANKS_NAMED: Final = 8

WINDOW_CODES: Final = frozenset({"long-window", "short-window"})


def presence(run: Run, window: Window) -> Iterator[Caution]:
    """The warnings. A study is left alone: its ranks take turns."""
    if window.seconds is None or str(run.attributes.get("kind", "")).startswith("study"):
        return
    yield from _length(run, window, window.seconds)
    spans = rank_spans(run)
    late = (spans["begin_ns"] - window.start_ns) / 1e9
    early = (window.end_ns - spans["end_ns"]) / 1e9
    limit_s = _limit_s(window.seconds)
    late, early = late[late > limit_s], early[early > limit_s]
    ranks = max(int(run.attributes["ranks"]), len(spans))
    lowers = "rates are over the whole window, and so lower than while all ranks had some"
    if len(late):
        yield Caution(
            "late-start", f"{_idle(late, ranks)} at the beginning of the {_seconds(window.seconds)}: {lowers}"
        )
    # Of a recovered run this is said with how it ended.
    if len(early) and run.attributes["status"] != "recovered":
        yield Caution("early-end", f"{_idle(early, ranks)} at the end of the {_seconds(window.seconds)}: {lowers}")


def planned_seconds(run: Run) -> float | None:
    """How long was to be measured; None where that was left open, or the file does not say."""
    planned = run.config.get("duration_s")
    if isinstance(planned, bool) or not isinstance(planned, int | float) or not 0 < planned < np.inf:
        return None
    return float(planned)


def rank_spans(run: Run) -> pd.DataFrame:
    """One row per rank that measured something, by its number: `begin_ns` of its first operation, `end_ns` of its last.

    Empty for a file that neither says it nor holds all of its rows.
    """
    columns = ["begin_ns", "end_ns"]
    if {"rank", *columns} <= set(run.ranks):
        spans = run.ranks.drop_duplicates("rank").set_index("rank")[columns]
        return spans[spans["end_ns"] != 0]
    if run.mode != "full":
        return pd.DataFrame(columns=columns, dtype=np.int64)
    rows = run.columns(["phase", "errno"])
    counted = (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)
    times = {name: values[counted] for name, values in run.columns(["rank", "t_start_ns", "wall_ns"]).items()}
    frame = pd.DataFrame({"rank": times["rank"], "begin_ns": times["t_start_ns"]})
    frame["end_ns"] = times["t_start_ns"] + times["wall_ns"]
    return frame.groupby("rank").agg({"begin_ns": "min", "end_ns": "max"})


def _length(run: Run, window: Window, seconds: float) -> Iterator[Caution]:
    planned = planned_seconds(run)
    if planned is None:
        return
    if seconds - planned > _limit_s(planned):
        spans = rank_spans(run)
        last = f" (on rank {spans['end_ns'].idxmax()})" if len(spans) else ""
        yield Caution(
            "long-window",
            f"{_seconds(seconds)} were measured where duration_s is {planned:g}: what had begun took so long to end"
            f"{last}; rates are over all of the {_seconds(seconds)}, and so lower than in the time asked for",
        )
    elif planned - seconds > _limit_s(planned) and run.attributes["status"] == "complete":
        yield Caution(
            "short-window",
            f"{_seconds(seconds)} were measured where duration_s is {planned:g}: no operation ended later; rates are "
            f"over the {_seconds(seconds)}",
        )


def _limit_s(seconds: float) -> float:
    return max(_LEAST_S, _LEAST_SHARE * seconds)


def _idle(seconds: pd.Series, ranks: int) -> str:
    """Which ranks measured nothing and how long, the longest first. They may have been at work: what a request does
    that began before the window is not counted."""
    longest = seconds.sort_values(ascending=False)
    named = ", ".join(map(str, longest.index[:_RANKS_NAMED])) + (", ..." if len(longest) > _RANKS_NAMED else "")
    who = (
        "there was no operation that counts"
        if ranks == 1
        else f"{len(longest)} of {ranks} ranks ({named}) had no operation that counts"
    )
    return f"{who} for {'up to ' if len(longest) > 1 else ''}{_seconds(longest.iloc[0])}"


def _seconds(seconds: float) -> str:
    return f"{units.digits(seconds)} s"
