"""From a configuration to one rank's schedule, and the digest that says whether two schedules ask for the same."""

import itertools
from collections.abc import Callable, Hashable, Iterator
from itertools import islice

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvbench.config.roles import Roles
from kvbench.config.run_config import ReferenceWorkload, RunConfig, SessionsWorkload, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.arrival_times import retimed
from kvbench.workload.disaggregated import DecodeSchedule, Handover, Lanes, PrefillSchedule
from kvbench.workload.personas import PersonaSchedule
from kvbench.workload.reference import ReferenceSchedule
from kvbench.workload.request import Request, Schedule
from kvbench.workload.sessions import made_part
from kvbench.workload.trace_schedule import TraceSchedule, deal
from kvbench.workload.traces import Trace, load_trace


def build_schedule(config: RunConfig, rank: int, size: int, trace_part: Trace | None = None) -> Schedule:
    """The schedule of `rank` among `size` ranks.

    `trace_part` is this rank's part of the trace, where another rank has read and dealt it (`trace_parts`); without it
    the trace is read and dealt here. Sessions are made here, whatever the number of ranks. Raises KvbenchError.
    """
    if isinstance(config.workload, SessionsWorkload):
        return TraceSchedule(config, sessions_part(config, rank) if trace_part is None else trace_part)
    if isinstance(config.workload, ReferenceWorkload):
        return ReferenceSchedule(config, rank)
    if not isinstance(config.workload, TraceWorkload):
        return PersonaSchedule(config, rank)
    if trace_part is None:
        trace = load_trace(config.workload)
        group = rank // config.tensor_parallel
        dealt = deal(trace, size // config.tensor_parallel, config.workload.deal)[group]
        trace_part = own_part(config, trace.take(dealt), group)
    return TraceSchedule(config, trace_part)


def own_part(config: RunConfig, dealt: Trace, rank: int) -> Trace:
    """What `rank` makes of its part of the trace: its sessions begin when the configuration says. Raises KvbenchError
    where the trace lacks what is asked of it."""
    if config.pacing.mode == "closed" and not (dealt.session >= 0).any() and len(dealt):
        raise KvbenchError(
            f"pacing.mode: a rank's part of {dealt.source} has no sessions, whose turns could wait for answers: "
            "use open or asap"
        )
    return retimed(config, dealt, rank)


def sessions_part(config: RunConfig, rank: int) -> Trace:
    """What `rank` makes up where the workload is sessions; so many ranks as serve together make up the same. Raises
    KvbenchError."""
    group = rank // config.tensor_parallel
    return own_part(config, made_part(config, group), group)


def check_groups(config: RunConfig, ranks: int) -> None:
    """Raise KvbenchError where so many ranks are no groups that serve together."""
    if ranks % config.tensor_parallel:
        raise KvbenchError(
            f"tensor_parallel: {config.tensor_parallel} ranks serve requests together, and there are {ranks}: start a "
            "multiple of that"
        )


def trace_parts(trace: Trace, workload: TraceWorkload, size: int, roles: Roles | None = None) -> Iterator[Trace]:
    """The parts of ranks 0 to `size` - 1 (`dealt`), made one at a time so that they need not all be held at once."""
    return (trace.take(positions) for positions in dealt(trace, workload, size, roles))


def dealt(
    trace: Trace, workload: TraceWorkload, size: int, roles: Roles | None = None, together: int = 1
) -> Iterator[NDArray[np.int64]]:
    """Positions of the requests of ranks 0 to `size` - 1, rising. So many ranks as serve `together` have the same.

    With `roles` the trace is dealt twice: to the prefill ranks, and to the decode ranks by the request's number.
    """
    if roles is None:
        for positions in deal(trace, size // together, workload.deal):
            yield from itertools.repeat(positions, together)
        return
    prefill = dict(zip(roles.prefill, deal(trace, len(roles.prefill), workload.deal), strict=True))
    decoder = trace.number % len(roles.decode)
    for rank in range(size):
        if rank in prefill:
            yield prefill[rank]
        else:
            yield np.flatnonzero(decoder == roles.decode.index(rank))


def build_role_schedule(config: RunConfig, roles: Roles, rank: int, trace_part: Trace | None) -> Schedule:
    """The schedule of `rank` where ranks have roles; `trace_part` is its part of `trace_parts`. Raises KvbenchError."""
    if rank in roles.prefill:
        return PrefillSchedule(build_schedule(config, rank, 1, trace_part))
    if trace_part is not None:
        return DecodeSchedule(TraceSchedule(config, trace_part).largest_object_tokens())
    return DecodeSchedule(max(PersonaSchedule(config, prefill).largest_object_tokens() for prefill in roles.prefill))


def build_handover(config: RunConfig, roles: Roles, trace_part: Trace | None) -> Handover:
    """What a decode rank finds the requests by that it is handed; `trace_part` is its own part of the trace."""
    if trace_part is not None:
        requests = TraceSchedule(config, trace_part)
        return Handover(lambda rank, number: requests.request(number), lambda rank, number: number)
    schedules = {rank: PersonaSchedule(config, rank) for rank in roles.prefill}
    users = schedules[roles.prefill[0]].user_count

    def open_lane(lane: Hashable) -> Iterator[Request]:
        assert isinstance(lane, tuple)
        rank, user = lane
        return schedules[rank].requests_of(user)

    lanes = Lanes(lambda rank, number: (rank, number % users), open_lane)
    return Handover(lanes.find, lambda rank, number: number * len(roles.prefill) + roles.prefill.index(rank))


def decoder_of(config: RunConfig, roles: Roles, rank: int) -> Callable[[int], int]:
    """From the number of a request of prefill rank `rank` to the rank that decodes it."""
    if isinstance(config.workload, TraceWorkload | SessionsWorkload):
        return lambda number: roles.decode[number % len(roles.decode)]
    users = config.workload.users
    return lambda number: roles.decoder(rank, number % users, users)


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
    steps = (request.prompt_tokens,) if request.in_steps else ()
    if request.chain is not None:
        chain = request.chain
        rest = [chain.block_tokens, chain.stored, chain.time_ns]
        if chain.lookup != len(chain.keys):
            rest.append(chain.lookup)
        return repr((numbers, rest, xxhash.xxh3_64_hexdigest(chain.keys.astype("<u8").tobytes())))
    return repr((numbers + steps, objects))
