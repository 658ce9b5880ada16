"""How a search is told: one sentence, and a table of its probes. Makes no figures."""

import math
from typing import Final

from kvbench_analysis.search.limit import Limit
from kvbench_analysis.search.study import SearchFigures, met_again, to_json
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from rich.console import Console

from kvbench.records.objectives import Objective

__all__ = ["UNITS", "print_search", "search_to_json", "sentence"]

UNITS: Final = {
    "arrivals.rate": "sessions/s of a rank",
    "pacing.requests_per_s": "requests/s of a rank",
    "pacing.speedup": "times the workload's own speed",
    "workload.users": "users of a rank",
}
"""What can be varied, and in what it is counted."""


def search_to_json(figures: SearchFigures) -> str:
    """All figures, with the sentence."""
    return to_json(figures, sentence(figures))


def sentence(figures: SearchFigures) -> str:
    """What was found."""
    asked, outcome = figures.asked, figures.outcome
    unit = UNITS.get(asked.key, asked.key)
    ranks = units.count_of(asked.ranks, "rank")
    if asked.aim == "max-throughput":
        return _of_throughput(figures, unit, ranks)
    promised = _all_of(figures.objectives)
    if outcome == "never-met":
        return (
            f"{promised}: not even met at the lowest load of the search, {_load(asked.low)} {unit}; give a lower "
            "--from, or another objective."
        )
    if outcome == "never-exceeded":
        return (
            f"{promised}: met up to the highest load of the search, {_load(asked.high)} {unit}, and not exceeded "
            "anywhere: the limit lies above it; give a higher --to."
        )
    if not math.isfinite(figures.limit.estimate):
        return f"{promised}: nothing can be said yet, after {units.count_of(len(figures.probes), 'probe')}."
    open_end = not math.isfinite(figures.limit.high) or figures.limit.low <= 0
    bounds = "" if open_end else ", 95 %"
    text = (
        f"{promised}: met up to {_load(figures.limit.estimate)} {unit} ({_between(figures.limit)}{bounds}), which is "
        f"{units.digits(figures.requests_per_s.estimate)} requests/s of {ranks} ({_between(figures.requests_per_s)})."
    )
    if _is_served(figures):
        text += " What limits it is what can be served: above, the backlog grows."
    again = met_again(figures.probes)
    if again is not None:
        text += (
            f" Exceeded at {_load(again[0])}, it is met again at {_load(again[1])}: other requests may come at "
            f"them, as from another part of a trace; a search with --to below {_load(again[1])} keeps clear of that."
        )
    if outcome == "wide":
        text += (
            f" The interval is wider than the {100 * asked.precision:.3g} % that were asked for: give more probes "
            "(--resume --probes) or longer ones (--seconds)."
        )
    if outcome == "searching":
        text += " The search is not over: --resume goes on with it."
    return text


def _of_throughput(figures: SearchFigures, unit: str, ranks: str) -> str:
    if not math.isfinite(figures.limit.estimate):
        return "Nothing can be said yet."
    rate, load = figures.requests_per_s, figures.limit
    text = (
        f"Highest throughput: {units.digits(rate.estimate)} requests/s of {ranks} ({_between(rate)}, 95 %), at "
        f"{_load(load.estimate)} {unit}; "
    )
    alike = load.low < load.high
    text += (
        f"from {_load(load.low)} to {_load(load.high)} it is not significantly less." if alike else "all else is less."
    )
    if figures.outcome == "never-exceeded":
        text += " It still rises at the highest load of the search: give a higher --to."
    if figures.outcome == "wide":
        text += " The probes that were asked for did not suffice to end the search: give more (--probes)."
    if figures.outcome == "searching":
        text += " The search is not over: --resume goes on with it."
    return text


def print_search(figures: SearchFigures, console: Console) -> None:
    """The sentence, and the table of probes in the order of their loads."""
    headings = ["load", "probe", "offered/s", "served/s"]
    headings += [objective.name.replace(".", "\n") for objective in figures.objectives]
    throughput = figures.asked.aim == "max-throughput"
    headings += [] if throughput else ["slow", "verdict"]
    body: list[list[str | int]] = []
    for row in figures.probes.sort_values(["load", "probe"]).to_dict("records"):
        cells: list[str | int] = [_load(row["load"]), int(row["probe"]) + 1, units.digits(row["offered_per_s"])]
        cells += [units.digits(row["served_per_s"])]
        numbers = range(len(figures.objectives))
        cells += [units.duration(row[f"figure_s_{number}"] * 1e9) for number in numbers]
        if not throughput:
            worst = [units.share(row[f"over_share_{n}"]) for n in numbers if figures.objectives[n].percentile]
            cells += ["\n".join(worst) or "-", "backlog grew" if row["grew"] else _WORDS[row["verdict"]]]
        body.append(cells)
    print_table(
        console,
        f"Probes: {safe_text(figures.asked.key)}, {UNITS.get(figures.asked.key, '')}",
        headings,
        body,
        left=0,
    )
    console.print(sentence(figures), soft_wrap=True, highlight=False, markup=False)


_WORDS: Final = {"met": "met", "exceeded": "exceeded", "open": "at the limit"}


def _is_served(figures: SearchFigures) -> bool:
    """Whether the limit is that of what can be served."""
    served = figures.served.estimate
    return math.isfinite(served) and all(served <= limit.estimate for limit in figures.limits)


def _all_of(objectives: tuple[Objective, ...]) -> str:
    return " and ".join(str(each) for each in objectives)


def _between(limit: Limit) -> str:
    if not math.isfinite(limit.high):
        return f"at least {_load(limit.low)}" if limit.low > 0 else "no interval yet"
    return f"{_load(limit.low)} to {_load(limit.high)}" if limit.low > 0 else f"at most {_load(limit.high)}"


def _load(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
