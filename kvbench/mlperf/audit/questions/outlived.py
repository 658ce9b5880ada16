"""Requests that go on after their trial, and count in it: the bandwidth over the time in which the bytes really moved.

The benchmark divides by `elapsed_time`, which ends with the trial, and counts requests under way until they end.
"""

from collections.abc import Iterator
from typing import Final

from kvbench.mlperf.audit.arithmetic import mean_of_sums, outlives, span_s
from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited, few
from kvbench.mlperf.audit.leaf import LeafFacts, OptionFacts, RankFacts

KIND: Final = "outlived-trial"
P95: Final = "aggregated_p95_latency_ms"


def outlived(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option with a request that took longer than its trial."""
    unknown: list[int] = []
    partly: list[int] = []
    for option in leaf.options:
        late = [rank for _, rank in option.ranks() if outlives(rank.elapsed_s or 0.0, _longest(rank))]
        p95_s = option.figures.get(P95, 0.0) / 1e3
        proven = option.duration_s is not None and outlives(option.duration_s, p95_s)
        if late or proven:
            yield _finding(leaf, option, late, p95_s if proven else None)
        elif not any(option.ranks()):
            (unknown if option.duration_s is None or P95 not in option.figures else partly).append(option.number)
    if unknown:
        yield NotAudited(KIND, "neither ranks' results, nor a P95 and the duration", tuple(unknown))
    if partly:
        why = "no ranks' results: only a P95 above the duration would show it, and it is not"
        yield NotAudited(KIND, why, tuple(partly))


def recomputed(option: OptionFacts) -> list[tuple[str, float, float]]:
    """(read or write, as published, at most) of the ranks that are there, in GiB/s, summed and averaged as the rules
    do."""
    found = []
    for name, amount in (("read", "read_gib"), ("write", "written_gib")):
        known = [
            [
                (gib, rank.elapsed_s, span_s(rank.elapsed_s, _longest(rank)))
                for rank in trial.ranks
                if (gib := getattr(rank, amount)) is not None and rank.elapsed_s
            ]
            for trial in option.trials
            if trial.ranks
        ]
        published = mean_of_sums([gib / elapsed for gib, elapsed, _ in trial] for trial in known)
        most = mean_of_sums([gib / span for gib, _, span in trial] for trial in known)
        if published is not None and most is not None:
            found.append((name, published, most))
    return found


def _longest(rank: RankFacts) -> float | None:
    return rank.longest_request_s if rank.elapsed_s else None


def _finding(leaf: LeafFacts, option: OptionFacts, late: list[RankFacts], p95_s: float | None) -> Finding:
    evidence = [
        Evidence(rank.path, rank.longest_key, f"{rank.longest_request_s:.1f} s; elapsed_time {rank.elapsed_s:.1f} s")
        for rank in sorted(late, key=lambda rank: -(rank.longest_request_s or 0.0))
    ]
    effects = []
    if late:
        longest = max(rank.longest_request_s or 0.0 for rank in late)
        what = (
            f"option {option.number}: requests of up to {longest:.0f} s count in a trial of {late[0].elapsed_s:.0f} s"
        )
        whom = _whom(leaf, option)
        effects += [
            f"{name} of {whom} {published:.3g} GiB/s: at most {most:.3g} over the time in which it was moved"
            for name, published, most in recomputed(option)
        ]
    if p95_s is not None and option.duration_s is not None:
        evidence.append(
            Evidence(leaf.summary_path, f"options.{option.number}.{P95}", f"{p95_s * 1e3:.0f}; {option.duration_from}")
        )
        if not late:
            what = (
                f"option {option.number}: the P95 of a rank's storage time, {p95_s:.0f} s, is above "
                f"the {option.duration_s:.0f} s of a trial"
            )
        effects.append(
            f"a rank moved its bytes in the {p95_s:.0f} s of its P95 or more, so that what it adds "
            f"to the sums is at least {p95_s / option.duration_s:.2f} times its bandwidth"
        )
    return Finding("distorts", KIND, what, "; ".join(effects), few(evidence), (option.number,))


def _whom(leaf: LeafFacts, option: OptionFacts) -> str:
    numbers = sorted({rank.number for _, rank in option.ranks()})
    if leaf.total_ranks is not None and len(numbers) >= leaf.total_ranks:
        return "all ranks"
    named = f"rank {numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} ranks"
    return f"{named} (of {leaf.total_ranks}; the others are not in the tree)" if leaf.total_ranks else named
