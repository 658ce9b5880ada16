"""What a rank checks and builds before anything is measured: directories, capacities, memory, tiers.

Every function works for this rank alone and raises KvbenchError; agreeing on the result is the runner's business.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

import psutil
import xxhash

from kvbench.cluster.node import Filesystem, Node
from kvbench.config.run_config import RunConfig
from kvbench.engine.calibrate import delete_calibration_object, storage_read_gib_per_s, write_calibration_object
from kvbench.errors import KvbenchError
from kvbench.records.schema import Path, label
from kvbench.run.checks.forecast import MemoryNeed
from kvbench.tiers.arena import SECTOR_BYTES, Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.run_directory import other_rank
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.payload import Blank, Payload
from kvbench.units import MIB, format_bytes

FREE_SPACE_SHARE: Final = 0.95
"""Of the free space, what the file tiers of all ranks on a filesystem may take in all when their capacity is `auto`."""

MEMORY_SHARE: Final = 0.9
"""Of the memory available on a node, what its ranks may plan to use."""

UNTOLD_BYTES: Final = 2**62
"""Stands for the free space of a filesystem that does not tell it."""

_PROBE_BYTES: Final = MIB
_PATHS: Final = {label(path): path for path in Path}


@dataclass(frozen=True, slots=True)
class Storage:
    """The filesystem under test as one rank sees it."""

    directory: FilePath
    filesystem: Filesystem
    free_bytes: int
    """Free space at the start, before any rank wrote; UNTOLD_BYTES where the filesystem does not tell."""
    sharing_ranks: int
    """Ranks that use this filesystem, on whichever node."""


def file_tier_capacity(config: RunConfig, storage: Storage, largest_object_bytes: int, memory_left_bytes: int) -> int:
    """Bytes that this rank's file tier may hold. Raises KvbenchError when the filesystem has no room for it.

    `auto` is 95 % of the free space divided among the ranks that share it; on a filesystem that is memory, of the
    memory that the node's ranks leave (`memory_left_bytes`) if that is less.
    """
    wanted = config.tiers[-1].capacity_bytes
    where = f"{storage.directory} ({storage.filesystem.kind})"
    free = storage.free_bytes
    if wanted == "auto":
        if storage.filesystem.in_memory:
            free = max(0, min(free, memory_left_bytes))
        elif free == UNTOLD_BYTES:
            raise KvbenchError(f"{where} does not tell its free space: set capacity_bytes of the file tier")
        share = int(free * FREE_SPACE_SHARE) // storage.sharing_ranks // SECTOR_BYTES * SECTOR_BYTES
        if share < largest_object_bytes:
            raise KvbenchError(
                f"{where} has {format_bytes(free)} free for {storage.sharing_ranks} ranks, and the largest object is "
                f"{format_bytes(largest_object_bytes)}: free some space, or use a smaller model or context"
            )
        return share
    needed = wanted * storage.sharing_ranks
    if needed > free:
        raise KvbenchError(
            f"{where} has {format_bytes(free)} free, but capacity_bytes of {format_bytes(wanted)} for each of "
            f"{storage.sharing_ranks} ranks needs {format_bytes(needed)}: free some space or set a smaller capacity"
        )
    return wanted


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
    limit = memory_limit(node)
    if planned + files_bytes <= limit:
        return
    parts = {
        "arena": need.arena,
        "memory tiers": need.tiers,
        "records": need.records,
        "bookkeeping": need.bookkeeping,
        "whole entries for the numpy read path": need.read_path,
        "gathering": need.gathering,
        "its spill file on a filesystem in memory": spill_bytes,
    }
    text = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if size)
    files = f", files on a filesystem in memory {format_bytes(files_bytes)}" if files_bytes else ""
    raise KvbenchError(
        f"{'1 rank' if ranks == 1 else f'{ranks} ranks'} on {node.host} must have "
        f"{format_bytes(planned + files_bytes)} of memory, of which "
        f"{format_bytes(limit)} can be used (a rank: {text}{files}): run fewer ranks, or set smaller tiers, "
        "io.arena_bytes or io.threads"
    )


def memory_limit(node: Node) -> int:
    """Bytes that the ranks of a node may plan to use."""
    return int(node.memory_available_bytes * MEMORY_SHARE)


def build_tiers(config: RunConfig, capacities: Sequence[int], directory: FilePath) -> list[Tier]:
    """The tiers of the configuration, fastest first; the file tier keeps its objects in `directory`."""
    tiers: list[Tier] = []
    for tier, capacity in zip(config.tiers, capacities, strict=True):
        if tier.kind == "memory":
            tiers.append(MemoryTier(capacity, config.io.io_bytes))
        elif tier.kind == "null":
            tiers.append(NullTier())
        else:
            read_path, write_path = _PATHS[config.io.read_path], _PATHS[config.io.write_path]
            folder_of = other_rank if config.namespace == "shared" else None
            tiers.append(
                FileTier(directory, read_path, write_path, config.io.io_bytes, config.io.drop_page_cache, folder_of)
            )
    return tiers


def probe_paths(config: RunConfig, tier: Tier, arena: Arena, payload: Payload, filesystem: Filesystem) -> None:
    """Write and read one object with the configured paths. Raises KvbenchError naming the path that is refused."""
    nbytes = min(_PROBE_BYTES, arena.nbytes)
    where = f"{filesystem.kind} at {filesystem.mount_point}"
    try:
        write_calibration_object(tier, arena, payload, nbytes)
    except OSError as error:
        raise KvbenchError(
            f"write path {config.io.write_path} does not work on {where}: {os.strerror(error.errno or 0)}"
            + _advice(error, "io.write_path=buffered")
        ) from error
    try:
        storage_read_gib_per_s(tier, arena, nbytes, 0)
        delete_calibration_object(tier)
    except OSError as error:
        raise KvbenchError(
            f"read path {config.io.read_path} does not work on {where}: {os.strerror(error.errno or 0)}"
            + _advice(error, "io.read_path=buffered")
        ) from error


def process_bytes() -> int:
    """Resident memory of this process now."""
    resident: int = psutil.Process().memory_info().rss
    return resident


def make_payload(config: RunConfig, run: int) -> Payload:
    """What is written and checked in this run; nothing where a tier does not keep it. `run` stands in the stamps."""
    return Payload(config.payload.kind, run, config.seed) if config.keeps_bytes else Blank(run, config.seed)


def make_arena(nbytes: int, threads: int, payload: Payload) -> Arena:
    """The rank's arena. Raises KvbenchError when the node refuses the memory."""
    try:
        return Arena(nbytes, threads, payload.body)
    except (MemoryError, OSError) as error:
        raise KvbenchError(
            f"cannot take {format_bytes(nbytes)} of memory for the arena: set a smaller io.arena_bytes"
        ) from error


def block_device(filesystem: Filesystem) -> str | None:
    """Name of the block device that the kernel counts a filesystem's traffic under, None where there is none."""
    name = os.path.basename(os.path.realpath(filesystem.device))
    return name if filesystem.device.startswith("/dev/") and os.path.exists(f"/sys/class/block/{name}") else None


def _advice(error: OSError, alternative: str) -> str:
    if error.errno == errno.ENOSPC:
        return "; free some space there"
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV):
        return f"; this filesystem refuses it, use --set {alternative}"
    return ""


def run_number(run_id: str, rank: int) -> int:
    """32 bits that stand for the run and the rank in the stamps: ranks that store the same block store different bytes,
    so that a target which removes duplicates finds none between them."""
    return int(xxhash.xxh32_intdigest(f"{run_id}/{rank}".encode()))
