"""Ranks that left no result: the figures are sums over those that did, which had the storage for themselves."""

import re
from collections.abc import Iterator
from typing import Final

from kvbench.mlperf.audit.arithmetic import dealt_out, in_ranges
from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited
from kvbench.mlperf.audit.leaf import LeafFacts, OptionFacts
from kvbench.mlperf.audit.questions.speed import READ, WRITE

KIND: Final = "lost-ranks"
_RANK: Final = re.compile(r"trial_(\d+)/rank_(\d+)/*$", re.ASCII)


def lost_ranks(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option with ranks that the summary misses, and one for trials that it says failed."""
    for option in leaf.options:
        if option.missing or option.partial_failure:
            yield _finding(leaf, option)
    if leaf.trial_failures:
        yield Finding(
            "invalidates",
            KIND,
            f"the summary names {len(leaf.trial_failures)} trials that failed",
            "figures are of what the others left",
            (Evidence(leaf.summary_path, "trial_failures", "; ".join(leaf.trial_failures)[:200]),),
        )
    unknown = tuple(option.number for option in leaf.options if option.partial_failure is None and not option.missing)
    if not leaf.summary_path:
        yield NotAudited(KIND, "no summary")
    elif unknown:
        yield NotAudited(KIND, "the summary does not say whether one failed", unknown)


def lost_by_trial(option: OptionFacts) -> dict[int, list[int]]:
    """The ranks that the summary misses, by trial."""
    found: dict[int, list[int]] = {}
    for path in option.missing:
        if place := _RANK.search(path):
            found.setdefault(int(place[1]), []).append(int(place[2]))
    return found


def _finding(leaf: LeafFacts, option: OptionFacts) -> Finding:
    lost = lost_by_trial(option)
    number, ranks = option.number, leaf.total_ranks
    trials = option.trial_count or leaf.trials_per_option or len(lost)
    count = sum(map(len, lost.values()))
    of = f" of {ranks * trials}" if ranks and trials else ""
    if lost:
        words = "; ".join(f"trial {trial}: {in_ranges(numbers)}" for trial, numbers in sorted(lost.items()))
        what = f"option {number}: {count}{of} ranks left no result"
        evidence = [Evidence(leaf.summary_path, f"options.{number}.missing_files", words)]
    else:
        what = f"option {number}: the summary says that it failed in part, and names no rank"
        evidence = [Evidence(leaf.summary_path, f"options.{number}.partial_failure", "true")]
    effects = [
        "the figures are sums over the survivors, which shared storage and hosts with fewer once the others "
        "had ended; when that was, the tree does not say"
    ]
    if lost and ranks and trials:
        left = ranks * trials - count
        for name, key in (("read", READ), ("write", WRITE)):
            if left > 0 and (figure := option.figures.get(key)) is not None:
                effects.append(
                    f"{name} {figure:.4g} GiB/s is {figure * trials / left:.3g} for each survivor, and would "
                    f"be {figure / ranks:.3g} for each of {ranks}"
                )
    if leaf.map_by_node and leaf.host_count:
        for trial, numbers in sorted(lost.items()):
            counts = dealt_out(numbers, leaf.host_count)
            span = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
            each = f" of {ranks // leaf.host_count}" if ranks and ranks % leaf.host_count == 0 else ""
            effects.append(
                f"ranks were dealt out to {leaf.host_count} hosts in turn: each lost {span}{each} in trial {trial}"
            )
    return Finding("invalidates", KIND, what, "; ".join(effects), tuple(evidence), (number,))
