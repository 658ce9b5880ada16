"""The limit and its interval on queues whose limit is known: how often it holds it, and where it must not lie.

Each trial is a whole search, with the strategy and the statistics of the real one; only the probes are simulated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from kvbench_analysis.search.limit import Limit, Served, capacity
from kvbench_analysis.search.response import Floats, Response, Tried, inflation_of, variance_of_log_mean
from kvbench_analysis.search.served import backlog
from kvbench_analysis.search.strategy import Bounds, Outcome, Probe, next_load, overall
from kvbench_analysis.search.throughput import most_served, next_load_for_most
from scipy.optimize import brentq
from scipy.special import gammaln

SERVICE_S = 0.005
TRIALS = 50
HELD = 0.9

Service = Callable[[np.random.Generator, int], Floats]


def steady(rng: np.random.Generator, requests: int) -> Floats:
    """A pipe: each request takes as long as the last."""
    return np.full(requests, SERVICE_S)


def slow(rng: np.random.Generator, requests: int) -> Floats:
    return np.full(requests, 4 * SERVICE_S)


def exponential(rng: np.random.Generator, requests: int) -> Floats:
    return rng.exponential(SERVICE_S, requests)


@dataclass(frozen=True)
class Queue:
    """One server, Poisson arrivals; `percentile` None: the mean is bounded."""

    service: Service
    percentile: float | None
    bound_s: float
    seconds: float = 20.0
    between_runs: float = 0.0
    """Spread of the service time from one run to the next."""

    @property
    def response(self) -> Response:
        return Response(None if self.percentile is None else 1 - self.percentile / 100)

    def probe(self, rng: np.random.Generator, load: float) -> Probe:
        """A run at `load` requests/s, with a quarter of its length before it."""
        before = self.seconds / 4
        gaps = rng.exponential(1 / load, int(1.3 * load * (self.seconds + before)) + 50)
        came = np.cumsum(gaps) - before
        came = came[came < self.seconds]
        takes = self.service(rng, len(came)) * np.exp(self.between_runs * rng.standard_normal())
        # Lindley's recursion.
        ends = np.cumsum(takes)
        done = np.maximum.accumulate(came - (ends - takes)) + ends
        grew, _ = backlog(came, done[done <= self.seconds], self.seconds)
        counts = (came >= 0) & (came <= self.seconds - self.bound_s)
        latency = (np.minimum(done, self.seconds) - came)[counts]
        if self.percentile is None:
            tried = Tried(
                load, float(np.log(latency.mean() / self.bound_s)), len(latency), variance_of_log_mean(latency)
            )
        else:
            over = latency >= self.bound_s
            tried = Tried(load, float(over.mean()), len(over), inflation_of(over), grew)
        offered = np.count_nonzero(came >= 0) / self.seconds
        served = np.count_nonzero((done > 0) & (done <= self.seconds)) / self.seconds
        return Probe(load, (tried,), grew, offered, served)

    def search(self, seed: int, bounds: Bounds) -> tuple[list[Probe], Outcome, Limit]:
        rng, probes = np.random.default_rng(seed), list[Probe]()
        while True:
            load, outcome = next_load(probes, [self.response], bounds)
            if load is None:
                return probes, outcome, overall(probes, [self.response])
            probes.append(self.probe(rng, load))


def bounds_around(truth: float, seed: int, **changes: object) -> Bounds:
    start = truth * float(np.exp(np.random.default_rng(seed + 9000).uniform(-2, 2)))
    values: dict[str, object] = {
        "low": truth / 20, "high": truth * 20, "start": start, "whole": False, "precision": 0.05, "most": 40,
    }  # fmt: skip
    return Bounds(**(values | changes))  # type: ignore[arg-type]


def steady_limit(percentile: float, bound_s: float) -> float:
    """Of M/D/1: Erlang's distribution of the wait (1909), a sum of alternating terms, exact for few of them."""

    def over(rate: float) -> float:
        wait = bound_s - SERVICE_S
        k = np.arange(int(wait / SERVICE_S) + 1)
        terms = rate * (k * SERVICE_S - wait)
        logs = k * np.log(np.maximum(-terms, 1e-300)) - gammaln(k + 1) - terms
        signs = np.where(k % 2, -1.0, 1.0)
        return 1 - (1 - rate * SERVICE_S) * float((signs * np.exp(logs)).sum())

    return float(brentq(lambda rate: over(rate) - (1 - percentile / 100), 20, 199.9))


MOST = 1 / SERVICE_S
KNOWN = {
    # M/M/1: the time in the system is exponential, at the rate of service less that of arrivals.
    "exponential service, p95": (Queue(exponential, 95, 0.06), MOST - np.log(20) / 0.06),
    "exponential service, p50": (Queue(exponential, 50, 0.02), MOST - np.log(2) / 0.02),
    "exponential service, p99": (Queue(exponential, 99, 0.1), MOST - np.log(100) / 0.1),
    "exponential service, mean": (Queue(exponential, None, 0.03), MOST - 1 / 0.03),
    "steady service, p95": (Queue(steady, 95, 0.03), steady_limit(95, 0.03)),
    # A bound that only a backlog reaches: the limit is what can be served.
    "a pipe, far bound": (Queue(steady, 95, 1.0), MOST),
    "a pipe, short probes": (Queue(steady, 95, 0.3, seconds=6), MOST),
    "a pipe that varies between runs": (Queue(steady, 95, 1.0, between_runs=0.02), MOST),
    # Of so few requests, how many came is as uncertain as how many were served.
    "a slow pipe, short probes": (Queue(slow, 95, 1.0, seconds=6), MOST / 4),
}


def test_the_limit_of_a_steady_queue_is_known() -> None:
    queue, truth = KNOWN["steady service, p95"]
    rng = np.random.default_rng(1)
    shares = [queue.probe(rng, truth).tried[0].value for _ in range(200)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_the_interval_holds_the_limit_in_nine_of_ten_searches(name: str) -> None:
    queue, truth = KNOWN[name]
    limits = [queue.search(seed, bounds_around(truth, seed))[2] for seed in range(TRIALS)]
    held = sum(limit.low <= truth <= limit.high for limit in limits)
    assert held >= HELD * TRIALS, [(limit.low / truth, limit.high / truth) for limit in limits]
    assert np.median([limit.estimate for limit in limits]) == pytest.approx(truth, rel=0.05)
    assert np.median([limit.width for limit in limits]) <= 0.1, "an interval that holds all says nothing"


def test_a_slow_pipe_does_not_want_all_probes_that_there_may_be() -> None:
    queue, truth = KNOWN["a slow pipe, short probes"]
    searches = [queue.search(seed, bounds_around(truth, seed)) for seed in range(10)]
    assert all(outcome == "found" for _, outcome, _ in searches)
    assert np.mean([len(probes) for probes, _, _ in searches]) < 25


@pytest.mark.parametrize("name", ["exponential service, p95", "a pipe, far bound"])
def test_the_interval_holds_the_limit_in_most_of_a_few_searches(name: str) -> None:
    queue, truth = KNOWN[name]
    limits = [queue.search(seed, bounds_around(truth, seed))[2] for seed in range(10)]
    assert sum(limit.low <= truth <= limit.high for limit in limits) >= 8
    assert all(0.85 * truth < limit.estimate < 1.15 * truth for limit in limits)


def test_a_load_that_is_never_met_or_never_exceeded_ends_at_the_bound() -> None:
    queue, truth = KNOWN["exponential service, p95"]
    above = bounds_around(truth, 0, low=1.5 * truth, high=20 * truth, start=3 * truth)
    probes, outcome, _ = queue.search(0, above)
    assert outcome == "never-met"
    assert probes[-1].load == pytest.approx(1.5 * truth)
    below = bounds_around(truth, 0, low=truth / 20, high=truth / 2, start=truth / 10)
    probes, outcome, _ = queue.search(0, below)
    assert outcome == "never-exceeded"
    assert probes[-1].load == pytest.approx(truth / 2)


def test_whole_loads_stay_whole_and_between_the_bounds() -> None:
    queue, truth = Queue(lambda rng, n: rng.exponential(0.1, n), 95, 1.5, seconds=60), 10 - np.log(20) / 1.5
    probes, _, limit = queue.search(3, bounds_around(truth, 3, low=1, high=64, start=4, whole=True))
    assert all(probe.load == round(probe.load) and 1 <= probe.load <= 64 for probe in probes)
    assert limit.low <= truth <= limit.high


def test_the_same_probes_give_the_same_next_load() -> None:
    queue, truth = KNOWN["a pipe, far bound"]
    probes, _, limit = queue.search(7, bounds_around(truth, 7))
    again = [next_load(probes[:n], [queue.response], bounds_around(truth, 7))[0] for n in range(len(probes))]
    assert again == [probe.load for probe in probes]
    assert overall(probes, [queue.response]) == limit


def test_a_backlog_grows_above_what_can_be_served_and_not_below() -> None:
    queue, _ = KNOWN["a pipe, far bound"]
    rng = np.random.default_rng(5)
    assert all(queue.probe(rng, 1.1 * MOST).grew for _ in range(20))
    assert not any(queue.probe(rng, 0.9 * MOST).grew for _ in range(100))


def test_one_probe_that_kept_up_by_chance_does_not_make_all_others_doubtful() -> None:
    kept = [Served(load, False, load, load) for load in (30.0, 40.0, 48.0, 90.0)]
    grew = [
        Served(load, True, load, served) for load, served in ((52.0, 49.8), (53.0, 50.1), (55.0, 50.2), (60.0, 50.0))
    ]
    limit = capacity([*kept, *grew])
    assert limit.low < 50 < limit.high
    assert limit.width < 0.02
    # Two such probes are too few to say so of a third.
    assert capacity([*kept, *grew[:2]]).width > 0.2


def test_a_lower_objective_decides() -> None:
    loads = (80.0, 90.0, 100.0, 110.0, 120.0)
    easy, hard = Response(0.05), Response(0.01)
    probes = [
        Probe(
            load,
            (
                Tried(load, 1 / (1 + np.exp(-(easy.centre + 10 * np.log(load / 115)))), 20_000, 2.0),
                Tried(load, 1 / (1 + np.exp(-(hard.centre + 10 * np.log(load / 95)))), 20_000, 2.0),
            ),
            grew=False,
            offered_per_s=load,
            served_per_s=load,
        )
        for load in loads
    ]
    limit = overall(probes, [easy, hard])
    assert limit.estimate == pytest.approx(95, rel=0.01)
    assert limit.low < 95 < limit.high < 115


@pytest.mark.parametrize("seed", range(5))
def test_the_highest_throughput_is_found_and_where_it_begins(seed: int) -> None:
    rng, points = np.random.default_rng(seed), list[tuple[float, float]]()
    bounds = Bounds(low=1, high=1000, start=20, whole=False, precision=0.05, most=60)
    while (load := next_load_for_most(points, bounds)[0]) is not None:
        # Rises to 200, and falls beyond 400.
        truth = min(load, 200.0) if load < 400 else 200 * (400 / load) ** 0.5
        points.append((load, truth * float(np.exp(0.01 * rng.standard_normal()))))
    assert next_load_for_most(points, bounds)[1] == "found"
    highest = most_served(points)
    assert highest.requests_per_s.low <= 202
    assert highest.requests_per_s.high >= 198
    assert 180 <= highest.load.low <= highest.load.estimate <= highest.load.high <= 480
