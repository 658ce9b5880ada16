"""The random numbers behind the workload: in range, of the right distribution, and the same everywhere."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.workload.draws import UNIT, Draws, stream_generator
from kvbench.workload.keys import KeyKind, object_key


@given(seed=st.integers(0, 2**40), lowest=st.integers(0, 10**6), width=st.integers(0, 10**9))
def test_between_stays_within_both_ends(seed: int, lowest: int, width: int) -> None:
    draws = Draws(stream_generator(seed))
    assert all(lowest <= draws.between(lowest, lowest + width) <= lowest + width for _ in range(20))


def test_between_reaches_both_ends_equally_often() -> None:
    draws = Draws(stream_generator(1))
    counts = [0, 0, 0]
    for _ in range(9000):
        counts[draws.between(5, 7) - 5] += 1
    assert all(2800 < count < 3200 for count in counts)


def test_chance_of_zero_never_and_of_one_always_happens() -> None:
    draws = Draws(stream_generator(1))
    assert not any(draws.chance(0.0) for _ in range(100))
    assert all(draws.chance(1.0) for _ in range(100))


def test_exponential_has_mean_and_deviation_of_one_and_the_right_tail() -> None:
    draws = Draws(stream_generator(2))
    sample = [draws.exponential() / UNIT for _ in range(20_000)]
    assert statistics.fmean(sample) == pytest.approx(1, abs=0.03)
    assert statistics.stdev(sample) == pytest.approx(1, abs=0.05)
    assert sum(value > 2 for value in sample) / len(sample) == pytest.approx(0.1353, abs=0.01)


def test_draws_and_keys_are_the_same_on_every_machine() -> None:
    draws = Draws(stream_generator(42, 0))
    drawn = [draws.bits(), draws.between(512, 4096), draws.exponential()]
    assert drawn == [6971176343755556, 2085, 7733562544347970]
    assert object_key(KeyKind.PERSONA_TURN, 0, 1, 2, 3, 4) == 11942657718824955556
