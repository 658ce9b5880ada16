"""What a rank checks and builds before anything is measured: directories, capacities, memory, tiers.

Every function works for this rank alone and raises KvbenchError; agreeing on the result is the runner's business.
"""

import errno
from collections.abc import Iterable

import xxhash

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Blank, Payload
from kvbench.tiers.target import Volume
from kvbench.tiers.trial import try_out
from kvbench.units import format_bytes


def check_paths(config: RunConfig, tier: Tier, volume: Volume) -> None:
    """Write and read one object with the configured paths. Raises KvbenchError naming the path that is refused."""
    trouble = try_out(tier)
    if trouble is not None:
        path = config.io.write_path if trouble.op == "write" else config.io.read_path
        raise KvbenchError(
            f"{trouble.op} path {path} does not work on {volume.kind} at {volume.mount_point}: {trouble.reason}"
            + _advice(trouble.error, f"io.{trouble.op}_path=buffered")
        ) from trouble.error


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


def disks_of(volumes: Iterable[Volume]) -> tuple[str, ...]:
    """The block devices that volumes lie on, each once."""
    return tuple(dict.fromkeys(disk for volume in volumes if (disk := volume.disk) is not None))


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
