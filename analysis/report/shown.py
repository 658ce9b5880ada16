"""Places for figures on the page, and those of time to first token: each is a figure, or says why there is none."""

from dataclasses import dataclass

from kvbench_analysis.figures.prefix_lengths import parts_by_length, waits_by_length
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.first_token import break_even_plot, first_token_stack
from kvbench_analysis.summary.summary import Summary


@dataclass(frozen=True)
class Shown:
    """A place for a figure: the figure, or why there is none."""

    key: str
    title: str
    figure: Figure | None
    absent: str = ""


def shown_as(key: str, title: str, figure: Figure | None, absent: str = "no operation was measured") -> Shown:
    """A place for `figure`, or that `absent` is why there is none."""
    return Shown(key, title, figure, "" if figure else absent)


def first_token_figures(summary: Summary) -> list[Shown]:
    """The stack by length of prefix, and the break-even."""
    stack_title = "Time to first token by the prefix that was found"
    even_title = "Loading a prefix against computing it"
    found = summary.first_token
    if found is None:
        why = summary.no_first_token
        return [shown_as("first-token", stack_title, None, why), shown_as("break-even", even_title, None, why)]
    stack = first_token_stack(parts_by_length(found.times.table), found.gpu)
    even, times = found.break_even, found.times
    plot = None if even is None else break_even_plot(waits_by_length(times.table), even, times.model)
    few = "too few requests found something, or all found equally much"
    return [shown_as("first-token", stack_title, stack), shown_as("break-even", even_title, plot, few)]
