"""Counts polls until one rank asks for a stop; every rank must hear of it and leave at the same exchange."""

import time

import numpy as np

from kvbench.cluster.comm import get_world
from kvbench.cluster.progress import ProgressExchange


def main() -> None:
    """Work until told to stop, then finish at different times; rank 1 asks for the stop after its third exchange."""
    comm = get_world()
    progress = ProgressExchange(comm, width=2, interval_s=0.02)
    exchanges, heard, polls_since = 0, False, 0
    last_total = -1
    while not progress.over:
        stop = comm.rank == 1 and exchanges >= 3
        # Ranks finish one after the other, as slow operations end.
        finished = heard and polls_since > 100 * comm.rank
        aggregate = progress.poll(np.array([1, comm.rank], np.int64), finished, stop)
        polls_since += heard
        if aggregate is not None:
            exchanges += 1
            heard = heard or aggregate.stopping > 0
            last_total = int(aggregate.totals[1])
            assert aggregate.totals[0] == comm.size
            assert aggregate.last == (aggregate.finished == comm.size)
        time.sleep(0.0005)
    print(f"left after {exchanges} exchanges, total {last_total}, heard {heard}", flush=True)


main()
