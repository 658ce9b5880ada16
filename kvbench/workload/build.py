"""From a configuration to one rank's schedule, and the digest that says whether two schedules ask for the same."""

from collections.abc import Iterator
from itertools import islice

import xxhash

from kvbench.config import RunConfig, TraceWorkload
from kvbench.workload.personas import PersonaSchedule
from kvbench.workload.request import Request, Schedule
from kvbench.workload.trace_schedule import TraceSchedule, deal
from kvbench.workload.traces import Trace, load_trace


def build_schedule(config: RunConfig, rank: int, size: int, trace_part: Trace | None = None) -> Schedule:
    """The schedule of `rank` among `size` ranks.

    `trace_part` is this rank's part of the trace, where another rank has read and dealt it (`trace_parts`); without it
    the trace is read and dealt here. Raises KvbenchError.
    """
    if not isinstance(config.workload, TraceWorkload):
        return PersonaSchedule(config, rank)
    if trace_part is None:
        trace = load_trace(config.workload)
        trace_part = trace.take(deal(trace, size, config.workload.deal)[rank])
    return TraceSchedule(config, trace_part)


def trace_parts(trace: Trace, workload: TraceWorkload, size: int) -> Iterator[Trace]:
    """The parts of ranks 0 to `size` - 1, made one at a time so that they need not all be held at once."""
    return (trace.take(positions) for positions in deal(trace, size, workload.deal))


def schedule_digest(schedule: Schedule, requests: int = 1000) -> str:
    """16 hex digits (xxh3) over the first `requests` requests, streams in turn, and as many preconditioned objects.

    Equal digests on two machines say that the same work was asked for as far as that.
    """
    digest = xxhash.xxh3_64()
    for ref in islice(schedule.preconditioning(), requests):
        digest.update(repr(tuple(ref)).encode())
    for request in islice(_interleaved(schedule), requests):
        digest.update(_text(request).encode())
    return digest.hexdigest()


def _interleaved(schedule: Schedule) -> Iterator[Request]:
    streams = [schedule.stream(user) for user in range(schedule.users)]
    while streams:
        going = []
        for stream in streams:
            request = next(stream, None)
            if request is not None:
                going.append(stream)
                yield request
        streams = going


def _text(request: Request) -> str:
    objects = [tuple(ref) for ref in (*request.history, *request.context)]
    numbers = (
        request.number,
        request.user,
        request.qos,
        request.arrival_ns,
        request.context_tokens,
        request.output_tokens,
        len(request.history),
        int(request.prefill),
        request.decode_passes,
        request.generation_ns,
    )
    return repr((numbers, objects))
