"""Figures that the ranks of a node measure one after the other, and then all at once.

What travels: empty barriers among the ranks of one node, one for each rank and one more, for each figure.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import quiet_barrier
from kvbench.cluster.topology import Topology
from kvbench.run.output.run_file import CALIBRATION_DTYPE

_LONGEST_ALONE_S: Final = 10.0
"""Calibrating the ranks of a node one after the other takes no longer than this in all, for each figure."""


class Turns:
    """Measurements that the ranks of a node take one after the other and then together."""

    def __init__(self, topology: Topology, seconds: float) -> None:
        self._topology = topology
        self._seconds = seconds
        self._rows: list[tuple[int, int, str, str, float]] = []
        self._error: Exception | None = None

    def measure(self, kind: str, figure: Callable[[float], float]) -> None:
        """Record `figure(seconds)`, in GiB/s, of this rank alone and of all ranks of the node at once."""
        alone_s = min(self._seconds, _LONGEST_ALONE_S / self._topology.local_size)
        for turn in range(self._topology.local_size):
            if turn == self._topology.local_rank:
                self.attempt(lambda: self._record(kind, "alone", figure(alone_s)))
            quiet_barrier(self._topology.node_comm)
        self.attempt(lambda: self._record(kind, "together", figure(self._seconds)))
        quiet_barrier(self._topology.node_comm)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do `action` unless something failed before: a rank that failed still takes part in the turns."""
        if self._error is None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one's turns
                self._error = error

    def rows(self) -> npt.NDArray[np.void]:
        """What was recorded (CALIBRATION_DTYPE). Raises the error that ended it."""
        if self._error is not None:
            raise self._error
        return np.array(self._rows, dtype=CALIBRATION_DTYPE)

    def _record(self, kind: str, mode: str, gib_per_s: float) -> None:
        self._rows.append((self._topology.rank, self._topology.node, kind, mode, gib_per_s))
