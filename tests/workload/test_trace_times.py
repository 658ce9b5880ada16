"""Times of a trace that contradict each other: the fewest lines go, whichever they are."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.workload.traces import Trace, read_trace
from kvbench.workload.traces.times import in_order

HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
MOST_S = 2**40


def written(folder: Path, seconds: list[int]) -> Path:
    """A trace of requests at these times, whose numbers of tokens are their places from 1."""
    path = folder / "trace.csv"
    lines = [f"{second},GPT-4,{place},1,{place + 1},API log" for place, second in enumerate(seconds, start=1)]
    path.write_text("\n".join([HEADER, *lines]))
    return path


def read(folder: Path, seconds: list[int]) -> Trace:
    return read_trace(written(folder, seconds), skip_bad_lines=True)


@pytest.mark.parametrize("place", range(20))
@pytest.mark.parametrize("years", [1, 50, 1000])
def test_one_line_far_in_the_future_is_the_one_that_goes(tmp_path: Path, place: int, years: int) -> None:
    seconds = list(range(100, 120))
    seconds[place] = years * 366 * 86_400
    trace = read(tmp_path, seconds)
    # In order all the same, and within a century: the last line may be what it says.
    gone = 0 if place == 19 and years < 100 else 1
    assert (len(trace), trace.bad_lines) == (20 - gone, gone)
    if gone:
        assert place + 1 not in trace.context_tokens
        assert trace.first_bad_line.startswith(f"{tmp_path}/trace.csv, line {place + 2}: the timestamp is ")
    else:
        assert trace.first_bad_line == ""


@pytest.mark.parametrize("place", range(1, 20))
def test_one_line_far_in_the_past_is_the_one_that_goes(tmp_path: Path, place: int) -> None:
    seconds = list(range(10**9, 10**9 + 20))
    seconds[place] = 0
    trace = read(tmp_path, seconds)
    assert (len(trace), trace.bad_lines) == (19, 1)
    assert f"line {place + 2}: the timestamp goes back by 1e+09 s against the request before" in trace.first_bad_line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bad_times_push_out_no_more_good_requests_than_they_are(tmp_path: Path, data: st.DataObject) -> None:
    good = sorted(data.draw(st.lists(st.integers(10**9, 10**9 + 10**6), min_size=1, max_size=40)))
    seconds = list(good)
    # Most of a trace is right.
    for bad in data.draw(st.lists(st.integers(0, MOST_S), max_size=len(good) - 1)):
        seconds.insert(data.draw(st.integers(0, len(seconds))), bad)
    trace = read(tmp_path, seconds)
    assert len(trace) >= len(good)
    assert len(trace) + trace.bad_lines == len(seconds)
    assert (np.diff(trace.arrival_ns) >= 0).all()
    kept = [seconds[place - 1] for place in trace.context_tokens.tolist()]
    assert trace.arrival_ns.tolist() == [(second - kept[0]) * 10**9 for second in kept]
    assert trace.number.tolist() == list(range(len(trace)))
    assert trace.digest == read_trace(written(tmp_path, seconds), skip_bad_lines=True).digest


@given(times=st.lists(st.integers(-5, 5), max_size=9))
def test_no_choice_keeps_more_and_of_the_longest_one_is_kept_that_ends_earliest_with_the_earlier_lines(
    times: list[int],
) -> None:
    kept = in_order(np.array(times, np.int64)).tolist()
    choices = [[place for place in range(len(times)) if mask >> place & 1] for mask in range(1 << len(times))]
    rising = [choice for choice in choices if all(times[a] <= times[b] for a, b in pairwise(choice))]
    longest = max(map(len, rising))
    ends = [(times[choice[-1]] if choice else 0, choice) for choice in rising if len(choice) == longest]
    assert kept == min(ends)[1]


def test_a_trace_of_good_lines_is_the_same_whether_or_not_bad_ones_would_be_skipped(samples: dict[str, Path]) -> None:
    for path in samples.values():
        assert read_trace(path).digest == read_trace(path, skip_bad_lines=True).digest


def test_without_leave_to_skip_the_first_contradiction_ends_the_reading(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"line 4: the timestamp goes back by 999 s against the request before"):
        read_trace(written(tmp_path, [1, 1000, 1, 2]))
