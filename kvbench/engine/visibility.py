"""How long it takes until what one rank wrote can be read by another: a thread that looks for announced objects.

Of each object one rank looks, on another node than its writer's where there is one. It opens the file, and reads the
first and the last sector until both are there with their stamps. Time counts from the end of the write; what is
reported beside it is when the announcement was heard and the first look began. What a busy node makes the thread wait
for its turn is thus before that, and only what the filesystem takes is after it.
"""

import heapq
import mmap
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cache.announcements import Announcements, Kind
from kvbench.engine.sharing import Sharing
from kvbench.engine.violations import Violation, Violations
from kvbench.records.tables import VISIBILITY_DTYPE
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES
from kvbench.workload.keys import mixed

GIVE_UP_S: Final = 5.0
"""An object that is not there by then is counted as a violation, and no longer looked for."""

_LOOKS_PER_S: Final = 100.0
_MOST_WAITING: Final = 256
"""Objects that were not there at the first look."""
_FIRST_PAUSE_S: Final = 0.5e-3
_LONGEST_PAUSE_S: Final = 20e-3
_DRAWS: Final = 8


@dataclass(frozen=True, slots=True)
class _Announced:
    key: int
    nbytes: int
    writer: int
    written_ns: int


@dataclass(slots=True)
class _Wanted:
    """An object that is looked for."""

    announced: _Announced
    heard_ns: int = 0
    """Start of the first look."""
    looks: int = 0
    pause_s: float = _FIRST_PAUSE_S


def lookers(
    keys: npt.NDArray[np.uint64], writers: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The rank that looks for each object, the same on every rank; -1 for nobody, which is rare.

    `nodes` is the node of each rank. The looker is drawn by key among the ranks of other nodes than the writer's, or
    among all others on a single node.
    """
    chosen = np.full(len(keys), -1, np.int64)
    several = bool((nodes != nodes[0]).any())
    for attempt in range(_DRAWS):
        drawn = (mixed(keys + np.uint64(attempt)) % np.uint64(len(nodes))).astype(np.int64)
        fits = nodes[drawn] != nodes[writers] if several else drawn != writers
        chosen = np.where((chosen < 0) & fits, drawn, chosen)
    return chosen


class Looker:
    """Looks for objects of other ranks on `tier` from `start` to `stop`: at most 100 a second, and some of a backlog.

    `tier` holds this rank's objects on the shared storage, `payload_of(rank)` is what a rank writes.
    """

    def __init__(
        self,
        sharing: Sharing,
        tier: Tier,
        payload_of: Callable[[int], Payload],
        violations: Violations,
        most_rows: int,
    ) -> None:
        """At most `most_rows` results are kept: a uniform sample where there are more."""
        self._sharing = sharing
        self._tier = tier
        self._payload_of = payload_of
        self._violations = violations
        self._most_rows = most_rows
        self._rng = np.random.Generator(np.random.PCG64(sharing.rank))
        # No more than one: what waits behind a look that takes its time would not be looked at when it was heard of.
        self._waiting: queue.Queue[_Announced] = queue.Queue(1)
        self._rows: list[tuple[int, ...]] = []
        self.looked_for = 0
        """Objects that were looked for to the end."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvbench-looker", daemon=True)

    def start(self) -> None:
        """Begin to look for what is offered."""
        self._thread.start()

    def offer(self, news: Announcements) -> None:
        """Take what this rank is to look for out of a round; what there is no time for is left out."""
        written = news[news["kind"] == Kind.WRITTEN]
        writers = written["rank"].astype(np.int64)
        mine = written[lookers(written["key"], writers, self._sharing.nodes) == self._sharing.rank]
        for row in mine:
            nbytes = int(row["sectors"]) * SECTOR_BYTES
            announced = _Announced(int(row["key"]), nbytes, int(row["rank"]), int(row["t_ns"]))
            try:
                self._waiting.put_nowait(announced)
            except queue.Full:
                return

    def stop(self) -> npt.NDArray[np.void]:
        """End, and return what was found (VISIBILITY_DTYPE)."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        return np.array(self._rows, dtype=VISIBILITY_DTYPE)

    def _run(self) -> None:
        memory = mmap.mmap(-1, SECTOR_BYTES)
        target = Memory(np.frombuffer(memory, np.uint8), np.array([[0, SECTOR_BYTES]], np.int64))
        due: list[tuple[int, int, _Wanted]] = []
        order = count()
        next_new_ns = 0
        while not self._end.is_set():
            now_ns = timed_io.now_ns()
            wait_s = min(0.05, max(0.0, (due[0][0] - now_ns) / 1e9)) if due else 0.05
            with suppress(queue.Empty):
                announced = self._waiting.get(timeout=wait_s) if wait_s else self._waiting.get_nowait()
                now_ns = timed_io.now_ns()
                if now_ns >= next_new_ns and len(due) < _MOST_WAITING:
                    next_new_ns = now_ns + int(1e9 / _LOOKS_PER_S)
                    heapq.heappush(due, (now_ns, next(order), _Wanted(announced)))
            if due and due[0][0] <= timed_io.now_ns():
                wanted = heapq.heappop(due)[2]
                if not self._look(wanted, target):
                    again_ns = timed_io.now_ns() + int(wanted.pause_s * 1e9)
                    wanted.pause_s = min(2 * wanted.pause_s, _LONGEST_PAUSE_S)
                    heapq.heappush(due, (again_ns, next(order), wanted))

    def _look(self, wanted: _Wanted, target: Memory) -> bool:
        """Look once; whether there is no need to look again."""
        announced = wanted.announced
        tier = self._tier.of_rank(announced.writer)
        payload = self._payload_of(announced.writer)
        if wanted.looks == 0:
            wanted.heard_ns = timed_io.now_ns()
        wanted.looks += 1
        with suppress(OSError):
            ends = {0, announced.nbytes - SECTOR_BYTES}
            if all(self._is_there(tier, payload, announced.key, offset, target) for offset in ends):
                self._keep(wanted, timed_io.now_ns())
                return True
        if not self._sharing.peers.holds(announced.key, announced.writer):
            return True  # it is to be deleted meanwhile
        if timed_io.now_ns() - wanted.heard_ns < GIVE_UP_S * 1e9:
            return False
        self._keep(wanted, 0)
        text = f"{tier.where(announced.key)} of rank {announced.writer} was not there after {GIVE_UP_S:.0f} s"
        self._violations.note(
            Violation.UNSEEN, announced.writer, announced.key, announced.nbytes, timed_io.now_ns(), text
        )
        return True

    def _is_there(self, tier: Tier, payload: Payload, key: int, offset: int, target: Memory) -> bool:
        tier.inspect(key, offset, target)
        return payload.check_sampled(target, key, offset)[1] is None

    def _keep(self, wanted: _Wanted, readable_ns: int) -> None:
        """Keep the row, in place of a random one where there are as many as are kept (Vitter 1985, algorithm R)."""
        self.looked_for += 1
        announced = wanted.announced
        row = (
            announced.key,
            announced.nbytes,
            announced.writer,
            self._sharing.rank,
            int(self._sharing.locality(announced.writer)),
            announced.written_ns,
            wanted.heard_ns,
            readable_ns,
            wanted.looks,
        )
        if len(self._rows) < self._most_rows:
            self._rows.append(row)
            return
        place = int(self._rng.integers(self.looked_for))
        if place < self._most_rows:
            self._rows[place] = row
