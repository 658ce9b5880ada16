"""How many bytes a run needs, before anyone runs it: storage and memory, per rank, per node and in all.

The same forecast that a run makes of itself; only the storage's speed and the other ranks' nodes are assumed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console

from kvbench.cluster.comm import get_world
from kvbench.cluster.node import describe_node
from kvbench.cluster.places import first_alike
from kvbench.cluster.topology import Seat
from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.console import make_table
from kvbench.errors import KvbenchError
from kvbench.run.addresses import address_of, placeholders
from kvbench.run.checks.forecast import (
    HIGHEST_BYTES_PER_S,
    Demand,
    MemoryNeed,
    arena_bytes,
    forecast_demand,
    memory_need,
)
from kvbench.run.checks.sizes import FREE_SPACE_SHARE, live_bytes_within, process_bytes
from kvbench.run.output.spill_files import SpillOrder, SpillPlace, find_place
from kvbench.run.planning.figures import Planned
from kvbench.run.planning.planned import plan_of
from kvbench.run.planning.print import print_bad_lines, print_moved
from kvbench.tiers.kinds import target_of
from kvbench.tiers.target import Target, Volume
from kvbench.units import GIB, format_bytes
from kvbench.workload.build import build_schedule, check_groups, own_part, trace_parts
from kvbench.workload.traces import load_trace

_UNLIMITED = 2**62
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class LookedAt:
    """A directory of some ranks of a node."""

    directory: str
    filesystem: Volume
    sharing_ranks: int
    """Ranks of the node whose directories are on the same filesystem."""


@dataclass(frozen=True, slots=True)
class DataSize:
    """What the run needs; rank 0 stands for all ranks, with its part of the gathering counted once."""

    ranks: int
    nodes: int
    ranks_per_node: int
    demand: Demand
    memory: MemoryNeed
    """Of rank 0."""
    storage_capacity_bytes: int | None
    """Of a rank's storage tier; None where it follows the free space of a directory that was not given."""
    assumed_gib_per_s: float | None
    """What bounds the number of requests, where they follow completions."""
    spill: SpillPlace | None
    """Where the spill files lie; None: there are none."""
    looked_at: tuple[LookedAt, ...] = ()
    """Where ranks have directories of their own: those of a node's ranks."""
    plan: Planned | None = None
    """Where requests are served as an engine does it: what `kvbench plan` says, of all ranks."""

    @property
    def spill_bytes(self) -> int:
        """Of a rank's spill file."""
        return 0 if self.spill is None else self.demand.spill_bytes

    @property
    def memory_per_node(self) -> int:
        """Of the node with rank 0."""
        return self._memory_of(self.ranks_per_node)

    @property
    def memory_in_all(self) -> int:
        return self._memory_of(self.ranks)

    def _memory_of(self, ranks: int) -> int:
        """Of rank 0 and others, with their spill files where those lie in memory."""
        files = self.spill_bytes if self.spill is not None and self.spill.filesystem.in_memory else 0
        return self.memory.total + (ranks - 1) * (self.memory.total - self.memory.gathering) + ranks * files

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, for JSON."""
        content = asdict(replace(self, spill=None, plan=None))
        del content["plan"]
        if not self.looked_at:
            del content["looked_at"]
        return content | {
            "spill": None if self.spill is None else str(self.spill.directory),
            "spill_per_rank_bytes": self.spill_bytes,
            "spill_per_node_bytes": self.spill_bytes * self.ranks_per_node,
            "spill_in_all_bytes": self.spill_bytes * self.ranks,
            "memory_per_rank_bytes": self.memory.total,
            "memory_per_node_bytes": self.memory_per_node,
            "memory_in_all_bytes": self.memory_in_all,
            "storage_per_rank_bytes": self.demand.peak_storage_bytes,
            "storage_per_node_bytes": self.demand.peak_storage_bytes * self.ranks_per_node,
            "storage_in_all_bytes": self.demand.peak_storage_bytes * self.ranks,
            **({} if self.plan is None else {"plan": self.plan.as_dict()}),
        }


def estimate(
    config: RunConfig,
    ranks: int,
    nodes: int,
    given: str | None,
    gib_per_s: float | None,
    spill: SpillOrder | None = None,
) -> DataSize:
    """The size of a run of `ranks` on `nodes` nodes like this one.

    `given` is the directory under test as for a run, looked at for capacities that are `auto`, and for where spill
    files may lie; `gib_per_s` is what a rank moves at most; `spill` is as for a run. Raises KvbenchError.
    """
    if nodes > ranks:
        raise KvbenchError(f"{ranks} ranks cannot run on {nodes} nodes: give at least one rank for each")
    check_groups(config, ranks)
    # So that the memory of the MPI library counts, and of HDF5, which rank 0 has.
    get_world()
    import_module("kvbench.records.file")
    ranks_per_node = -(-ranks // nodes)
    trace = None
    if config.serves_as_engine and isinstance(config.workload, TraceWorkload):
        # Read once, as it may be a pipe: what is planned for all ranks is of the same requests.
        trace = load_trace(config.workload)
        dealt = next(trace_parts(trace, config.workload, ranks // config.tensor_parallel))
        schedule = build_schedule(config, 0, ranks, own_part(config, dealt, 0))
    else:
        schedule = build_schedule(config, 0, ranks)
    seats = [] if given is None else [Seat(n, n, 0) for n in range(ranks_per_node)]
    targets = [target_of(config, address_of(given or "", seat)) for seat in seats]
    own = given is not None and bool(placeholders(given))
    looked_at = _look_at(targets) if own else ()
    capacity: int | None = None
    if config.has_target:
        wanted = config.tiers[-1].capacity_bytes
        if wanted != "auto":
            capacity = wanted
        elif targets:
            first = _look_at(targets)[0]
            if first.filesystem.tells_space:
                share = int(first.filesystem.free_bytes * FREE_SPACE_SHARE) // first.sharing_ranks
                capacity = live_bytes_within(config.tiers[-1].layout, share)
    sizes = [_UNLIMITED if tier.usable_bytes == "auto" else tier.usable_bytes for tier in config.tiers]
    if capacity is not None:
        sizes[-1] = capacity
    demand = forecast_demand(config, schedule, sizes, HIGHEST_BYTES_PER_S if gib_per_s is None else gib_per_s * GIB)
    arena = arena_bytes(config, describe_node().llc_bytes, ranks_per_node)
    place = find_place(spill or SpillOrder(), targets)
    spilled = place is not None or config.records != "full"
    # A rank does not keep the whole trace when it has its part.
    process = process_bytes() - (0 if trace is None else sum(array.nbytes for array in trace.to_arrays()[0]))
    memory = memory_need(config, demand, arena, process, ranks, gathers=True, spilled=spilled)
    bounded = (HIGHEST_BYTES_PER_S / GIB if gib_per_s is None else gib_per_s) if demand.at_most else None
    plan = None
    if config.serves_as_engine:
        plan = plan_of(config, trace, ranks, [None if size == _UNLIMITED else size for size in sizes])
    return DataSize(ranks, nodes, ranks_per_node, demand, memory, capacity, bounded, place, looked_at, plan)


def _look_at(targets: Sequence[Target]) -> tuple[LookedAt, ...]:
    """Each of the targets of a node's ranks once, in their order. Raises KvbenchError."""
    volumes = {}
    for target in targets:
        if target.address not in volumes:
            try:
                volumes[target.address] = target.describe()
            except OSError as error:
                raise KvbenchError(f"cannot look at {target.address}: {error.strerror}") from error
    alike = first_alike(targets)
    sharing = {target.address: alike.count(first) for target, first in zip(targets, alike, strict=True)}
    return tuple(LookedAt(address, volume, sharing[address]) for address, volume in volumes.items())


def print_size(size: DataSize, console: Console) -> None:
    """Print `size` as two tables."""
    demand, most = size.demand, "at most " if size.demand.at_most else ""
    in_all = f"in all ({size.ranks} rank{'s' * (size.ranks > 1)}, {size.nodes} node{'s' * (size.nodes > 1)})"
    table = make_table(("", "per rank", "per node", in_all), lines=HEAVY_HEAD)
    storage = demand.peak_storage_bytes
    factors = (1, size.ranks_per_node, size.ranks)
    table.add_row(f"storage, {most}", *(format_bytes(storage * n) for n in factors))
    table.add_row(
        "memory at its peak", *map(format_bytes, (size.memory.total, size.memory_per_node, size.memory_in_all))
    )
    table.add_row(f"written to storage, {most}", *(format_bytes(demand.written_bytes * n) for n in factors))
    table.add_row(f"read from storage, {most}", *(format_bytes(demand.read_bytes * n) for n in factors))
    if size.spill is not None:
        table.add_row(f"spill files, {most}", *(format_bytes(size.spill_bytes * n) for n in factors))
    console.print("Bytes that the run needs", style="italic")
    console.print(table)
    parts = ", ".join(f"{name.replace('_', ' ')} {format_bytes(n)}" for name, n in _parts(size.memory) if n)
    console.print(f"A rank's memory: {parts} (gathering: rank 0 alone).", highlight=False)
    console.print(
        f"A rank: {most}{demand.requests} requests, {demand.operations} operations, "
        f"largest object {format_bytes(demand.largest_object_bytes)}.",
        highlight=False,
    )
    if size.plan is not None:
        print_bad_lines(size.plan.bad_lines, size.plan.first_bad_line, console)
        console.print(
            "What all ranks ask of each tier, decided as a run decides it (kvbench plan says more):", highlight=False
        )
        print_moved(size.plan, console)
    if size.assumed_gib_per_s is not None:
        console.print(
            "How many requests there are depends on the storage; a rank was assumed to move "
            f"{size.assumed_gib_per_s:g} GiB/s at most (--gib-per-s).",
            highlight=False,
        )
    if size.storage_capacity_bytes is not None:
        console.print(
            f"Capacity of a rank's storage tier: {format_bytes(size.storage_capacity_bytes)}.", highlight=False
        )

    if size.looked_at:
        _print_looked_at(size.looked_at, console)
    if size.spill is None:
        console.print("There are no spill files: records stay in memory.", highlight=False)
        return
    in_memory = ", which is memory, and counts as such for a node" if size.spill.filesystem.in_memory else ""
    text = f"Spill files on this node: {size.spill.directory} ({size.spill.filesystem.kind}){in_memory}."
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _print_looked_at(looked_at: Sequence[LookedAt], console: Console) -> None:
    shown = [
        f"{at.directory} ({at.filesystem.kind}, "
        + (f"{format_bytes(at.filesystem.free_bytes)} free" if at.filesystem.tells_space else "free space not told")
        + f", {at.sharing_ranks} {'rank' if at.sharing_ranks == 1 else 'ranks'})"
        for at in looked_at[:_MOST_SHOWN]
    ]
    more = [f"and {len(looked_at) - _MOST_SHOWN} more"] if len(looked_at) > _MOST_SHOWN else []
    text = "Directories of the ranks of the first node, as this one has them: " + ", ".join([*shown, *more])
    console.print(f"{text}; the first stands for all.", highlight=False, markup=False, soft_wrap=True)


def _parts(memory: MemoryNeed) -> list[tuple[str, int]]:
    return list(asdict(memory).items())
