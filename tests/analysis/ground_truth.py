"""Records whose truth is known: operations that share a memory bandwidth, and nothing else slows them.

A worker moves one object after the other. While c operations are active, a byte of each costs `Sharing.cost(c)` ns of
host time. Operations run side by side in a simulation of events, so what a record holds follows from the sharing alone.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import STORAGE, SyntheticRun, run_attributes, run_tables

from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Path, Phase

START_NS = 1_000_000_000_000


@dataclass(frozen=True)
class Sharing:
    """A machine: one operation alone needs `alone_ns_per_byte`, and all of them share `bytes_per_ns` (GB/s)."""

    bytes_per_ns: float
    alone_ns_per_byte: float = 0.0

    def cost(self, active: float) -> float:
        """Host ns per byte of each of `active` operations."""
        return max(self.alone_ns_per_byte, active / self.bytes_per_ns)

    def factor(self, others: float) -> float:
        """The contention factor at a steady number of others."""
        return self.cost(1 + others) / self.cost(1)


@dataclass(frozen=True)
class Load:
    """`workers` of all ranks together are active for `ns`; each rests for about `rest_ns` after an operation."""

    workers: int
    ns: float
    rest_ns: float = 0.0


def simulate(
    rng: np.random.Generator,
    machine: Sharing,
    loads: Sequence[Load],
    *,
    sizes: tuple[int, int] = (200_000, 400_000),
    noise: float = 0.0,
    drift: float = 0.0,
) -> NDArray[Any]:
    """Rows (start_ns, wall_ns, nbytes, worker) of the loads, one after the other.

    `noise` is the deviation of the logarithm of an operation's cost, `drift` that of a whole load's.
    """
    rows: list[tuple[float, float, int, int]] = []
    begin = 0.0
    most = max((load.workers for load in loads), default=1)
    for number, load in enumerate(loads):
        slow = float(np.exp(drift * rng.standard_normal()))
        done = list(_side_by_side(rng, machine, load, sizes, noise, slow))
        # Every worker, and so every rank, has its turn at the loads of few workers.
        rows += [(begin + start, wall, size, (worker + number) % most) for start, wall, size, worker in done]
        begin = max((start + wall for start, wall, _, _ in rows), default=begin) + 1000
    found = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.round(found).astype(np.int64)


def _side_by_side(
    rng: np.random.Generator, machine: Sharing, load: Load, sizes: tuple[int, int], noise: float, slow: float
) -> Iterator[tuple[float, float, int, int]]:
    # `progress` is the bytes that an operation which was active all the time would have moved.
    now, progress = 0.0, 0.0
    active: list[tuple[float, int, float, int]] = []
    resting = [
        (float(rng.exponential(load.rest_ns)) if load.rest_ns else 0.0, worker) for worker in range(load.workers)
    ]
    heapq.heapify(resting)
    while active or resting:
        cost = machine.cost(len(active)) * slow
        finish = now + (active[0][0] - progress) * cost if active else float("inf")
        if resting and resting[0][0] <= finish:
            until, worker = heapq.heappop(resting)
            progress += (max(until, now) - now) / cost if active else 0.0
            now = max(until, now)
            if now < load.ns:
                size = int(rng.integers(*sizes, endpoint=True))
                effort = size * float(np.exp(noise * rng.standard_normal() - noise**2 / 2))
                heapq.heappush(active, (progress + effort, worker, now, size))
        else:
            progress, worker, start, size = heapq.heappop(active)
            now = finish
            yield start, now - start, size, worker
            rest = float(rng.exponential(load.rest_ns)) if load.rest_ns else 0.0
            heapq.heappush(resting, (now + rest, worker))


def shared_bandwidth_run(rows: NDArray[Any], *, ranks: int = 1, nodes: int = 1) -> SyntheticRun:
    """A run file's content of `rows` as `simulate` gives them: buffered storage reads without device time.

    Worker w belongs to rank w modulo `ranks`; with several nodes, each node's ranks hold a copy of all rows.
    """
    per_node = []
    for node in range(nodes):
        records = np.zeros(len(rows), RECORD_DTYPE)
        records["t_start_ns"] = rows[:, 0] + START_NS
        records["wall_ns"] = records["host_ns"] = records["span_ns"] = rows[:, 1]
        records["nbytes"] = rows[:, 2]
        records["rank"] = rows[:, 3] % ranks + node * ranks
        records["thread"] = rows[:, 3] // ranks
        records["op"], records["tier"], records["path"] = Op.READ, STORAGE, Path.BUFFERED
        records["phase"] = Phase.MEASURE
        per_node.append(records[np.argsort(records["rank"], kind="stable")])
    records = np.concatenate(per_node)
    requests = np.empty(0, REQUEST_DTYPE)
    end = int((records["t_start_ns"] + records["wall_ns"]).max()) if len(records) else START_NS
    attributes = run_attributes(ranks * nodes, nodes, measure_start_ns=START_NS, measure_end_ns=end)
    return SyntheticRun(records, requests, attributes, run_tables(records, requests, ranks * nodes, nodes))
