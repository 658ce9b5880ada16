"""What is known of a remote clock from exchanges, whatever their delays."""

from hypothesis import given
from hypothesis import strategies as st

from kvbench.cluster.clock import MOST_DRIFT, Bounds, group_size

delays = st.lists(
    st.tuples(st.integers(0, 50_000_000), st.integers(0, 50_000_000), st.integers(0, 1_000_000_000)),
    min_size=1,
    max_size=30,
)
"""Of each exchange: the way there, the way back, and the time until it begins, in ns."""


def after(offset_ns: int, drift: float, exchanges: list[tuple[int, int, int]]) -> Bounds:
    """The bounds after `exchanges` with a clock that is `offset_ns` ahead at local time 0 and gains `drift`."""
    now_ns = 0
    bounds: Bounds | None = None
    for there_ns, back_ns, wait_ns in exchanges:
        asked_ns = now_ns + wait_ns
        told_ns = asked_ns + there_ns
        remote_ns = told_ns + offset_ns + round(told_ns * drift)
        now_ns = told_ns + back_ns
        if bounds is None:
            bounds = Bounds(now_ns, remote_ns - now_ns, remote_ns - asked_ns)
        else:
            bounds = bounds.narrowed(asked_ns, remote_ns, now_ns)
    assert bounds is not None
    return bounds


@given(offset_ns=st.integers(-(10**17), 10**17), drift_share=st.floats(-1, 1), exchanges=delays)
def test_the_truth_lies_within_the_uncertainty(
    offset_ns: int, drift_share: float, exchanges: list[tuple[int, int, int]]
) -> None:
    drift = drift_share * MOST_DRIFT
    bounds = after(offset_ns, drift, exchanges)
    truth_ns = offset_ns + bounds.at_ns * drift
    # A bound is stretched for drift from the time it was heard; until then it may be off by what drifts in a way.
    slack_ns = 2 + 50_000_000 * MOST_DRIFT * 2
    assert abs(bounds.offset_ns - truth_ns) <= bounds.uncertainty_ns + slack_ns


@given(there_ns=st.integers(1, 10**6), back_ns=st.integers(1, 10**6), slow_ns=st.integers(0, 10**9))
def test_the_fastest_ways_need_not_be_of_one_exchange(there_ns: int, back_ns: int, slow_ns: int) -> None:
    """Each exchange is slow one way; together they tell as much as one that is fast both ways."""
    bounds = after(7, 0.0, [(there_ns, back_ns + slow_ns, 0), (there_ns + slow_ns, back_ns, 0)])
    widened_ns = (there_ns + back_ns + 2 * slow_ns) * MOST_DRIFT * 2 + 4
    assert bounds.uncertainty_ns <= (there_ns + back_ns) / 2 + widened_ns


def test_a_clock_that_was_set_meanwhile_is_compared_anew() -> None:
    bounds = Bounds(0, 100, 200).narrowed(asked_ns=1000, remote_ns=1_000_000, heard_ns=1010)
    assert (bounds.low_ns, bounds.high_ns) == (1_000_000 - 1010, 1_000_000 - 1000)


def test_few_nodes_are_one_group_and_many_are_groups_of_their_square_root() -> None:
    assert [group_size(nodes) for nodes in (1, 2, 64)] == [1, 2, 64]
    assert group_size(65) == 9
    assert group_size(1250) == 36
    for nodes in range(65, 3000, 7):
        size = group_size(nodes)
        assert (size - 1) ** 2 < nodes <= size**2
