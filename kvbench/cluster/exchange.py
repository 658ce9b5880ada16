"""The rounds in which ranks that share one key space tell each other what they wrote and what they will delete.

What travels, in each round: 24 bytes from every rank to every rank (MPI's non-blocking allgather), and, where any rank
has news, 32 bytes for each announcement of any rank to every rank (allgatherv). Both are driven by polling from the
main thread; workers never wait for them, and nothing travels inside a timed span by their doing. A rank's pause between
two rounds grows with the number of ranks, to keep the idle cost of rounds bounded: 1 ms up to 100 ranks, 100 ms at
10 000, where a round's headers are 240 KB into every rank, 2.4 MB a second, and 1 million announcements a second of all
ranks together would be 32 MB a second into every rank. Taking them in costs about 1 us of processor time each, and a
rank remembers 80 bytes for each object that any other has (both measured): that is what bounds it, not the network.

Every rank takes part in the same number of rounds, whose common numbers order what was said: what a rank begins after
it has taken in round n was decided knowing everything that was said up to round n.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE, Announcements
from kvbench.cluster.comm import Communicator, Pending, flatten

_SHORTEST_PAUSE_S: Final = 1e-3
_PAUSE_PER_RANK_S: Final = 1e-5
_HEADER: Final = 3
_NEWS, _SETTLED, _FINISHED = range(_HEADER)


def round_pause_s(ranks: int) -> float:
    """Seconds from the start of a round to the start of the next, at least."""
    return max(_SHORTEST_PAUSE_S, ranks * _PAUSE_PER_RANK_S)


@dataclass(frozen=True, slots=True)
class Saying:
    """What one rank has to say in a round that is about to begin."""

    news: Announcements
    settled: int
    """The last round that this rank has taken in and that nothing which runs here was begun before."""
    finished: bool
    """It will say no more."""


@dataclass(frozen=True, slots=True)
class Round:
    """One completed round, the same on every rank."""

    number: int
    news: Announcements
    """Of all ranks, each rank's in its own order."""
    settled: int
    """Every rank has taken in this round, and nothing runs on any that was begun before."""
    finished: npt.NDArray[np.bool_]
    """Per rank: it has no more to say."""

    @property
    def last(self) -> bool:
        """All ranks are finished: there is no further round."""
        return bool(self.finished.all())


class DirectoryExchange:
    """One rank's part in the rounds. Making one is collective; it has a communicator of its own."""

    def __init__(self, comm: Communicator, first_round: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """`first_round` is the number of the first round, the same on every rank."""
        self._comm = comm.Dup()
        self._number = first_round
        self._now_s = now_s
        self._pause_s = round_pause_s(comm.size)
        self._started_s = 0.0
        self._mine = np.zeros(_HEADER, np.int64)
        self._headers = np.zeros((comm.size, _HEADER), np.int64)
        self._outgoing = np.empty(0, ANNOUNCEMENT_DTYPE)
        self._incoming = np.empty(0, ANNOUNCEMENT_DTYPE)
        self._gathering: Pending | None = None
        self._news: Pending | None = None
        self.over = False
        """The last round is done; `poll` then does nothing."""

    @property
    def under_way(self) -> bool:
        """A round has begun on this rank: poll soon, as others wait for it."""
        return self._gathering is not None or self._news is not None

    def poll(self, say: Callable[[int], Saying]) -> Round | None:
        """Move the round on, without waiting; the round when it has just been completed.

        When a round starts, `say(number)` gives what this rank has to say in it.
        """
        if self.over:
            return None
        if not self.under_way:
            if self._now_s() - self._started_s < self._pause_s:
                return None
            self._begin(say(self._number))
        if self._gathering is not None:
            if not self._gathering.Test():
                return None
            self._gathering = None
            self._gather_news()
        if self._news is not None and not self._news.Test():
            return None
        self._news = None
        done = Round(
            self._number, self._incoming, int(self._headers[:, _SETTLED].min()), self._headers[:, _FINISHED] != 0
        )
        self._number += 1
        self.over = done.last
        if self.over:
            self._comm.Free()
        return done

    def _begin(self, saying: Saying) -> None:
        self._started_s = self._now_s()
        self._outgoing = np.ascontiguousarray(saying.news)
        self._mine[:] = len(saying.news), saying.settled, saying.finished
        self._gathering = self._comm.Iallgather(self._mine, self._headers)

    def _gather_news(self) -> None:
        counts = self._headers[:, _NEWS] * ANNOUNCEMENT_DTYPE.itemsize
        self._incoming = np.empty(int(counts.sum()) // ANNOUNCEMENT_DTYPE.itemsize, ANNOUNCEMENT_DTYPE)
        if len(self._incoming):
            self._news = self._comm.Iallgatherv(flatten(self._outgoing), (flatten(self._incoming), counts.tolist()))
