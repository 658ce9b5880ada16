"""What the times in the names of results tell: trials too far apart, room for others between them, and delays between
options. The launcher gives all ranks of a trial one stamp, the local time at which it began it.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median
from typing import Final

from kvbench.mlperf.audit.arithmetic import delay_s, mean_of_sums
from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited, few
from kvbench.mlperf.audit.leaf import LeafFacts, OptionFacts, TrialFacts

APART: Final = "trials-apart"
DELAY: Final = "delay"
DROPPED: Final = "dropped-runs"
START_UP_S: Final = 60.0
"""What starting a trial, ending it and deleting its files may take before it is worth a word."""
CLOSED_DELAY_S: Final = 90.0
"""Rules.md 6.3.2.1."""


def apart(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option whose trials begin later after each other than duration and start-up explain."""
    unknown = []
    for option in leaf.options:
        trials = _stamped(option)
        gaps = [gap for _, _, gap in _gaps(trials)]
        if not gaps or option.duration_s is None:
            unknown.append(option.number)
        elif min(gaps) > option.duration_s + START_UP_S:
            yield _apart(option, trials, gaps, option.duration_s)
    if unknown:
        yield NotAudited(APART, "fewer than two trials with results", tuple(unknown))


def _apart(option: OptionFacts, trials: list[TrialFacts], gaps: list[float], duration_s: float) -> Finding:
    words = ", ".join(f"{gap:.0f}" for gap in gaps)
    rest = fmean(gaps) - duration_s
    # The last trial has no successor; it is taken to have lasted as the others.
    ranges = []
    for name, amount in (("read", "read_gib"), ("write", "written_gib")):
        values = [
            [
                (gib / rank.elapsed_s, gib / fmean(gaps))
                for rank in trial.ranks
                if _known(gib := getattr(rank, amount), rank)
            ]
            for trial in option.trials
            if trial.ranks
        ]
        most, least = (mean_of_sums([pair[place] for pair in trial] for trial in values) for place in (0, 1))
        if most and least:
            ranges.append(f"{name} {most:.3g} GiB/s of the ranks in the tree would be {least:.3g}")
    return Finding(
        "notable",
        APART,
        f"option {option.number}: trials of {duration_s:.0f} s begin {words} s after each other",
        f"start-up, requests that end late and clean-up share {rest:.0f} s of each trial, and the results do not tell "
        f"them apart. Were all of it measured time, {' and '.join(ranges) or 'bandwidth would be less'}",
        few([Evidence(trial.path, "stamp", f"{trial.began:%H:%M:%S}") for trial in trials]),
        (option.number,),
    )


def _known(gib: float | None, rank: object) -> bool:
    return gib is not None and bool(getattr(rank, "elapsed_s", None))


def room(leaf: LeafFacts) -> Iterator[Answer]:
    """Trials between which another one fits, or that are numbered with a hole, or ran twice."""
    if unknown := tuple(option.number for option in leaf.options if not option.trials):
        yield NotAudited(DROPPED, "no trials in the tree", unknown)
    for option in leaf.options:
        gaps = _gaps(_stamped(option))
        for place, (before, after, gap) in enumerate(gaps):
            usual = median([other[2] for number, other in enumerate(gaps) if number != place] or [gap])
            if option.duration_s is not None and gap >= usual + option.duration_s:
                yield Finding(
                    "notable",
                    DROPPED,
                    f"option {option.number}: between trials {before.number} and {after.number} lie {gap:.0f} s, usual "
                    f"are {usual:.0f} s",
                    "there is room for a trial that is not in the figures",
                    (
                        Evidence(before.path, "stamp", f"{before.began:%H:%M:%S}"),
                        Evidence(after.path, "stamp", f"{after.began:%H:%M:%S}"),
                    ),
                    (option.number,),
                )
        numbers = [trial.number for trial in option.trials]
        if numbers and (holes := sorted(set(range(min(numbers), max(numbers))) - set(numbers))):
            yield Finding(
                "notable",
                DROPPED,
                f"option {option.number}: trial {', '.join(map(str, holes))} is missing among those numbered "
                f"{min(numbers)} to {max(numbers)}",
                "the figures are of the others",
                few([Evidence(trial.path, "", "") for trial in option.trials]),
                (option.number,),
            )
        twice = [path for trial in option.trials for path in trial.repeated]
        if twice:
            yield Finding(
                "notable",
                DROPPED,
                f"option {option.number}: {len(twice)} ranks have more than one result",
                "a trial was run again into the same directory; the figures are of one of the results",
                few([Evidence(path, "kvcache_results_*.json", "more than one") for path in twice]),
                (option.number,),
            )


def delays(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each pause between options that is shorter than it has to be, or than was declared."""
    wanted = CLOSED_DELAY_S if leaf.division == "closed" and not leaf.rehearsal else leaf.delay_s
    found = [(option, _stamped(option)) for option in leaf.options]
    unknown = []
    for (before, earlier), (after, later) in pairwise(found):
        usual = [gap for _, _, gap in _gaps(earlier)]
        known = delay_s(usual, _seconds(later[0]) - _seconds(earlier[-1])) if earlier and later else None
        if known is None or wanted is None:
            unknown.append(after.number)
            continue
        delay, give = known
        if delay < wanted - give:
            yield Finding(
                "distorts",
                DELAY,
                f"between options {before.number} and {after.number} lie some {delay:.0f} s, of {wanted:.0f} s",
                f"the storage had {wanted - delay:.0f} s less to rest before option {after.number}; by how much "
                "that changes its figures cannot be recomputed",
                (
                    Evidence(earlier[-1].path, "stamp", f"{earlier[-1].began:%H:%M:%S}"),
                    Evidence(later[0].path, "stamp", f"{later[0].began:%H:%M:%S}"),
                ),
                (after.number,),
            )
    if unknown:
        yield NotAudited(DELAY, "no stamps of two trials before and of the first after it", tuple(unknown))
    elif len(found) < 2:
        yield NotAudited(DELAY, "fewer than two options")


def _stamped(option: OptionFacts) -> list[TrialFacts]:
    return sorted((trial for trial in option.trials if trial.began is not None), key=_seconds)


def _gaps(trials: list[TrialFacts]) -> list[tuple[TrialFacts, TrialFacts, float]]:
    """(trial, the next by its number, s from the beginning of the one to that of the other)."""
    return [
        (before, after, _seconds(after) - _seconds(before))
        for before, after in pairwise(trials)
        if after.number == before.number + 1
    ]


def _seconds(trial: TrialFacts) -> float:
    assert trial.began is not None
    return (trial.began - datetime.min).total_seconds()
