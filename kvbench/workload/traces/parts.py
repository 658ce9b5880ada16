"""Parts of a trace that are traces themselves: some of its requests, or some of its sessions. Writes nothing."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.merge import merged
from kvbench.workload.traces.trace import Trace


def part_of(trace: Trace, positions: NDArray[np.int64]) -> Trace:
    """The requests at `positions`, which rise, as a trace of their own: its times and numbers begin at 0.

    What followed an answer of its session that is not in the part has no gap: that answer is not waited for.
    """
    part = trace.take(positions)
    before = _before_in_session(trace.session)[positions]
    before_here = _before_in_session(part.session)
    follows = (before_here >= 0) & (positions[before_here] == before)
    first_ns = part.arrival_ns[0] if len(part) else 0
    return merged(
        [replace(part, arrival_ns=part.arrival_ns - first_ns, gap_ns=np.where(follows, part.gap_ns, -1))], part.source
    )


def drawn_requests(trace: Trace, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Positions of `count` different requests, drawn with equal chances, rising. Raises KvbenchError where there are
    fewer."""
    if count > len(trace):
        raise KvbenchError(f"{trace.source} has {len(trace)} requests, fewer than {count}: ask for less")
    return np.sort(_drawn(len(trace), count, generator))


def drawn_sessions(trace: Trace, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Positions of all requests of `count` different sessions, drawn with equal chances, rising. Raises KvbenchError
    where there are fewer. Requests of no session are in none of them."""
    there = np.unique(trace.session[trace.session >= 0])
    if count > len(there):
        raise KvbenchError(
            f"{trace.source} has {len(there)} sessions, fewer than {count}: ask for less, or draw requests"
            if len(there)
            else f"{trace.source} has no sessions: draw requests"
        )
    return np.flatnonzero(np.isin(trace.session, there[_drawn(len(there), count, generator)]))


def between(trace: Trace, from_s: float | None, to_s: float | None) -> NDArray[np.int64]:
    """Positions of the requests that arrive from `from_s` on and before `to_s` (seconds; None: all that way)."""
    start = 0 if from_s is None else int(np.searchsorted(trace.arrival_ns, round(from_s * 1e9)))
    end = len(trace) if to_s is None else int(np.searchsorted(trace.arrival_ns, round(to_s * 1e9)))
    return np.arange(start, end)


def _drawn(size: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    # The same with every version of numpy: its bits are fixed, its distributions are not.
    return np.argsort(generator.random(size), kind="stable")[:count].astype(np.int64)


def _before_in_session(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) Position of the session's request before; -1 for its first, and without a session."""
    order = np.argsort(sessions, kind="stable")
    before = np.full(len(sessions), -1, np.int64)
    same = sessions[order[1:]] == sessions[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    before[sessions < 0] = -1
    return before
