"""The measurement of a copy-path study: step after step, the ranks of all nodes in turns.

Between turns every rank meets all others: first to hear whether somebody was interrupted or failed (one sum of two
integers), then in a barrier just before the next turn. Early ranks sleep in both. Within a turn nothing is sent, and a
rank whose turn it is not sleeps. At 10 000 ranks that is some milliseconds between turns.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.agree import Agreement
from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import quiet_barrier, wait_quietly
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology
from kvbench.config.models import shipped_model
from kvbench.records.clock import CommonClock
from kvbench.records.tables import CALIBRATION_DTYPE, SAMPLE_DTYPE
from kvbench.run.build import disks_of
from kvbench.run.calibration import memory_copy_gib_per_s
from kvbench.run.outcome import Outcome
from kvbench.run.sampler import Sampler
from kvbench.studies.equipment import IO_BYTES, Stock
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import CopyLevel, StudyCell, StudyStep, takes_turn, turn_seconds, turns
from kvbench.studies.progress import StudyProgress
from kvbench.studies.reading import read_in_turn
from kvbench.studies.requirements import Place

if TYPE_CHECKING:
    from rich.console import Console

_BYSTANDER_PAUSE_S: Final = 0.1
_END_PAUSE_S: Final = 5e-3
"""Ranks that wait for the last request of a turn look so seldom, to leave the processors to those that read."""


@dataclass(frozen=True, slots=True)
class CellTime:
    """A cell that was measured to its end. Times on rank 0's clock, as rank 0 saw them."""

    cell: StudyCell
    order: int
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Measured:
    """What came of the measurement on this rank."""

    outcome: Outcome
    cells: Sequence[CellTime]
    copies: Sequence[tuple[CopyLevel, float]]
    """Memory copies of this rank, with their bandwidth in GiB/s."""
    verified_sectors: int


def measure(
    topology: Topology,
    agreement: Agreement,
    choices: CopyPathChoices,
    steps: Sequence[StudyStep],
    places: Sequence[Place],
    stock: Stock | None,
    interrupt: Interrupt,
    console: "Console",
) -> Measured:
    """Write the objects and carry out `steps` until they or the user's patience end. Collective.

    `stock` is None on a rank that takes no part. A failure in a step is in the outcome; one before them is raised as an
    agreement does.
    """
    agreement.run("write", lambda: stock.write() if stock is not None else None)
    interrupt.waits_for = "waiting for the turns of all ranks to end"
    before = read_clock(topology, timed_io.now_ns)
    measurement = _Measurement(topology, choices, stock, interrupt)
    sampler = None
    if topology.local_rank == 0:
        sampler = Sampler(topology.node, disks_of(place.filesystem for place in places))
        sampler.start()
    start_ns = timed_io.now_ns()
    with StudyProgress(console, "cell", len(steps)) as progress:
        for step in steps:
            if not measurement.carry_out(step):
                break
            if topology.rank == 0:
                progress.advance()
    samples = sampler.stop() if sampler else np.empty(0, SAMPLE_DTYPE)
    # Whoever was interrupted may have little time left: the clock is not read again.
    clock = CommonClock(before, before if measurement.ended else read_clock(topology, timed_io.now_ns))
    samples["t_ns"] = clock.to_common(samples["t_ns"])
    outcome = Outcome(
        clock=clock,
        measure_start_ns=clock.to_common(start_ns),
        interrupted=measurement.interrupted,
        failures=tuple(stock.failures) if stock is not None else (),
        samples=samples,
        calibration=np.empty(0, CALIBRATION_DTYPE),
    )
    return Measured(outcome, measurement.cells, measurement.copies, measurement.verified_sectors)


class _Measurement:
    """Carries out the steps on one rank, in step with all others."""

    def __init__(self, topology: Topology, choices: CopyPathChoices, stock: Stock | None, interrupt: Interrupt) -> None:
        self._topology = topology
        self._choices = choices
        self._stock = stock
        self._interrupt = interrupt
        self._bytes_per_token = shipped_model(choices.model).bytes_per_token
        self.cells: list[CellTime] = []
        self.copies: list[tuple[CopyLevel, float]] = []
        self.verified_sectors = 0
        self.interrupted = False
        self.ended = False

    def carry_out(self, step: StudyStep) -> bool:
        """All turns of `step`; False when the study was ended in it, and it does not count. Collective."""
        # Taken before the barrier: no rank is through it before this one is at it.
        start_ns = timed_io.now_ns()
        for turn in range(turns(step)):
            quiet_barrier(self._topology.comm)
            figure = self._work(step, turn)
            if self._hear():
                return False
            if figure is not None and isinstance(step, CopyLevel):
                self.copies.append((step, figure))
        if isinstance(step, StudyCell):
            self.cells.append(CellTime(step, len(self.cells), start_ns, timed_io.now_ns()))
        return True

    def _work(self, step: StudyStep, turn: int) -> float | None:
        """This rank's part of a turn; returns the bandwidth of a copy."""
        seconds = turn_seconds(step, self._choices)
        if self._stock is None or not takes_turn(step, turn, self._topology.local_rank):
            until_s = time.monotonic() + seconds
            while not self._interrupt.seen and (left_s := until_s - time.monotonic()) > 0:
                time.sleep(min(left_s, _BYSTANDER_PAUSE_S))
            return None
        if isinstance(step, CopyLevel):
            return memory_copy_gib_per_s(self._stock.arena, seconds, IO_BYTES, self._stock.stop)
        self.verified_sectors += read_in_turn(
            self._stock, step, seconds, self._bytes_per_token, lambda: self._interrupt.seen
        )
        return None

    def _hear(self) -> bool:
        """Whether any rank was interrupted or failed."""
        failed = self._stock is not None and bool(self._stock.failures)
        sums: npt.NDArray[np.int64] = np.zeros(2, dtype=np.int64)
        mine = np.array([self._interrupt.seen, failed], dtype=np.int64)
        wait_quietly(self._topology.comm.Iallreduce(mine, sums), _END_PAUSE_S)
        self.interrupted = bool(sums[0])
        self.ended = bool(sums.any())
        return self.ended
