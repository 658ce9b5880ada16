"""Reads objects over and over on every rank of an MPI job and prints, on rank 0, what that gave as JSON.

Run under mpirun. Each rank writes its own objects, then all read at once for a given time with one thread, by the
tiers, the stopwatch and the row store that a run uses, without its dispatcher.
"""

import json
import resource
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kvbench import timed_io
from kvbench.cluster.broadcast import total
from kvbench.cluster.comm import get_world
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE
from kvbench.records.schema import Path as IoPath
from kvbench.tiers.arena import Arena, Memory
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import WHOLE, Cell, Part


@dataclass(frozen=True)
class Reads:
    """What to read; sizes in bytes."""

    directory: str
    read_path: str
    object_bytes: int
    objects: int
    io_bytes: int
    arena_bytes: int
    """0: land in one buffer of the object's size, over and over, as fio does."""
    seconds: float
    drop_page_cache: bool = False


def main() -> None:
    """Do what the JSON in the first argument says."""
    reads = Reads(**json.loads(sys.argv[1]))
    comm = get_world()
    with tempfile.TemporaryDirectory(dir=reads.directory) as own:
        read_path = IoPath[reads.read_path.upper().replace("-", "_")]
        tier = FileTier(Path(own), read_path, IoPath.BUFFERED, reads.io_bytes, reads.drop_page_cache)
        payload = Payload("stamped", 1, 1)
        arena = Arena(reads.arena_bytes or 256 * 1024**2, 1, payload.body)
        store = RowStore(RECORD_DTYPE)
        stop = np.zeros(1, dtype=np.int32)
        for key in range(reads.objects):
            _write(tier, arena, payload, Cell(*store.reserve(), stop), key, reads.object_bytes)
        buffer = np.zeros(reads.object_bytes + 4096, dtype=np.uint8)
        aligned = -buffer.ctypes.data % 4096
        fixed = Memory(buffer, np.array([[aligned, reads.object_bytes]], dtype=np.int64))
        comm.Barrier()
        start_ns = timed_io.now_ns()
        until_ns = start_ns + int(reads.seconds * 1e9)
        done = 0
        while timed_io.now_ns() < until_ns:
            key = done % reads.objects
            if reads.drop_page_cache:
                tier.prepare_read(key)
            cell = Cell(*store.reserve(), stop)
            if reads.arena_bytes:
                with arena.lease(reads.object_bytes) as lease:
                    tier.read(cell, key, WHOLE, lease.memory(key, reads.object_bytes, 0, reads.object_bytes))
            else:
                tier.read(cell, key, WHOLE, fixed)
            store.commit()
            done += 1
        elapsed_ns = timed_io.now_ns() - start_ns
        tier.close()
    rows = np.concatenate(store.views())
    wall_ns = int(rows["wall_ns"].sum())
    nbytes = done * reads.object_bytes
    sums = total(
        comm,
        int(nbytes / elapsed_ns * 1e6),
        int(nbytes / wall_ns * 1e6),
        wall_ns,
        int(rows["host_ns"].sum()),
        int(rows["runq_ns"].sum()),
        int(rows["device_ns"].sum()),
    )
    if comm.rank == 0:
        print(
            json.dumps(
                {
                    "gb_per_s": sums[0] / 1e6,
                    "gb_per_s_in_spans": sums[1] / 1e6,
                    "host_share": sums[3] / sums[2],
                    "runq_share": sums[4] / sums[2],
                    "device_share": sums[5] / sums[2],
                    "p95_us": float(np.percentile(rows["wall_ns"], 95) / 1e3),
                    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                }
                | asdict(reads)
            )
        )


def _write(tier: FileTier, arena: Arena, payload: Payload, cell: Cell, key: int, nbytes: int) -> None:
    tier.allocate(key, nbytes)
    with arena.lease(nbytes) as lease:
        handle = -1
        for offset in range(0, nbytes, lease.nbytes):
            length = min(lease.nbytes, nbytes - offset)
            source = lease.memory(key, nbytes, offset, length)
            payload.make(source, key, offset)
            part = Part(offset, offset == 0, offset + length == nbytes)
            handle = tier.write(cell, key, part, source, handle)


if __name__ == "__main__":
    main()
