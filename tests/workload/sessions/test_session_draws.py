"""What sessions draw from: distributions and popularity, as they were asked for, and the same on every machine."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kvbench.workload.draws import UNIT, Draws, stream_generator
from kvbench.workload.sessions.exact import exponential, powers
from kvbench.workload.sessions.spreads import Popularity, Table

MOST = 10**9


@given(st.floats(0.01, 1e6), st.floats(0, 8))
def test_powers_are_those_of_the_mathematics_library(base: float, exponent: float) -> None:
    assert powers(np.array([base]), exponent)[0] == pytest.approx(base**exponent, rel=1e-9)


@given(st.floats(-20, 20))
def test_exponentials_are_those_of_the_mathematics_library(number: float) -> None:
    assert exponential(number) == pytest.approx(math.exp(number), rel=1e-9)


def test_a_table_goes_through_its_percentiles_and_is_straight_between() -> None:
    table = Table({0: 10, 50: 20, 100: 120}, 0, MOST)
    assert [table.at(UNIT * eighth // 8) for eighth in range(8)] == [10, 12, 15, 17, 20, 45, 70, 95]
    assert table.at(UNIT - 1) in {119, 120}
    assert table.largest == 120


def test_the_order_in_which_percentiles_are_written_is_nothing() -> None:
    assert Table({100: 9, 0: 1}, 0, MOST).at(UNIT // 2) == Table({0: 1, 100: 9}, 0, MOST).at(UNIT // 2) == 5


def test_values_are_kept_within_bounds_and_multiplied() -> None:
    table = Table({0: 0.5, 100: 8}, 1000, 5000, scale=1000)
    assert [table.at(0), table.at(UNIT - 1)] == [1000, 4999]


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.5])
def test_a_lognormal_has_the_percentiles_of_one(sigma: float) -> None:
    table = Table({"median": 10**6, "sigma": sigma}, 0, 10**12)
    for share in (0.01, 0.1, 0.5, 0.9, 0.99):
        expected = 10**6 * math.exp(sigma * stats.norm.ppf(share))
        assert table.at(int(share * UNIT)) == pytest.approx(expected, rel=0.01)


def test_what_is_drawn_spreads_as_asked() -> None:
    draws, table = Draws(stream_generator(3)), Table({0: 0, 90: 100, 100: 1100}, 0, MOST)
    drawn = np.array([table.draw(draws) for _ in range(20_000)])
    assert np.count_nonzero(drawn <= 100) / len(drawn) == pytest.approx(0.9, abs=0.01)
    assert drawn.mean() == pytest.approx(0.9 * 50 + 0.1 * 600, rel=0.03)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.0, 2.5])
def test_popularity_follows_zipf(exponent: float) -> None:
    draws, popularity = Draws(stream_generator(4)), Popularity(50, exponent)
    counts = Counter(popularity.draw(draws) for _ in range(20_000))
    weights = np.arange(1, 51) ** -exponent
    expected = 20_000 * weights / weights.sum()
    assert counts[0] == pytest.approx(expected[0], rel=0.15)
    assert sum(counts[rank] for rank in range(10)) == pytest.approx(expected[:10].sum(), rel=0.05)
    assert set(counts) <= set(range(50))


@given(st.integers(1, 30), st.integers(0, 2**30), st.floats(0, 8))
def test_different_ranks_differ_even_if_all_are_wanted(ranks: int, seed: int, exponent: float) -> None:
    drawn = Popularity(ranks, exponent).different(Draws(stream_generator(seed)), ranks)
    assert sorted(drawn) == list(range(ranks))


def test_draws_are_the_same_on_every_machine() -> None:
    draws = Draws(stream_generator(5))
    lognormal = Table({"median": 800, "sigma": 1.2}, 1, MOST)
    popularity = Popularity(10**5, 0.9)
    assert [lognormal.draw(draws) for _ in range(5)] == [2246, 2274, 838, 405, 116]
    assert [popularity.draw(draws) for _ in range(5)] == [344, 467, 1, 1, 99423]
