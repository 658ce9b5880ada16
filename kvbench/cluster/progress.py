"""Live counters of all ranks, and the common end of the measured phase.

What travels: about once a second, the sum over all ranks of a short vector of integers (MPI's non-blocking allreduce),
driven by polling from the main thread; the workers never wait for it. At 10 000 ranks: about 2 x 14 small messages a
rank and second. The sum advances at each poll, so poll at least every 50 ms; it is then complete after at most some
30 polls.

Every rank takes part in the same number of exchanges: a rank that is finished goes on until the sum says that all are.
A rank's wish to stop (a failure, Ctrl-C) reaches everybody with the next exchange.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import Communicator, Pending

_SHORT_INTERVAL_S: Final = 0.05
_FLAGS: Final = 2


@dataclass(frozen=True)
class Aggregate:
    """The sum over all ranks of what each had when the exchange started."""

    totals: npt.NDArray[np.int64]
    finished: int
    """Ranks that are finished."""
    stopping: int
    """Ranks that ask everybody to stop."""
    last: bool
    """All ranks are finished: this was the last exchange, on every rank."""


class ProgressExchange:
    """One rank's part in the repeated sum of `width` counters. Making one is collective.

    It has a communicator of its own, so other messages may travel meanwhile. `interval_s` lies between the starts of
    two exchanges; once a rank is finished or stops it is at most 50 ms. `now_s` is the clock.
    """

    def __init__(
        self, comm: Communicator, width: int, interval_s: float = 1.0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._comm = comm.Dup()
        self._interval_s = interval_s
        self._now_s = now_s
        self._started_s = now_s()
        self._hurry = False
        self._finished = False
        self._stop = False
        self._sent = np.zeros(_FLAGS + width, np.int64)
        self._summed = np.zeros(_FLAGS + width, np.int64)
        self._request: Pending | None = None
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the last exchange is done; `poll` then does nothing."""
        return self._over

    def poll(self, local: npt.NDArray[np.int64], finished: bool = False, stop: bool = False) -> Aggregate | None:
        """Move the exchange on, without waiting; the sum when one has just been completed.

        `local`: this rank's counters (`width`), taken when an exchange starts. `finished` and `stop` stay set once they
        were. Call it until it returns an Aggregate that is `last`.
        """
        self._finished |= finished
        self._stop |= stop
        if self._over:
            return None
        if self._request is None:
            hurry = self._hurry or self._finished or self._stop
            interval_s = min(self._interval_s, _SHORT_INTERVAL_S) if hurry else self._interval_s
            if self._now_s() - self._started_s < interval_s:
                return None
            self._started_s = self._now_s()
            self._sent[:_FLAGS] = self._finished, self._stop
            self._sent[_FLAGS:] = local
            self._request = self._comm.Iallreduce(self._sent, self._summed)
        if not self._request.Test():
            return None
        self._request = None
        ranks_finished, stopping = int(self._summed[0]), int(self._summed[1])
        self._hurry = ranks_finished > 0 or stopping > 0
        self._over = ranks_finished == self._comm.size
        if self._over:
            self._comm.Free()
        return Aggregate(self._summed[_FLAGS:].copy(), ranks_finished, stopping, self._over)
