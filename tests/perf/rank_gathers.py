"""Gathers made-up records of all ranks into a run file and prints, on rank 0, how fast that was as JSON."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import kvbench.commands.run  # noqa: F401 - all that a rank of a run imports, so that memory is that of one
from kvbench.cluster.broadcast import total
from kvbench.cluster.comm import get_world, quiet_barrier
from kvbench.cluster.gather import STRAIGHT, choose_gathering, gather_rows
from kvbench.cluster.node import peak_resident_bytes
from kvbench.cluster.topology import discover
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.schema import RECORD_DTYPE
from kvbench.run.output.run_file import open_output

_CHUNK_ROWS = 4096


def main() -> None:
    """Arguments: the run file, the records in all, and the ranks that stand for a node (none: gathered straight)."""
    out, rows = sys.argv[1], int(sys.argv[2])
    comm = get_world()
    gathering = STRAIGHT
    if len(sys.argv) > 3:
        node = comm.Split(comm.rank // int(sys.argv[3]), comm.rank)
        gathering = choose_gathering(discover(comm, node), "auto")
    mine = rows // comm.size + (comm.rank < rows % comm.size)
    writer = open_output(comm, Path(out), overwrite=True)
    received = [0]

    def sink(rank: int, part: npt.NDArray[np.void]) -> None:
        assert writer is not None
        received[0] += len(part)
        writer.append_records(part)

    quiet_barrier(comm)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.perf_counter()
    gather_rows(comm, made_up(comm.rank, mine), RECORD_DTYPE, sink, None, gathering)
    if writer is not None:
        writer.finish()
        elapsed_s = time.perf_counter() - start_s
        assert received[0] == rows
        figures = {
            "way": gathering.way,
            "seconds": elapsed_s,
            "rows_per_s": rows / elapsed_s,
            "gathering_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
            "peak_bytes": peak_resident_bytes(),
        }
        print(json.dumps(figures))
    total(comm, 0)


def made_up(rank: int, count: int) -> Iterator[npt.NDArray[np.void]]:
    """Records as a rank hands them over: chunk by chunk, brought to rank 0's clock."""
    reading = ClockReading(0, 5, 1, 1)
    clock = CommonClock(reading, reading)
    generator = np.random.default_rng(rank)
    template = np.zeros(_CHUNK_ROWS, dtype=RECORD_DTYPE)
    for column in ("wall_ns", "host_ns", "runq_ns", "device_ns"):
        template[column] = generator.integers(0, 10_000_000, len(template))
    template["rank"] = rank
    for first in range(0, count, _CHUNK_ROWS):
        rows = template[: count - first].copy()
        rows["t_start_ns"] = clock.to_common(np.arange(first, first + len(rows), dtype=np.int64) * 1000)
        yield rows


if __name__ == "__main__":
    main()
