"""The memory and capacities that a rank takes, in agreement with the other ranks of its node and filesystem."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import psutil

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import highest, lowest_of_group, total
from kvbench.cluster.node import Node
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import Layout, RunConfig
from kvbench.errors import KvbenchError
from kvbench.run.checks.forecast import Demand, MemoryNeed, arena_bytes, forecast_demand, memory_need
from kvbench.run.checks.surroundings import Surroundings
from kvbench.tiers.file.buckets import capacity_within, room_bytes
from kvbench.tiers.target import Volume
from kvbench.units import SECTOR_BYTES, format_bytes
from kvbench.workload.request import Schedule

FREE_SPACE_SHARE: Final = 0.95
"""Of the free space, what the file tiers of all ranks on a filesystem may take in all when their capacity is `auto`."""


MEMORY_SHARE: Final = 0.9
"""Of the memory available on a node, what its ranks may plan to use."""


UNTOLD_BYTES: Final = 2**62
"""Stands for the free space of a filesystem that does not tell it."""


@dataclass(frozen=True, slots=True)
class Storage:
    """What is under test as one rank sees it."""

    address: str
    volume: Volume
    free_bytes: int
    """Free space at the start, before any rank wrote; UNTOLD_BYTES where the filesystem does not tell."""
    sharing_ranks: int
    """Ranks that have the same place, on whichever node."""


def file_tier_capacity(config: RunConfig, storage: Storage, largest_object_bytes: int, memory_left_bytes: int) -> int:
    """Bytes that this rank's file tier may hold. Raises KvbenchError when the filesystem has no room for it.

    `auto` is 95 % of the free space divided among the ranks that share it; on a filesystem that is memory, of the
    memory that the node's ranks leave (`memory_left_bytes`) if that is less.
    """
    wanted, layout = config.tiers[-1].capacity_bytes, config.tiers[-1].layout
    where = f"{storage.address} ({storage.volume.kind})"
    free = storage.free_bytes
    if wanted == "auto":
        if storage.volume.in_memory:
            free = max(0, min(free, memory_left_bytes))
        elif free == UNTOLD_BYTES:
            raise KvbenchError(
                f"{where} does not tell its free space: set capacity_bytes of the {config.tiers[-1].kind} tier"
            )
        share = int(free * FREE_SPACE_SHARE) // storage.sharing_ranks // SECTOR_BYTES * SECTOR_BYTES
        share = live_bytes_within(layout, share)
        if share < largest_object_bytes:
            raise KvbenchError(
                f"{where} has {format_bytes(free)} free for {storage.sharing_ranks} ranks, and the largest object is "
                f"{format_bytes(largest_object_bytes)}{_garbage_too(layout)}: free some space, or use a smaller model "
                "or context"
            )
        return share
    needed = room_of(layout, wanted) * storage.sharing_ranks
    if needed > free:
        raise KvbenchError(
            f"{where} has {format_bytes(free)} free, but capacity_bytes of {format_bytes(wanted)} for each of "
            f"{storage.sharing_ranks} ranks needs {format_bytes(needed)}{_garbage_too(layout)}: free some space or set "
            "a smaller capacity"
        )
    return wanted


def room_of(layout: Layout, live_bytes: int) -> int:
    """What `live_bytes` of objects take on the filesystem at most, as they lie there."""
    return room_bytes(live_bytes, layout.bucket_bytes, layout.garbage) if layout.kind == "bucket" else live_bytes


def live_bytes_within(layout: Layout, room: int) -> int:
    """How many bytes of objects `room` bytes of the filesystem are enough for."""
    return capacity_within(room, layout.bucket_bytes, layout.garbage) if layout.kind == "bucket" else room


def _garbage_too(layout: Layout) -> str:
    if layout.kind != "bucket":
        return ""
    return f" (with {layout.garbage * 100:g} % garbage and two buckets of {format_bytes(layout.bucket_bytes)})"


def check_buckets(layout: Layout, largest_object_bytes: int) -> None:
    """Raise KvbenchError where an object is larger than a bucket."""
    if layout.kind == "bucket" and largest_object_bytes > layout.bucket_bytes:
        raise KvbenchError(
            f"layout.bucket_bytes: the largest object is {format_bytes(largest_object_bytes)}, and a bucket "
            f"{format_bytes(layout.bucket_bytes)}: set larger buckets, or store smaller objects (cache.layout=block)"
        )


def planned_bytes(need: MemoryNeed) -> int:
    """What a rank will take in addition to what its process holds already."""
    return need.total - need.process


def check_memory(
    node: Node, ranks: int, planned: int, files_bytes: int, need: MemoryNeed, spill_bytes: int = 0
) -> None:
    """Raise KvbenchError when the `ranks` of a node plan for more memory than it has left.

    `planned` is what they plan together; `files_bytes` what their file tiers take on a filesystem in memory; `need` is
    this rank's part of `planned`, for the message, with `spill_bytes` of its spill file if that lies in memory.
    """
    parts = {
        "arena": need.arena,
        "memory tiers": need.tiers,
        "records": need.records,
        "bookkeeping": need.bookkeeping,
        "whole entries for the numpy read path": need.read_path,
        "gathering": need.gathering,
        "payload": need.payload,
        "sample and histograms": need.digest,
        "requests in flight": need.requests,
        "its spill file on a filesystem in memory": spill_bytes,
        "files on a filesystem in memory": files_bytes,
    }
    advice = "run fewer ranks, or set smaller tiers, io.arena_bytes or io.threads"
    refuse_beyond_limit(node, ranks, planned + files_bytes, parts, advice)


def refuse_beyond_limit(node: Node, ranks: int, needed: int, parts: Mapping[str, int], advice: str) -> None:
    """Raise KvbenchError with `advice` when the `ranks` of a node need more bytes of memory together than they may use;
    `parts` are of what one rank needs, by name."""
    limit = memory_limit(node)
    if needed > limit:
        text = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
        raise KvbenchError(
            f"{'1 rank' if ranks == 1 else f'{ranks} ranks'} on {node.host} must have {format_bytes(needed)} of "
            f"memory, of which {format_bytes(limit)} can be used (a rank: {text}): {advice}"
        )


def memory_limit(node: Node) -> int:
    """Bytes that the ranks of a node may plan to use."""
    return int(node.memory_available_bytes * MEMORY_SHARE)


def process_bytes() -> int:
    """Resident memory of this process now."""
    resident: int = psutil.Process().memory_info().rss
    return resident


@dataclass(frozen=True, slots=True)
class Sizes:
    """The memory and capacities that this rank takes."""

    arena_bytes: int
    capacities: tuple[int, ...]
    """Of the tiers, fastest first."""
    need: MemoryNeed
    spill_bytes: int
    """What this rank's spill file may need; 0 where there is none."""


def plan_sizes(
    topology: Topology,
    agreement: Agreement,
    config: RunConfig,
    schedule: Schedule,
    around: Surroundings,
    fills: bool = False,
) -> Sizes:
    """Arena, capacities and memory of this rank, in agreement with the other ranks of its node. `fills`: all of the
    capacity is written full, whatever the schedule asks for."""
    free_bytes = around.volume.free_bytes if around.volume.tells_space else UNTOLD_BYTES
    roles = config.role_ranks
    # Decode ranks write nothing; that all nodes share the filesystem was checked.
    writers = around.group.ranks if roles is None else len(roles.prefill)
    storage = Storage(around.target.address, around.volume, free_bytes, writers)

    def plan() -> tuple[Demand, int, MemoryNeed]:
        demand = forecast_demand(config, schedule, _capacities(config, storage.free_bytes // storage.sharing_ranks))
        arena = arena_bytes(config, around.node.llc_bytes, topology.local_size)
        spilled = around.spill is not None or config.records != "full"
        gathers = topology.rank == 0
        return demand, arena, memory_need(config, demand, arena, process_bytes(), topology.size, gathers, spilled)

    demand, arena, need = agreement.run("check", plan, computes=True)
    in_memory = around.volume.in_memory and config.has_target
    spill_bytes = demand.spill_bytes if around.spill is not None else 0
    spilled = spill_bytes if around.spill is not None and around.spill.filesystem.in_memory else 0
    planned, in_memory_ranks = total(topology.node_comm, planned_bytes(need) + spilled, in_memory)
    # Of what is left, the part of the ranks that are on this filesystem: those on others in memory have theirs.
    left = (memory_limit(around.node) - planned) * storage.sharing_ranks // max(1, in_memory_ranks)

    def size() -> Sizes:
        check_memory(around.node, topology.local_size, planned, 0, need, spilled)
        if not config.has_target:
            return Sizes(arena, _capacities(config, 0), need, spill_bytes)
        largest = max(demand.largest_object_bytes, SECTOR_BYTES)
        check_buckets(config.tiers[-1].layout, largest)
        capacities = _capacities(config, file_tier_capacity(config, storage, largest, left))
        return Sizes(arena, capacities, need, spill_bytes)

    sizes = agreement.run("check", size)
    if config.has_target:
        # What is free, of the storage or of memory that it is in, each has seen at its own time.
        least = lowest_of_group(topology.comm, sizes.capacities[-1], around.group.first_rank)
        sizes = replace(sizes, capacities=(*sizes.capacities[:-1], least))
    if config.tensor_parallel > 1:
        # Ranks that serve together decide alike, as they have the same room.
        every = tuple(-highest(topology.comm, -capacity) for capacity in sizes.capacities)
        sizes = replace(sizes, capacities=every)
    layout = config.tiers[-1].layout
    made_ahead = layout.kind == "slab" or fills
    taken = sizes.capacities[-1] if made_ahead else min(sizes.capacities[-1], demand.peak_storage_bytes)
    if layout.kind == "bucket":
        # Garbage is of what was written, live or not; what is being moved is there twice.
        most = room_of(layout, taken)
        taken = most if fills else min(most, demand.written_bytes + layout.bucket_bytes)
    files = taken if in_memory else 0
    files = total(topology.node_comm, files)[0]
    agreement.run("check", lambda: check_memory(around.node, topology.local_size, planned, files, need, spilled))
    return sizes


def _capacities(config: RunConfig, storage_bytes: int) -> tuple[int, ...]:
    sizes = [storage_bytes if tier.usable_bytes == "auto" else tier.usable_bytes for tier in config.tiers]
    if config.has_target:
        sizes[-1] = min(sizes[-1], storage_bytes)
    return tuple(size // SECTOR_BYTES * SECTOR_BYTES for size in sizes)
