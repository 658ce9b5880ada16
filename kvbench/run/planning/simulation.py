"""A whole run in simulated time: ranks that share a storage, from the first request to the last."""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig
from kvbench.records.schema import Op, label
from kvbench.records.storage_model import Times
from kvbench.run.planning.simulated_rank import Action, Clock, SimulatedRank
from kvbench.run.planning.stations import NEVER_NS, Station
from kvbench.workload.traces import Trace

UNCOUNTED: Final = frozenset((label(Op.DELETE), label(Op.LOOKUP)))
"""Operations that move nothing, and that others do not have beside them."""


@dataclass(frozen=True)
class Simulated:
    """What became of a run."""

    requests: NDArray[Any]
    """REQUEST_DTYPE rows of all ranks."""
    span_ns: int
    """From the start to the last event."""
    moved_bytes: Mapping[str, int]
    """On storage, by operation."""
    busy_share: float
    """Of that time, a storage had something in flight; the mean of storages."""
    most: Mapping[str, int]
    """By operation on storage: in flight at most when one began."""
    unknown: frozenset[str]
    """Operations on storage or memory that took no time, as none were measured."""


def simulate(
    config: RunConfig,
    parts: Sequence[Trace],
    capacities: Sequence[int | None],
    times: Mapping[str, Mapping[str, Times]],
    draw: int,
    storage_ranks: int,
    rng: np.random.Generator,
) -> Simulated:
    """Ranks with `parts` of a trace, `storage_ranks` of which share a storage (and memory) each. `times` are by
    station and kind, and `draw` says which of their estimates is taken."""
    clock, soon = Clock(), deque[Action]()
    group, of_group = config.tensor_parallel, -(-len(parts) // storage_ranks)
    shared = [
        {name: Station(times.get(name, {}), draw, UNCOUNTED, rng) for name in ("storage", "memory")}
        for _ in range(of_group)
    ]
    own = [Station(times.get("client", {}), draw, None, rng) for _ in parts]
    ranks = [
        SimulatedRank(
            config,
            number,
            part,
            capacities,
            shared[number // storage_ranks] | {"client": own[number]},
            clock,
            soon.append,
        )
        for number, part in enumerate(parts)
    ]
    stations = [station for of_one in shared for station in of_one.values()] + own
    first_own = len(stations) - len(own)
    of_rank_at = [(n // storage_ranks * 2, n // storage_ranks * 2 + 1, first_own + n) for n in range(len(ranks))]
    told, heap = [-1] * len(stations), list[tuple[int, int, int]]()

    def settle(touched: Iterable[int]) -> None:
        """Do what follows at once on these ranks, and note when the next thing happens there."""
        while soon:
            then, worker = soon.popleft()
            then(worker)
        if group > 1 and _tell_groups(ranks, group):
            touched = range(len(ranks))
            settle(())
        for number in touched:
            for at in of_rank_at[number]:
                station = stations[at]
                if station.version != told[at]:
                    told[at] = station.version
                    due_ns = station.next_ns()
                    if due_ns < NEVER_NS:
                        heapq.heappush(heap, (due_ns, at, station.version))
            due_ns = ranks[number].next_event_ns
            if due_ns < NEVER_NS:
                heapq.heappush(heap, (max(due_ns, clock.now_ns), -1 - number, 0))

    for rank in ranks:
        rank.poke()
    settle(range(len(ranks)))
    while heap:
        due_ns, at, version = heapq.heappop(heap)
        if at >= 0:
            if version != stations[at].version:
                continue
            clock.now_ns = max(clock.now_ns, due_ns)
            over = stations[at].end(clock.now_ns)
            for then, worker in over:
                then(worker)
            # One that ends late by a rounding is asked for again.
            settle({worker.rank for _, worker in over} or {_any_rank(of_rank_at, at)})
        else:
            rank = ranks[-1 - at]
            if rank.next_event_ns > due_ns:
                continue
            clock.now_ns = max(clock.now_ns, due_ns)
            rank.poke()
            settle((-1 - at,))
    return _outcome(ranks, shared, clock.now_ns)


def _any_rank(of_rank_at: Sequence[tuple[int, ...]], station: int) -> int:
    """A rank that has a station."""
    return next(number for number, own in enumerate(of_rank_at) if station in own)


def _tell_groups(ranks: Sequence[SimulatedRank], group: int) -> bool:
    """Ranks that serve together hear at once what each of them has loaded. Whether there was anything."""
    told = False
    for first in range(0, len(ranks), group):
        members = ranks[first : first + group]
        for numbers in filter(None, [rank.dispatcher.say_loaded() for rank in members]):
            told = True
            for rank in members:
                rank.dispatcher.loaded_together(numbers)
                rank.poke()
    return told


def _outcome(ranks: Sequence[SimulatedRank], shared: Sequence[Mapping[str, Station]], span_ns: int) -> Simulated:
    for rank in ranks:
        rank.close()
    moved: dict[str, int] = {}
    most: dict[str, int] = {}
    for rank in ranks:
        for op, nbytes in rank.moved_bytes.items():
            moved[op] = moved.get(op, 0) + nbytes
    for of_one in shared:
        for op, load in of_one["storage"].most().items():
            most[op] = max(most.get(op, 0), load)
    return Simulated(
        requests=np.concatenate([rank.rows() for rank in ranks]),
        span_ns=span_ns,
        moved_bytes=moved,
        busy_share=float(np.mean([of_one["storage"].busy_ns for of_one in shared])) / max(1, span_ns),
        most=most,
        unknown=frozenset(
            f"{kind} on {name}" for of_one in shared for name, station in of_one.items() for kind in station.unknown
        ),
    )
