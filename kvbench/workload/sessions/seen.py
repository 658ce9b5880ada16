"""What a trace's sessions are seen to do from turn to turn: what grew, what was kept, where a context started over.

Only what is the same in all formats is used: lengths, times, and which blocks equal which. That some sessions are
subagents' is known of agentic conversations alone, whose own begin at their 0.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.trace import Trace

_SHRUNK: Final = 0.9
"""A context that has less than so much of the one before started over."""
_KEPT: Final = 0.5
"""One that is not shorter, and begins with less than so much of it, was written anew."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session, of n requests."""

    requests: NDArray[np.int64]
    """(n,) Positions in the trace."""
    context_tokens: NDArray[np.int64]
    """(n,)"""
    output_tokens: NDArray[np.int64]
    """(n,)"""
    gap_ns: NDArray[np.int64]
    """(n - 1,) Before each turn but the first: from the answer before, or where that is not known, from the turn."""
    kept_tokens: NDArray[np.int64]
    """(n,) Of each context, how many tokens it begins with that the one before has; 0 for the first."""
    subagent: bool

    @property
    def started_over(self) -> NDArray[np.bool_]:
        """(n - 1,) Whether the context of each turn but the first is much shorter than the one before."""
        found: NDArray[np.bool_] = self.context_tokens[1:] < _SHRUNK * self.context_tokens[:-1]
        return found

    @property
    def rewritten(self) -> NDArray[np.bool_]:
        """(n - 1,) Whether it is not, and yet begins with little of the one before."""
        found: NDArray[np.bool_] = ~self.started_over & (self.kept_tokens[1:] < _KEPT * self.context_tokens[:-1])
        return found

    @property
    def new_tokens(self) -> NDArray[np.int64]:
        """Of each turn but the first that did not start over: by how much it is longer than the context before and its
        answer, at least 1."""
        grown = self.context_tokens[1:] - self.context_tokens[:-1] - self.output_tokens[:-1]
        new: NDArray[np.int64] = np.maximum(1, grown[~self.started_over])
        return new


def sessions_of(trace: Trace) -> list[Session]:
    """The sessions of a trace, in order of their first requests. Raises KvbenchError where it has none, or no ids."""
    if not (trace.session >= 0).any():
        raise KvbenchError(f"{trace.source} has no sessions, so that no turns can be told: give a trace that has them")
    if not len(trace.hash_ids):
        raise KvbenchError(
            f"{trace.source} has no ids of blocks, so that nothing shared can be told: give a trace that has them"
        )
    order = np.argsort(trace.session, kind="stable")
    order = order[trace.session[order] >= 0]
    ends = np.flatnonzero(np.diff(trace.session[order])) + 1
    return [_session(trace, requests) for requests in np.split(order, ends)]


def common_blocks(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> int:
    """How many blocks two contexts both begin with."""
    shorter = min(len(left), len(right))
    differs = left[:shorter] != right[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


def _session(trace: Trace, requests: NDArray[np.int64]) -> Session:
    unit = trace.hash_block_tokens
    kept = [0] + [
        unit * common_blocks(trace.ids(before), trace.ids(after))
        for before, after in zip(requests[:-1].tolist(), requests[1:].tolist(), strict=True)
    ]
    context_tokens = trace.context_tokens[requests].astype(np.int64)
    gap_ns = trace.gap_ns[requests][1:]
    return Session(
        requests=requests,
        context_tokens=context_tokens,
        output_tokens=trace.output_tokens[requests].astype(np.int64),
        gap_ns=np.where(gap_ns >= 0, gap_ns, np.diff(trace.arrival_ns[requests])),
        kept_tokens=np.minimum(kept, context_tokens),
        subagent=trace.format == "agentic" and bool(trace.arrival_ns[requests[0]] > 0),
    )
