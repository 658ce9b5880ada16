"""What was read from one file, or from several, as one trace: in order of time, numbered, and with its digest."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.workload.traces.id_store import NONE
from kvbench.workload.traces.times import LONGEST_S, LONGEST_YEARS
from kvbench.workload.traces.trace import Trace, trace_digest


def merged(parts: Sequence[Trace], source: str, hash_ids: NDArray[np.uint64] = NONE) -> Trace:
    """One trace of the `parts`, which are all of one format; requests of the same time stay in the order of the parts.

    `hash_ids`: where there are several parts, the ids of all of them, one part after the other; what stands in the
    parts is not looked at.

    A part's times count from its `origin_ns`: what files share is the clock, or each begins at its own 0. Raises
    KvbenchError where the parts cannot be of one trace.
    """
    trace = parts[0] if len(parts) == 1 else _joined(parts, hash_ids)
    trace = replace(
        trace, number=np.arange(len(trace)), session=_numbered(trace.session), source=source, digest="", origin_ns=0
    )
    return replace(trace, digest=trace_digest(trace))


def repeated(trace: Trace, cycles: int) -> Trace:
    """`trace` so many times, one after the other, as far apart as its requests are on average: the same blocks are
    asked for again, by other sessions."""
    requests, sessions = len(trace), int(trace.session.max(initial=-1)) + 1
    span_ns = int(trace.arrival_ns[-1])
    period_ns = span_ns + span_ns // max(1, requests - 1)
    cycle = np.repeat(np.arange(cycles), requests)
    again = trace.take(np.tile(np.arange(requests), cycles))
    return replace(
        again,
        number=np.arange(requests * cycles),
        arrival_ns=again.arrival_ns + cycle * period_ns,
        session=np.where(again.session < 0, -1, again.session + cycle * sessions),
    )


def _joined(parts: Sequence[Trace], hash_ids: NDArray[np.uint64]) -> Trace:
    first = parts[0]
    origin_ns = min(part.origin_ns for part in parts)
    for part in parts:
        if part.hash_block_tokens != first.hash_block_tokens:
            raise KvbenchError(
                f"{part.source} has blocks of {part.hash_block_tokens} tokens, but {first.source} of "
                f"{first.hash_block_tokens}: one trace has blocks of one size (read them apart)"
            )
        if part.origin_ns - origin_ns > LONGEST_S * 10**9:
            raise KvbenchError(
                f"{part.source} begins more than {LONGEST_YEARS} years after the first of these files: they share no "
                "clock (read them apart)"
            )
    arrival_ns = np.concatenate([part.arrival_ns + (part.origin_ns - origin_ns) for part in parts])
    counts = np.concatenate([part.id_counts for part in parts])
    bad = [part.first_bad_line for part in parts if part.first_bad_line]
    joined = replace(
        first,
        number=np.arange(len(arrival_ns)),
        arrival_ns=arrival_ns,
        context_tokens=np.concatenate([part.context_tokens for part in parts]),
        output_tokens=np.concatenate([part.output_tokens for part in parts]),
        hash_ids=hash_ids,
        hash_offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        session=np.concatenate([part.session for part in parts]),
        gap_ns=np.concatenate([part.gap_ns for part in parts]),
        answer_counts=np.concatenate([part.answer_counts for part in parts]),
        bad_lines=sum(part.bad_lines for part in parts),
        first_bad_line=bad[0] if bad else "",
        out_of_order=sum(part.out_of_order for part in parts),
    )
    return joined.take(np.argsort(arrival_ns, kind="stable"))


def _numbered(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) The sessions numbered from 0 in order of their first requests; -1 stays."""
    if not (sessions >= 0).any():
        return sessions
    members = np.flatnonzero(sessions >= 0)
    _, first, which = np.unique(sessions[members], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered = np.full(len(sessions), -1, np.int64)
    numbered[members] = rank[which]
    return numbered
