"""Ranks announce objects in rounds, each at its own pace, and leave together; prints what each has heard."""

import sys
import time

import numpy as np

from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE, Kind, announcements
from kvbench.cluster.comm import get_world
from kvbench.cluster.exchange import DirectoryExchange, Saying


def main() -> None:
    """`announcing.py OBJECTS`: rank r announces OBJECTS x r objects, a few in each round."""
    comm = get_world()
    left = [
        (1000 * comm.rank + number, 5, 1, comm.rank, 0, Kind.WRITTEN) for number in range(int(sys.argv[1]) * comm.rank)
    ]
    heard = np.empty(0, ANNOUNCEMENT_DTYPE)
    numbers: list[int] = []

    def say(number: int) -> Saying:
        some, left[:] = left[:3], left[3:]
        news = announcements(some) if some else np.empty(0, ANNOUNCEMENT_DTYPE)
        return Saying(news, number - 1, not left)

    exchange = DirectoryExchange(comm, first_round=1)
    polls = 0
    while not exchange.over:
        done = exchange.poll(say)
        if done is not None:
            numbers.append(done.number)
            assert done.settled == done.number - 1, "every rank had taken in the round before"
            assert done.last == exchange.over
            heard = np.concatenate([heard, done.news])
        polls += 1
        time.sleep(0.0005 * (1 + comm.rank))
    assert numbers == list(range(1, len(numbers) + 1))
    in_order = all(
        (np.diff(heard["key"][heard["rank"] == rank].astype(np.int64)) == 1).all() for rank in range(comm.size)
    )
    print(
        f"{len(numbers)} rounds, {len(heard)} announcements, sum {int(heard['key'].sum())}, in order {in_order}",
        flush=True,
    )


main()
