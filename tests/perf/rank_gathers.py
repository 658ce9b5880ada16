"""Gathers made-up records of all ranks into a run file and prints, on rank 0, how fast that was as JSON."""

import json
import resource
import sys
import time

import numpy as np

from kvbench.cluster.clock import ClockReading, CommonClock
from kvbench.cluster.comm import get_world
from kvbench.cluster.gather import gather_rows
from kvbench.records.file import RunFileWriter
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.rows import Rows


def main() -> None:
    """Arguments: the run file, and the records in all."""
    out, rows = sys.argv[1], int(sys.argv[2])
    comm = get_world()
    reading = ClockReading(0, 5, 1, 1)
    store = RowStore(RECORD_DTYPE, 4096)
    generator = np.random.default_rng(comm.rank)
    template = np.zeros(4096, dtype=RECORD_DTYPE)
    for column in ("wall_ns", "host_ns", "runq_ns", "device_ns"):
        template[column] = generator.integers(0, 10_000_000, len(template))
    template["rank"] = comm.rank
    for number in range(rows // comm.size):
        cells, row = store.reserve()
        if row == 0:
            cells[:] = template.view(np.uint8)
            cells.view(RECORD_DTYPE)["t_start_ns"] = np.arange(number, number + 4096) * 1000
        store.commit()
    mine = Rows([store], RowStore(REQUEST_DTYPE), CommonClock(reading, reading))
    writer = RunFileWriter(out, overwrite=True) if comm.rank == 0 else None
    comm.Barrier()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.perf_counter()
    gather_rows(
        comm, mine.record_chunks(), RECORD_DTYPE, lambda rank, part: writer.append_records(part) if writer else None
    )
    if writer is not None:
        writer.finish()
        elapsed_s = time.perf_counter() - start_s
        gathering = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(json.dumps({"rows_per_s": rows / elapsed_s, "gathering_bytes": gathering}))


if __name__ == "__main__":
    main()
