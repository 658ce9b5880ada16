"""How many bytes a run needs, before anyone runs it: storage and memory, per rank, per node and in all.

The same forecast that a run makes of itself; only the storage's speed and the other ranks' nodes are assumed.
"""

from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.box import HEAVY_HEAD
from rich.console import Console

from kvbench.cluster.comm import get_world
from kvbench.cluster.node import describe_node
from kvbench.config.run_config import RunConfig
from kvbench.console import make_table
from kvbench.errors import KvbenchError
from kvbench.run.checks.forecast import (
    HIGHEST_BYTES_PER_S,
    Demand,
    MemoryNeed,
    arena_bytes,
    forecast_demand,
    memory_need,
)
from kvbench.run.checks.sizes import FREE_SPACE_SHARE, process_bytes
from kvbench.run.output.spill_files import SpillOrder, SpillPlace, find_place
from kvbench.tiers.kinds import target_of
from kvbench.units import GIB, format_bytes
from kvbench.workload.build import build_schedule

_UNLIMITED = 2**62


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
        return asdict(replace(self, spill=None)) | {
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
        }


def estimate(
    config: RunConfig,
    ranks: int,
    nodes: int,
    directory: Path | None,
    gib_per_s: float | None,
    spill: SpillOrder | None = None,
) -> DataSize:
    """The size of a run of `ranks` on `nodes` nodes like this one.

    `directory` is looked at for capacities that are `auto`, and for where spill files may lie; `gib_per_s` is what a
    rank moves at most; `spill` is as for a run. Raises KvbenchError.
    """
    if nodes > ranks:
        raise KvbenchError(f"{ranks} ranks cannot run on {nodes} nodes: give at least one rank for each")
    # So that the memory of the MPI library counts, and of HDF5, which rank 0 has.
    get_world()
    import_module("kvbench.records.file")
    ranks_per_node = -(-ranks // nodes)
    schedule = build_schedule(config, 0, ranks)
    capacity: int | None = None
    if config.has_target:
        wanted = config.tiers[-1].capacity_bytes
        if wanted != "auto":
            capacity = wanted
        elif directory is not None:
            try:
                volume = target_of(config, str(directory)).describe()
            except OSError as error:
                raise KvbenchError(f"cannot look at {directory}: {error.strerror}") from error
            if volume.tells_space:
                capacity = int(volume.free_bytes * FREE_SPACE_SHARE) // ranks_per_node
    sizes = [_UNLIMITED if tier.usable_bytes == "auto" else tier.usable_bytes for tier in config.tiers]
    if capacity is not None:
        sizes[-1] = capacity
    demand = forecast_demand(config, schedule, sizes, HIGHEST_BYTES_PER_S if gib_per_s is None else gib_per_s * GIB)
    arena = arena_bytes(config, describe_node().llc_bytes, ranks_per_node)
    place = find_place(spill or SpillOrder(), directory if directory is not None and directory.exists() else None)
    spilled = place is not None or config.records != "full"
    memory = memory_need(config, demand, arena, process_bytes(), gathered_ranks=ranks, spilled=spilled)
    bounded = (HIGHEST_BYTES_PER_S / GIB if gib_per_s is None else gib_per_s) if demand.at_most else None
    return DataSize(ranks, nodes, ranks_per_node, demand, memory, capacity, bounded, place)


def print_size(size: DataSize, console: Console) -> None:
    """Print `size` as two tables."""
    demand, most = size.demand, "at most " if size.demand.at_most else ""
    in_all = f"in all ({size.ranks} ranks, {size.nodes} nodes)"
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

    if size.spill is None:
        console.print("There are no spill files: records stay in memory.", highlight=False)
        return
    in_memory = ", which is memory, and counts as such for a node" if size.spill.filesystem.in_memory else ""
    text = f"Spill files on this node: {size.spill.directory} ({size.spill.filesystem.kind}){in_memory}."
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _parts(memory: MemoryNeed) -> list[tuple[str, int]]:
    return list(asdict(memory).items())
