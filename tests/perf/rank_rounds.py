"""Makes rounds of announcements between all ranks for some seconds and prints, on rank 0, what they took as JSON."""

import json
import sys
import time

import numpy as np

from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE, Kind, announcements
from kvbench.cluster.comm import get_world
from kvbench.cluster.exchange import DirectoryExchange, Saying, round_pause_s


def main() -> None:
    """Arguments: seconds, and announcements of each rank in each round."""
    seconds, each = float(sys.argv[1]), int(sys.argv[2])
    comm = get_world()
    news = announcements([(number, 0, 1, comm.rank, 0, Kind.WRITTEN) for number in range(each)])
    empty = np.empty(0, ANNOUNCEMENT_DTYPE)
    begun_s: dict[int, float] = {}
    took_s: list[float] = []
    heard = 0
    comm.Barrier()
    until_s = time.perf_counter() + seconds

    def say(number: int) -> Saying:
        begun_s[number] = time.perf_counter()
        finished = begun_s[number] > until_s
        return Saying(empty if finished else news, number - 1, finished)

    exchange = DirectoryExchange(comm, first_round=1)
    cpu_s, start_s = time.process_time(), time.perf_counter()
    while not exchange.over:
        done = exchange.poll(say)
        if done is not None:
            took_s.append(time.perf_counter() - begun_s.pop(done.number))
            heard += len(done.news)
        time.sleep(0.001)
    if comm.rank == 0:
        elapsed_s = time.perf_counter() - start_s
        figures = {
            "ranks": comm.size,
            "announcements_of_a_rank_and_round": each,
            "pause_ms": round_pause_s(comm.size) * 1e3,
            "rounds_per_s": len(took_s) / elapsed_s,
            "round_p50_ms": float(np.percentile(took_s, 50)) * 1e3,
            "round_p95_ms": float(np.percentile(took_s, 95)) * 1e3,
            "processor_share": (time.process_time() - cpu_s) / elapsed_s,
            "bytes_into_a_rank_per_round": comm.size * 24 + heard // len(took_s) * ANNOUNCEMENT_DTYPE.itemsize,
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
