"""What a rank checks and builds before anything is measured: directories, capacities, memory, tiers.

Every function works for this rank alone and raises KvbenchError; agreeing on the result is the runner's business.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Final

import xxhash

from kvbench.cluster.node import Filesystem
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.records.schema import Path, label
from kvbench.run.calibration import CalibrationObject
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.run_directory import other_rank
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.payload import Blank, Payload
from kvbench.units import MIB, format_bytes

_PROBE_BYTES: Final = MIB
_PATHS: Final = {label(path): path for path in Path}


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
    """Write and read one object with the configured paths. Raises KvbenchError naming the path that is refused, or the
    object that is not what was written."""
    nbytes = min(_PROBE_BYTES, arena.nbytes)
    where = f"{filesystem.kind} at {filesystem.mount_point}"
    tried = CalibrationObject(tier, arena, payload, nbytes, verify_full=True)
    try:
        tried.write()
    except OSError as error:
        raise KvbenchError(
            f"write path {config.io.write_path} does not work on {where}: {os.strerror(error.errno or 0)}"
            + _advice(error, "io.write_path=buffered")
        ) from error
    try:
        tried.read_gib_per_s(0)
        tried.delete()
    except OSError as error:
        raise KvbenchError(
            f"read path {config.io.read_path} does not work on {where}: {os.strerror(error.errno or 0)}"
            + _advice(error, "io.read_path=buffered")
        ) from error


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
