"""The turns of sessions in a rank's part of a trace: which follows which, and when an engine would expect the next."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig
from kvbench.workload.traces.trace import Trace


class Turns:
    """Of n requests."""

    def __init__(self, part: Trace) -> None:
        order = np.argsort(part.session, kind="stable")
        same = (part.session[order][1:] == part.session[order][:-1]) & (part.session[order][1:] >= 0)
        earlier, later = order[:-1][same], order[1:][same]
        self.next: NDArray[np.int64] = np.full(len(part), -1, np.int64)
        """(n,) The position of the turn that follows; -1: none does."""
        self.next[earlier] = later
        self.first: NDArray[np.bool_] = np.ones(len(part), np.bool_)
        """(n,) Whether it is the first of its session, or of none."""
        self.first[later] = False
        self.distance_ns: NDArray[np.int64] = np.full(len(part), -1, np.int64)
        """(n,) From the arrival of the turn before; -1: there is none."""
        self.distance_ns[later] = part.arrival_ns[later] - part.arrival_ns[earlier]
        self.gap_ns: NDArray[np.int64] = np.where(part.gap_ns >= 0, part.gap_ns, self.distance_ns)
        """(n,) From the answer before; where that is not known, as if answers took no time; -1: there is none."""


class Rows(NamedTuple):
    """What a rank decides on, in order (n): requests, and prefetches among them."""

    position: NDArray[np.int64]
    """Of the request in the part of the trace; of a prefetch that of the turn whose blocks the next is expected to
    need."""
    prefetch: NDArray[np.bool_]
    time_ns: NDArray[np.int64]
    """By the clock of the trace; never falls."""

    def at(self, which: "slice | NDArray[np.int64] | NDArray[np.bool_]") -> "Rows":
        """Some of them."""
        return Rows(self.position[which], self.prefetch[which], self.time_ns[which])


def rows_of(config: RunConfig, part: Trace) -> Rows:
    """Of all of `part`. A next turn is expected as long after a turn as that came after the one before it, and its
    blocks are brought up `cache.prefetch_lead_s` earlier, but not before the turn; where it has come by then, there is
    no prefetch. A session that is over is not known to be."""
    arrival_ns = part.arrival_ns
    requests = Rows(np.arange(len(part)), np.zeros(len(part), np.bool_), arrival_ns)
    if config.cache.prefetch == "none":
        return requests
    turns, lead_ns = Turns(part), round(config.cache.prefetch_lead_s * 1e9)
    position = np.flatnonzero(turns.distance_ns >= 0)
    time_ns = arrival_ns[position] + np.maximum(0, turns.distance_ns[position] - lead_ns)
    following = turns.next[position]
    due = (following < 0) | (arrival_ns[following] > time_ns)
    prefetches = Rows(position, np.ones(len(position), np.bool_), time_ns).at(due)
    joined = Rows(
        np.concatenate([requests.position, prefetches.position]),
        np.concatenate([requests.prefetch, prefetches.prefetch]),
        np.concatenate([requests.time_ns, prefetches.time_ns]),
    )
    return joined.at(np.argsort(joined.time_ns, kind="stable"))
