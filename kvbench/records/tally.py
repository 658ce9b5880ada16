"""Counts of a rank's rows, taken as they come: what the table of the ranks says of them."""

import errno
from typing import Any

from numpy.typing import NDArray

from kvbench.records.schema import Phase


class Tally:
    """Counts the rows that it is shown (a `stream.Taker`)."""

    def __init__(self) -> None:
        self.records = 0
        self.requests = 0
        self.canceled = 0
        """Records with errno ECANCELED."""
        self.failed = 0
        """Records with any other errno than 0."""
        self.measured = 0
        """Measured operations that worked: those that figures are made of."""
        self.measured_requests = 0
        self.begin_ns = 0
        """Start of the first of them, on the clock of the rows; 0 where there is none."""
        self.end_ns = 0
        """End of the last of them, likewise."""

    def take_records(self, rows: NDArray[Any]) -> None:
        """Count rows of RECORD_DTYPE."""
        self.records += len(rows)
        canceled = int((rows["errno"] == errno.ECANCELED).sum())
        self.canceled += canceled
        self.failed += int((rows["errno"] != 0).sum()) - canceled
        counted = (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)
        starts_ns = rows["t_start_ns"][counted]
        if len(starts_ns):
            first_ns = int(starts_ns.min())
            self.begin_ns = min(self.begin_ns, first_ns) if self.measured else first_ns
            self.measured += len(starts_ns)
            self.end_ns = max(self.end_ns, int((starts_ns + rows["wall_ns"][counted]).max()))

    def take_requests(self, rows: NDArray[Any]) -> None:
        """Count rows of REQUEST_DTYPE."""
        self.requests += len(rows)
        self.measured_requests += int((rows["phase"] == Phase.MEASURE).sum())

    def flush(self) -> None:
        """Nothing is put off."""
