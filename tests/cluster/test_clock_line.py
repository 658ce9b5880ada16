"""Times of a node on rank 0's clock, from two readings."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvbench.records.clock import ClockReading, CommonClock

SECOND_NS = 10**9


def readings(offset_ns: int, drift_ns_per_s: int, start_ns: int, seconds: int) -> CommonClock:
    """A clock that is `offset_ns` ahead of rank 0's at `start_ns` (its own time) and gains `drift_ns_per_s`."""
    before = ClockReading(start_ns, offset_ns, 5, 9)
    after = ClockReading(start_ns + seconds * SECOND_NS, offset_ns + seconds * drift_ns_per_s, 7, 8)
    return CommonClock(before, after)


@given(
    offset_ns=st.integers(-(10**18), 10**18),
    drift_ns_per_s=st.integers(-100_000, 100_000),
    start_ns=st.integers(0, 10**17),
    seconds=st.integers(1, 36_000),
    at_s=st.integers(0, 36_000),
)
def test_times_are_exact_on_the_line_for_any_uptime(
    offset_ns: int, drift_ns_per_s: int, start_ns: int, seconds: int, at_s: int
) -> None:
    clock = readings(offset_ns, drift_ns_per_s, start_ns, seconds)
    local_ns = start_ns + at_s * SECOND_NS
    common_ns = local_ns - offset_ns - at_s * drift_ns_per_s
    assert abs(clock.to_common(local_ns) - common_ns) <= 1
    assert abs(clock.to_common(np.array([local_ns]))[0] - common_ns) <= 1
    assert abs(clock.to_local(common_ns) - local_ns) <= 1


def test_one_reading_alone_means_no_drift_and_the_larger_uncertainty_counts() -> None:
    clock = readings(100, 3, 0, 10)
    assert CommonClock(clock.before, clock.before).drift_ns_per_s == 0
    assert (clock.drift_ns_per_s, clock.uncertainty_ns, clock.worst_uncertainty_ns) == (3, 7, 9)
