"""How fast a server is under each load, from spans of known beginning and end: the estimate, and what is left of it.

An operation's work has a mean of 1 that nothing of its beginning says anything about. So of those that begin beside
j - 1 others, with T(i, k) the time that operation i spends where k are in flight, the mean of the sum over k of
T(i, k) / seconds(k) is 1, for every j: linear equations in 1 / seconds, solved by least squares that are not negative,
weighted by the operations behind each. An average of times over the load at their beginning would be wrong as the load
changes meanwhile; a regression on the load during an operation would be, as long ones see more of it (instrumental
variables: Reiersoel, Arkiv foer Matematik 32A, 1945). More load makes no operation faster, and where the
data say nothing the time is that of the next higher load.
"""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from kvbench_analysis.storage_model.spans import Spans
from numpy.typing import NDArray
from scipy.optimize import nnls

from kvbench.records.storage_model import PROBABILITIES

_EDGES: Final = np.array(
    [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 2**40]
)
"""The highest load of each point."""
POINTS: Final = len(_EDGES)
_FEWEST: Final = 40
"""Operations that began at a load, for a time and a distribution of its own; fewer count with their neighbours."""
_SHARE: Final = 0.15
"""Of a run's operations of a kind and size, that began at a load, to tell it apart from its neighbours."""
_COLLAPSE: Final = 2.0
"""One among n is served no slower than with 1 / n to this power of the rate alone: all of them together, 1 / n."""
_RIDGE: Final = 3e-3
"""Of the equations' weight, that the time under one load is that of the next."""
_MEASURED: Final = 10
"""Operations that must have begun at a number in flight or beyond it, to call it measured."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """Of the operations of one kind and size in one run, n of them."""

    spent_s: Floats
    """(n, points) At each load."""
    point: NDArray[np.intp]
    """(n,) Of the load at the beginning, the operation itself included."""
    load: NDArray[np.int64]
    """(n,) That load."""
    block: NDArray[np.intp]
    """(n,) Of time: what stands and falls together when it is resampled."""
    run: NDArray[np.intp]
    """(n,) Which run it is of."""


class Loads:
    """How many operations that count were in flight on one server, at every time."""

    def __init__(self, start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> None:
        times = np.concatenate([start_ns, end_ns])
        steps = np.repeat(np.array([1, -1], np.int64), len(start_ns))
        order = np.lexsort((-steps, times))
        self._times = times[order]
        self._load = np.cumsum(steps[order])

    def at(self, time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Right after what happens at a time."""
        if not len(self._times):
            return np.zeros(len(time_ns), np.int64)
        at = np.searchsorted(self._times, time_ns, side="right") - 1
        return np.where(at >= 0, self._load[np.maximum(at, 0)], 0)

    def spent_s(self, start_ns: NDArray[np.int64], end_ns: NDArray[np.int64], beside: int) -> Floats:
        """(n, points) Of each span, the time at each load, `beside` added to it."""
        point = np.searchsorted(_EDGES, np.maximum(1, self._load + beside))
        lasts = np.diff(self._times, append=self._times[-1:]) if len(self._times) else np.empty(0, np.int64)
        spent = np.zeros((len(start_ns), POINTS))
        alone = int(np.searchsorted(_EDGES, max(1, beside)))
        for each in np.unique(np.append(point, alone)):
            until = np.concatenate([[0], np.cumsum(np.where(point == each, lasts, 0))])

            def before(time_ns: NDArray[np.int64], each: int = int(each), until: NDArray[np.int64] = until) -> Floats:
                at = np.searchsorted(self._times, time_ns, side="right") - 1
                inside = np.maximum(at, 0)
                since = np.where(at >= 0, time_ns - self._times[inside], 0) if len(self._times) else time_ns * 0
                here = np.where(at >= 0, point[inside] == each, False) if len(self._times) else time_ns < 0
                return np.asarray(until[inside] + np.where(here, since, 0), np.float64)

            spent[:, each] = (before(end_ns) - before(start_ns)) / 1e9
        if len(self._times) == 0:
            spent[:, alone] = (end_ns - start_ns) / 1e9
        return spent


def observe(spans: Spans, chosen: NDArray[np.bool_], block: NDArray[np.intp], run: int) -> Observed:
    """The `chosen` of `spans`, all of which count, or none; `block` is of each span, and `run` of all."""
    start, end, server = spans.start_ns[chosen], spans.end_ns[chosen], spans.server[chosen]
    beside = 0 if bool(spans.counts[chosen][:1].all()) else spans.beside
    spent, load = np.zeros((len(start), POINTS)), np.ones(len(start), np.int64)
    for each in np.unique(server):
        mine, there = server == each, spans.counts & (spans.server == each)
        loads = Loads(spans.start_ns[there], spans.end_ns[there])
        spent[mine] = loads.spent_s(start[mine], end[mine], beside)
        load[mine] = np.maximum(1, loads.at(start[mine]) + beside)
    point = np.searchsorted(_EDGES, load)
    return Observed(spent, point, load, block[chosen], np.full(len(start), run, np.intp))


@dataclass(frozen=True)
class Estimate:
    """What a kind and size comes to; K points at which there was anything."""

    levels: Floats
    """(K,) The mean load at each."""
    most: int
    seconds: Floats
    """(1 + resamples, K)"""
    works: Floats
    """(K, quantiles)"""


def estimate(observed: Observed, resamples: int, rng: np.random.Generator) -> Estimate:
    """From all operations of a kind and size. Resampled are blocks, with replacement."""
    used, steady = _points(observed)
    most = np.sort(observed.load)[-_MEASURED:][0]
    observed = Observed(*(getattr(observed, field.name)[steady] for field in fields(Observed)))
    blocks, block = np.unique(observed.block, return_inverse=True)
    # What too few began at is counted with the nearest point, the lower one of two.
    near = np.abs(np.arange(POINTS)[:, None] - used[None, :]).argmin(axis=1)
    point, k = near[observed.point], len(used)
    spent_s = np.stack([observed.spent_s[:, near == each].sum(axis=1) for each in range(k)], axis=1)
    cell = block * k + point
    counts = np.bincount(cell, minlength=len(blocks) * k).reshape(-1, k).astype(np.float64)
    spent = np.stack([np.bincount(cell, spent_s[:, each], len(blocks) * k).reshape(-1, k) for each in range(k)], axis=2)
    load = np.array([float(observed.load[point == each].mean()) for each in range(k)])
    weights = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), resamples)
    rows = [np.ones(len(blocks)), *weights.astype(np.float64)]
    rates = [_rates(row @ counts, np.tensordot(row, spent, 1), load) for row in rows]
    works = spent_s @ rates[0]
    return Estimate(
        levels=load,
        most=int(most),
        seconds=1 / np.array([np.where(rate > 0, rate, rates[0]) for rate in rates]),
        works=np.array([_quantiles(works[point == each]) for each in range(k)]),
    )


def _points(observed: Observed) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The loads that are told apart, and the operations that tell of them: those that began at a load that their run
    was under for long. What a run only passes through, as its threads begin and stop, says little of what it would be
    like to stay there."""
    runs, run = np.unique(observed.run, return_inverse=True)
    begun = np.bincount(run * POINTS + observed.point, minlength=len(runs) * POINTS).reshape(-1, POINTS)
    stayed = (begun >= _SHARE * begun.sum(axis=1, keepdims=True)) & (begun >= _FEWEST)
    if not stayed.any():
        usual = int(begun.sum(axis=0).argmax())
        return np.array([usual]), np.ones(len(run), np.bool_)
    return np.flatnonzero(stayed.any(axis=0)), np.asarray(stayed[run, observed.point], np.bool_)


def _rates(counts: Floats, spent: Floats, load: Floats) -> Floats:
    """(K,) 1 / seconds at K loads: `counts` (K,) operations that began at each, `spent` (K, K) the time that these
    spent at each; 0 where there was no time at all."""
    total = float(counts.sum())
    if not total or not spent.sum():
        return np.zeros(len(load))
    mean = float(spent.sum()) / total
    # Rates that do not rise: sums of steps from the highest load down, none of which is negative, in units of 1 / mean.
    steps = np.triu(np.ones((len(load), len(load))))
    equations = spent / np.maximum(counts, 1)[:, None] / mean @ steps * np.sqrt(counts)[:, None]
    alike = np.eye(len(load))[:-1] * _RIDGE * np.sqrt(total)
    found, _ = nnls(np.vstack([equations, alike]), np.concatenate([np.sqrt(counts), np.zeros(len(load) - 1)]))
    rates = steps @ found / mean
    for at in range(1, len(load)):
        # A load that nothing is known of does not stop the server.
        rates[at] = max(rates[at], rates[at - 1] * (load[at - 1] / load[at]) ** _COLLAPSE)
    return np.asarray(rates, np.float64)


def _quantiles(works: Floats) -> Floats:
    """At PROBABILITIES; straight lines between them have the mean of `works`."""
    found = np.quantile(works, PROBABILITIES)
    mean = float(np.trapezoid(found, PROBABILITIES))
    return np.asarray(found * (float(works.mean()) / mean if mean else 1.0), np.float64)
