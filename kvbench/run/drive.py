"""The main thread's part while the workers work: progress, interrupts, the common end."""

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import numpy as np

from kvbench import timed_io
from kvbench.cluster.oversubscription import pause_s
from kvbench.cluster.progress import ProgressExchange
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology
from kvbench.cluster.watch.watch import Watch
from kvbench.engine.engine import Load
from kvbench.engine.visibility import Looker
from kvbench.run.bench import Bench
from kvbench.run.counters import Counters, counters_width
from kvbench.run.groups import GroupRounds
from kvbench.run.shared_space import Rounds

if TYPE_CHECKING:
    from kvbench.run.live import View

DRAIN_S: Final = 1.5
"""After the end of the load, operations in flight may end by themselves for so long; then they are canceled."""


LAST_WORD_S: Final = 120.0
"""A canceled operation comes back after the system call under way; storage that keeps one for so long is given up."""


_POLL_S: Final = pause_s(0.02, 0.05)


_ENDING_POLL_S: Final = pause_s(0.001)
"""When a rank has little left to do: whoever was interrupted may have half a second. And where ranks share a key space:
what one wrote, others are to know soon."""


class Drive:
    """The main thread's part while the workers work: progress, interrupts, the common end."""

    def __init__(
        self, topology: Topology, bench: Bench, interrupt: Interrupt, watch: Watch, view: "View | None"
    ) -> None:
        self._topology = topology
        self._bench = bench
        self._interrupt = interrupt
        self._watch = watch
        self._view = view
        self.interrupted = False

    def until_done(self, load: Load, start_ns: int, end_ns: int | None, looker: Looker | None = None) -> bool:
        """Watch `load` until it has ended on every rank; returns whether it was stopped before its end on any."""
        engine = self._bench.engine
        tiers = len(self._bench.tiers)
        width = counters_width(tiers)
        exchange = ProgressExchange(self._topology.comm, width + 1)
        rounds = self._rounds(load, looker)
        local = np.zeros(width + 1, dtype=np.int64)
        duration_s = None if end_ns is None else (end_ns - start_ns) / 1e9
        stopped = False
        canceled_ns: int | None = None
        with (
            self._watch.exchange(),
            self._view or nullcontext(),
            self._bench.stream.read_by(lambda: Counters(engine.stores, tiers)) as counters,
        ):
            while not exchange.over or (rounds is not None and not rounds.over):
                now_ns = timed_io.now_ns()
                broken = bool(self._interrupt.seen or engine.failures)
                if broken or stopped:
                    load.stop()
                if broken or stopped or (end_ns is not None and now_ns > end_ns + int(DRAIN_S * 1e9)):
                    engine.cancel()
                    canceled_ns = canceled_ns or now_ns
                    if now_ns > canceled_ns + int(LAST_WORD_S * 1e9) and not load.finished:
                        self._watch.fail(
                            f"operations on {self._bench.area.address} have not come back for {LAST_WORD_S:g} s "
                            "after they were canceled: the storage does not answer"
                        )
                local[:width] = counters.update()
                local[width] = self._interrupt.seen
                aggregate = exchange.poll(local, finished=load.finished, stop=broken)
                self._watch.beat(aggregate is not None or exchange.over)
                if aggregate is not None:
                    stopped |= aggregate.stopping > 0
                    self.interrupted |= bool(aggregate.totals[width])
                    if self._view is not None:
                        self._view.show(aggregate.totals[:width], (now_ns - start_ns) / 1e9, duration_s)
                if rounds is not None:
                    rounds.poll()
                hurry = broken or stopped or load.finished or rounds is not None
                time.sleep(_ENDING_POLL_S if hurry else _POLL_S)
        load.close()
        return stopped

    def _rounds(self, load: Load, looker: Looker | None) -> Rounds | GroupRounds | None:
        """What ranks tell each other while the load runs; None: nothing. Collective."""
        if not load.serves:
            return None
        comm, sharing, together = self._topology.comm, self._bench.engine.sharing, self._bench.config.tensor_parallel
        if sharing is not None:
            return Rounds(comm, sharing, load, looker)
        return GroupRounds(comm, together, load) if together > 1 else None
