"""Parts of a trace: what is drawn or cut out is a trace of its own."""

from pathlib import Path

import numpy as np
import pytest

from kvbench.errors import KvbenchError
from kvbench.workload.draws import stream_generator
from kvbench.workload.traces import Trace, read_trace
from kvbench.workload.traces.parts import between, drawn_requests, drawn_sessions, part_of


@pytest.fixture(scope="module")
def trace(samples: dict[str, Path]) -> Trace:
    """Requests of sessions, with gaps."""
    return read_trace(samples["kvbench"])


def test_all_of_a_trace_is_that_trace(samples: dict[str, Path]) -> None:
    for path in samples.values():
        trace = read_trace(path)
        assert part_of(trace, np.arange(len(trace))).digest == trace.digest


def test_a_part_begins_at_0_and_numbers_its_requests_and_sessions(trace: Trace) -> None:
    part = part_of(trace, np.array([7, 8, 12, 20]))
    assert part.number.tolist() == [0, 1, 2, 3]
    assert part.arrival_ns.tolist() == (trace.arrival_ns[[7, 8, 12, 20]] - trace.arrival_ns[7]).tolist()
    assert trace.session[[7, 8, 12, 20]].tolist() == [2, 3, 2, 0]
    assert part.session.tolist() == [0, 1, 0, 2]
    assert part.hash_counts.tolist() == trace.hash_counts[[7, 8, 12, 20]].tolist()


def test_a_gap_is_kept_only_where_the_answer_before_is_in_the_part(trace: Trace) -> None:
    # Of five sessions in turn: 12 follows 7, and 22 follows 17, which is not there.
    assert part_of(trace, np.array([7, 12, 22])).gap_ns.tolist() == [-1, 10**7, -1]


@pytest.mark.parametrize("count", [1, 17, 60])
def test_requests_are_drawn_once_each_and_the_same_by_the_same_seed(trace: Trace, count: int) -> None:
    drawn = drawn_requests(trace, count, stream_generator(5))
    assert len(drawn) == count
    assert (np.diff(drawn) > 0).all()
    assert drawn.tolist() == drawn_requests(trace, count, stream_generator(5)).tolist()


def test_another_seed_draws_others(trace: Trace) -> None:
    one, other = (drawn_requests(trace, 20, stream_generator(seed)).tolist() for seed in (1, 2))
    assert one != other


def test_sessions_are_drawn_whole(trace: Trace) -> None:
    drawn = drawn_sessions(trace, 2, stream_generator(5))
    sessions = set(trace.session[drawn].tolist())
    assert len(sessions) == 2
    assert drawn.tolist() == np.flatnonzero(np.isin(trace.session, list(sessions))).tolist()
    part = part_of(trace, drawn)
    assert sorted(set(part.session.tolist())) == [0, 1]
    assert (part.gap_ns == trace.gap_ns[drawn]).all()


def test_more_than_there_is_cannot_be_drawn(trace: Trace, samples: dict[str, Path]) -> None:
    generator = stream_generator(5)
    with pytest.raises(KvbenchError, match="has 60 requests, fewer than 61"):
        drawn_requests(trace, 61, generator)
    with pytest.raises(KvbenchError, match="has 5 sessions, fewer than 6"):
        drawn_sessions(trace, 6, generator)
    with pytest.raises(KvbenchError, match="has no sessions: draw requests"):
        drawn_sessions(read_trace(samples["azure"]), 1, generator)


def test_a_time_is_from_on_and_to_before(trace: Trace) -> None:
    # One request every 0.1 s.
    assert between(trace, 1.0, 1.5).tolist() == [10, 11, 12, 13, 14]
    assert between(trace, 5.8, None).tolist() == [58, 59]
    assert between(trace, None, 0.1).tolist() == [0]
    assert between(trace, 3, 2).tolist() == []
