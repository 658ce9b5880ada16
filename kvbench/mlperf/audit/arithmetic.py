"""The arithmetic of an audit, as functions of plain numbers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Final

from kvbench.units import GIB

_PLACES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}
_SAME_SLOPE: Final = 1e-6
"""How much two slopes between percentiles may differ and still be of one straight line."""
_RANGE_OF_USUAL: Final = 10.0
"""Seconds: that stamps are whole ones and that two starts differ is in it."""


def span_s(elapsed_s: float, longest_request_s: float | None) -> float:
    """The least time in which a rank did what it counted, in s: requests arrive after the trial began, so none that
    took longer than the trial can have ended in it."""
    return max(elapsed_s, longest_request_s or 0.0)


def outlives(elapsed_s: float, longest_request_s: float | None) -> bool:
    """Whether a request took longer than the trial that it counts in."""
    return longest_request_s is not None and longest_request_s > elapsed_s * 1.001 + 0.01


def mean_of_sums(trials: Iterable[Iterable[float]]) -> float | None:
    """The sum over the ranks of each trial, and the mean of the trials, as the rules aggregate; None of no trial."""
    sums = [sum(values) for values in trials]
    return fmean(sums) if sums else None


def delay_s(usual_s: Sequence[float], between_s: float) -> tuple[float, float] | None:
    """(delay, uncertainty) between two options, in s, by when trials began: `between_s`, from the beginning of the last
    trial of the one to that of the first of the other, less the distance of trials without a delay between them, of
    which `usual_s` are some. None where there are none."""
    if not usual_s:
        return None
    return between_s - median(usual_s), max(_RANGE_OF_USUAL, 2 * (max(usual_s) - min(usual_s)))


def rate_gib_per_s(gib: float, milliseconds: float) -> float:
    """Of so much in so long; infinite where it took no time."""
    return gib / (milliseconds / 1e3) if milliseconds > 0 else float("inf")


def most_samples(percentiles: Mapping[str, float]) -> int | None:
    """How many values the percentiles can be of at most, by their shape; None where it tells nothing.

    Percentiles are interpolated between neighbours in the sorted list (numpy's default). Where those from q up to
    0.9999 lie on one straight line that rises, they lie between two neighbours: then (n - 1) (0.9999 - q) <= 1.
    """
    there = [(place, percentiles[name]) for name, place in _PLACES.items() if name in percentiles]
    if len(there) < 3 or there[-1][0] != _PLACES["p9999"]:
        return None
    slopes = [(later[1] - value) / (later[0] - place) for (place, value), later in pairwise(there)]
    if slopes[-1] <= 0 or there[-1][1] <= 0:
        return None
    # What the numbers are rounded to in the file says nothing of a line.
    first = None
    for number in range(len(slopes) - 2, -1, -1):
        if abs(slopes[number] - slopes[-1]) > _SAME_SLOPE * slopes[-1]:
            break
        first = number
    return None if first is None else int(1 / (_PLACES["p9999"] - there[first][0]) + 1e-9) + 1


def gib_per_s(gbit_per_s: float) -> float:
    """What a network of that speed carries, in GiB/s, without any overhead."""
    return gbit_per_s * 1e9 / 8 / GIB


def dealt_out(ranks: Iterable[int], hosts: int) -> list[int]:
    """How many of `ranks` each host has, where ranks are dealt out to hosts in turn."""
    counts = [0] * hosts
    for rank in ranks:
        counts[rank % hosts] += 1
    return counts


def in_ranges(numbers: Iterable[int]) -> str:
    """`1, 3-5` of 1, 3, 4, 5."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
