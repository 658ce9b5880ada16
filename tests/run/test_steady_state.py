"""When storage is steady by SNIA's criterion: sequences with known verdicts, its edges among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.run.steady_state import (
    MOST_ROUNDS,
    WINDOW_ROUNDS,
    PreconditionOrder,
    Verdict,
    read_precondition,
    verdict,
)

figures = st.lists(st.floats(1, 1e6), min_size=WINDOW_ROUNDS, max_size=20)


@pytest.mark.parametrize(
    ("rounds", "excursion", "slope", "steady"),
    [
        ([100, 100, 100, 100, 100], 0.0, 0.0, True),
        # 20 % and no more: the largest less the smallest is 20 of an average of 100.
        ([110, 90, 100, 90, 110], 0.2, 0.0, True),
        ([110.5, 90, 100, 90, 110.5], 20.5 / 100.2, 0.0, False),
        # A straight line that falls by 10 % of the average from the first round to the last, and by a little more.
        ([105, 102.5, 100, 97.5, 95], 0.1, -0.1, True),
        ([95, 97.5, 100, 102.5, 105], 0.1, 0.1, True),
        ([105.2, 102.6, 100, 97.4, 94.8], 0.104, -0.104, False),
        # Within the excursion, but on the way: the line through these rises by 16 % of their average.
        ([90, 100, 100, 100, 110], 0.2, 0.16, False),
        # One round of a burst, in the window's middle and at its end, where the line rises by 4 x 2 x 18 / 10.
        ([100, 100, 125, 100, 100], 25 / 105, 0.0, False),
        ([100, 100, 118, 100, 100], 18 / 103.6, 0.0, True),
        ([100, 100, 100, 100, 118], 18 / 103.6, 14.4 / 103.6, False),
    ],
)
def test_a_window_is_steady_within_a_fifth_and_a_slope_of_a_tenth(
    rounds: list[float], excursion: float, slope: float, steady: bool
) -> None:
    found = verdict(rounds)
    assert (found.excursion, found.slope) == pytest.approx((excursion, slope), abs=1e-9)
    assert found.steady is steady


def test_before_five_rounds_and_where_nothing_is_written_nothing_is_steady() -> None:
    for rounds in ([], [100.0] * (WINDOW_ROUNDS - 1), [0.0] * WINDOW_ROUNDS):
        found = verdict(rounds)
        assert np.isnan(found.excursion)
        assert np.isnan(found.slope)
        assert not found.steady


def test_only_the_last_five_rounds_are_looked_at() -> None:
    assert verdict([500.0, 3.0, 900.0, *[100.0] * 5]) == Verdict(0.0, 0.0)


@given(figures)
def test_the_slope_is_that_of_the_least_squares_line_and_neither_depends_on_the_unit(rounds: list[float]) -> None:
    found, window = verdict(rounds), np.array(rounds[-WINDOW_ROUNDS:])
    line = np.polyval(np.polyfit(range(WINDOW_ROUNDS), window, 1), range(WINDOW_ROUNDS))
    assert found.slope == pytest.approx((line[-1] - line[0]) / window.mean(), abs=1e-6)
    scaled = verdict([7 * number for number in rounds])
    assert (scaled.excursion, scaled.slope) == pytest.approx((found.excursion, found.slope), abs=1e-9)
    turned = verdict([*rounds[-WINDOW_ROUNDS:]][::-1])
    assert turned.slope == pytest.approx(-found.slope, abs=1e-9)


def test_a_multiple_of_the_capacity_is_a_number_with_an_x() -> None:
    assert read_precondition("steady") is None
    assert read_precondition("2x") == 2
    assert read_precondition(" 0.5 x") == 0.5
    for text in ("", "2", "x", "0x", "-1x", "2X ", "1e3x", "steady2", "nanx", "2001x"):
        with pytest.raises(ValueError, match="expected steady, or how often"):
            read_precondition(text)


def test_steady_has_an_end_and_a_multiple_of_the_capacity_its_own() -> None:
    assert PreconditionOrder().limit == MOST_ROUNDS
    assert PreconditionOrder(2.0).limit is None
    assert PreconditionOrder(2.0, most_rounds=3).limit == 3
    assert [order.text for order in (PreconditionOrder(), PreconditionOrder(2.0), PreconditionOrder(0.5))] == [
        "steady", "2x", "0.5x",
    ]  # fmt: skip
