"""What a node says of itself while a load runs: samples every second, and its drives' own counters around it."""

import numpy as np
import numpy.typing as npt

from kvbench.cluster.topology import Topology
from kvbench.records.clock import CommonClock
from kvbench.records.tables import DRIVE_DTYPE, SAMPLE_DTYPE
from kvbench.run.bench import Bench
from kvbench.run.build import disks_of
from kvbench.run.drive_counters import DriveCounters
from kvbench.run.sampler import Sampler

Rows = npt.NDArray[np.void]


class NodeCounters:
    """Of the first rank of a node, which reads for all; on any other it does nothing, and has no rows."""

    def __init__(self, bench: Bench, topology: Topology, begins: bool) -> None:
        """Reads the drives that the filesystems under test are on, which may take some seconds; nothing where no load
        `begins`."""
        self._samples: Rows = np.empty(0, SAMPLE_DTYPE)
        self._rows_of_drives: Rows = np.empty(0, DRIVE_DTYPE)
        self._sampler: Sampler | None = None
        self._drives: DriveCounters | None = None
        if begins and topology.local_rank == 0:
            disks = disks_of(target.describe() for target in bench.around.targets)
            taker = None if bench.spill is None else bench.spill.add_samples
            self._sampler = Sampler(topology.node, disks, taker)
            self._drives = DriveCounters(topology.node, disks)

    def start(self) -> None:
        """The load begins."""
        if self._sampler is not None:
            self._sampler.start()

    def stop(self, with_drives: bool) -> None:
        """It has ended; without `with_drives` they are not read again, and have no rows."""
        if self._sampler is not None:
            self._samples = self._sampler.stop()
        if self._drives is not None and with_drives:
            self._rows_of_drives = self._drives.rows()

    def on(self, clock: CommonClock) -> tuple[Rows, Rows]:
        """The rows (SAMPLE_DTYPE, DRIVE_DTYPE), with times on rank 0's clock."""
        for rows, columns in ((self._samples, ("t_ns",)), (self._rows_of_drives, ("t_before_ns", "t_after_ns"))):
            for column in columns:
                rows[column] = clock.to_common(rows[column])
        return self._samples, self._rows_of_drives
