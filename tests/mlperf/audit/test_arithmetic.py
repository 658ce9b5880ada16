"""The arithmetic of an audit, against what it is about."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.mlperf.audit import arithmetic

QUANTILES = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9, "p9999": 99.99}


def percentiles_of(values: npt.NDArray[np.float64]) -> dict[str, float]:
    return {name: float(np.percentile(values, place)) for name, place in QUANTILES.items()}


@pytest.mark.parametrize("count", range(2, 400))
def test_the_shape_of_percentiles_never_says_fewer_values_than_there_are(count: int) -> None:
    # Drawn, not sought: whoever looks for values whose percentiles lie on one straight line by chance finds them.
    for seed in range(5):
        most = arithmetic.most_samples(percentiles_of(np.random.default_rng((count, seed)).exponential(100.0, count)))
        assert most is None or most >= count


@pytest.mark.parametrize(("count", "most"), [(2, 3), (3, 3), (16, 21), (27, 102)])
def test_few_values_are_told_by_their_percentiles(count: int, most: int) -> None:
    values = np.random.default_rng(count).exponential(100.0, count)
    assert arithmetic.most_samples(percentiles_of(values)) == most


def test_many_values_are_not_taken_for_few() -> None:
    values = np.random.default_rng(1).exponential(100.0, 5000)
    assert arithmetic.most_samples(percentiles_of(values)) is None


@given(elapsed=st.floats(1, 1e4), longest=st.floats(0, 1e5))
def test_bytes_were_moved_in_the_trial_or_in_the_time_of_the_longest_request(elapsed: float, longest: float) -> None:
    span = arithmetic.span_s(elapsed, longest)
    assert span >= elapsed
    assert span in (elapsed, longest)
    assert not arithmetic.outlives(elapsed, longest) or span == longest


def test_a_request_that_ends_with_the_trial_is_not_late() -> None:
    assert not arithmetic.outlives(300.0, 300.1)
    assert arithmetic.outlives(300.0, 301.0)
    assert not arithmetic.outlives(300.0, None)


def test_ranks_are_summed_and_trials_averaged() -> None:
    assert arithmetic.mean_of_sums([[1.0, 2.0], [3.0, 4.0]]) == 5.0
    assert arithmetic.mean_of_sums([]) is None


@given(
    usual=st.lists(st.floats(300, 320), min_size=1, max_size=4),
    delay=st.floats(0, 500),
)
def test_a_delay_is_what_lies_between_options_beyond_the_usual(usual: list[float], delay: float) -> None:
    found = arithmetic.delay_s(usual, usual[-1] + delay)
    assert found is not None
    assert abs(found[0] - delay) <= found[1]


def test_without_two_trials_there_is_no_usual_distance() -> None:
    assert arithmetic.delay_s([], 400.0) is None


@given(ranks=st.sets(st.integers(0, 200)), hosts=st.integers(1, 20))
def test_every_rank_is_on_one_host(ranks: set[int], hosts: int) -> None:
    counts = arithmetic.dealt_out(ranks, hosts)
    assert sum(counts) == len(ranks)
    assert counts == [sum(1 for rank in ranks if rank % hosts == host) for host in range(hosts)]


@given(numbers=st.sets(st.integers(0, 60)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    text = arithmetic.in_ranges(numbers)
    named: list[int] = []
    for part in filter(None, text.split(", ")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


def test_rates_and_networks() -> None:
    assert arithmetic.rate_gib_per_s(0.5, 100.0) == 5.0
    assert arithmetic.rate_gib_per_s(0.5, 0.0) == float("inf")
    assert arithmetic.gib_per_s(400.0) == pytest.approx(46.566, rel=1e-4)
