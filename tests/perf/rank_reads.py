"""Reads objects over and over on every rank of an MPI job and prints, on rank 0, what that gave as JSON.

Run under mpirun. Each rank writes its own objects, which stay for the next time, then all read at once for a given time
with one thread, by the tiers, the stopwatch and the row store that a run uses, without its dispatcher. Where the figure
is compared with fio's, fio reads the very same files, and both read into memory of the same kind.
"""

import json
import mmap
import resource
import sys
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
    """0: land in one buffer of `io_bytes`, over and over, as fio's reads do."""
    seconds: float
    drop_page_cache: bool = False
    huge_pages: bool = False
    """Of that buffer. fio's is of small pages; an arena is of huge ones, where the node has them."""

    def folder(self, rank: int) -> Path:
        """Where the objects of a rank lie."""
        return Path(self.directory) / f"{self.object_bytes}-rank-{rank}"

    def files(self, rank: int) -> list[str]:
        """The files of a rank, in the order in which they are read."""
        suffix = "npy" if self.read_path in ("numpy", "double-copy") else "kv"
        return [str(self.folder(rank) / f"{key:016x}.{suffix}") for key in range(self.objects)]


def main() -> None:
    """Do what the JSON in the first argument says."""
    reads = Reads(**json.loads(sys.argv[1]))
    comm = get_world()
    folder = reads.folder(comm.rank)
    folder.mkdir(exist_ok=True)
    read_path = IoPath[reads.read_path.upper().replace("-", "_")]
    tier = FileTier(folder, read_path, IoPath.BUFFERED, reads.io_bytes, reads.drop_page_cache)
    payload = Payload("stamped", 1, 1)
    arena = Arena(reads.arena_bytes or 256 * 1024**2, 1, payload.body)
    store = RowStore(RECORD_DTYPE)
    stop = np.zeros(1, dtype=np.int32)
    for key, file in enumerate(reads.files(comm.rank)):
        tier.allocate(key, reads.object_bytes)
        if not Path(file).exists():
            _write(tier, arena, payload, Cell(*store.reserve(), stop), key, reads.object_bytes)
    one_buffer = _one_buffer(reads)
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
            tier.read(cell, key, WHOLE, one_buffer)
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


def _one_buffer(reads: Reads) -> Memory:
    """A buffer of `io_bytes` that every part of an object lands in."""
    memory = mmap.mmap(-1, max(reads.io_bytes, 2 * 1024**2), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE if reads.huge_pages else mmap.MADV_NOHUGEPAGE)
    buffer = np.frombuffer(memory, dtype=np.uint8)
    buffer[:] = 1
    lengths = [min(reads.io_bytes, reads.object_bytes - at) for at in range(0, reads.object_bytes, reads.io_bytes)]
    return Memory(buffer, np.array([(0, length) for length in lengths], dtype=np.int64))


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
