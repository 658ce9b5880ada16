"""Which trials and ranks a run ought to have, by what it says of itself."""

from typing import Any, Final

from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import dig, items, whole

_MOST_RANKS: Final = 1_000_000
_MOST_TRIALS: Final = 1_000
"""What a broken file claims is not counted up to."""


def summary_options(run: Run) -> dict[int, Any]:
    """What the run summary says of each option, by its number; it is a list there, or a mapping by number."""
    options = dig(run.summary, "options")
    found: dict[int, Any] = {}
    for value in list(options.values()) if isinstance(options, dict) else items(options):
        option = whole(dig(value, "option"))
        if option is not None:
            found.setdefault(option, value)
    return found


def declared_options(run: Run) -> list[int]:
    """The options that anything in the run names."""
    return sorted(set(run.options) | set(Recorded(run).options()) | set(summary_options(run)))


def declared_trials(run: Run, option: int) -> list[int]:
    """The numbers of the trials of `option`: those of the sequence, else as many as the summary says, else those there.

    The reference tool counts trials from 0, others from 1: whichever the directories do.
    """
    told = sorted(Recorded(run).trials(option))
    there = sorted(run.options[option].trials) if option in run.options else []
    if told:
        return told
    for claim in (dig(summary_options(run).get(option), "trial_count"), dig(run.summary, "trials_per_option")):
        count = whole(claim)
        if count is not None and 0 < count <= _MOST_TRIALS:
            first = 0 if any(0 in other.trials for other in run.options.values()) else 1
            return list(range(first, first + count))
    return there


def declared_ranks(run: Run) -> int:
    """How many clients the run has by its summary, else by its sequence, else as many as left a directory."""
    for claim in (dig(run.summary, "total_ranks"), Recorded(run)["total_ranks"]):
        count = whole(claim)
        if count is not None and 0 < count <= _MOST_RANKS:
            return count
    return max((rank + 1 for _, trial in run.trials() for rank in trial.ranks), default=0)
