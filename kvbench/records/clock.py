"""Times of all nodes on rank 0's clock: what a node's clock was read to be, and the line between two such readings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ClockReading:
    """One comparison of this node's clock with rank 0's."""

    local_ns: int
    """This node's clock when it was compared."""
    offset_ns: int
    """This node's clock minus rank 0's at that moment."""
    uncertainty_ns: int
    """The offset is within this of the truth."""
    worst_uncertainty_ns: int
    """The largest uncertainty of any node."""


@dataclass(frozen=True)
class CommonClock:
    """The line through the readings before and after the run: this node's time as rank 0's."""

    before: ClockReading
    after: ClockReading

    @property
    def offset_ns(self) -> int:
        """This node's clock minus rank 0's at the first reading."""
        return self.before.offset_ns

    @property
    def drift_ns_per_s(self) -> float:
        """How much faster this node's clock runs than rank 0's; 0 when both readings are one."""
        span_ns = self.after.local_ns - self.before.local_ns
        return (self.after.offset_ns - self.before.offset_ns) / span_ns * 1e9 if span_ns else 0.0

    @property
    def uncertainty_ns(self) -> int:
        """No time converted between the two readings is off by more than this, as long as the drift was steady."""
        return max(self.before.uncertainty_ns, self.after.uncertainty_ns)

    @property
    def worst_uncertainty_ns(self) -> int:
        """The largest uncertainty of any node."""
        return max(self.before.worst_uncertainty_ns, self.after.worst_uncertainty_ns)

    @overload
    def to_common(self, t_ns: int) -> int: ...
    @overload
    def to_common(self, t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...
    def to_common(self, t_ns: int | npt.NDArray[np.int64]) -> int | npt.NDArray[np.int64]:
        """Rank 0's time, in ns, at this node's time(s) `t_ns`. Exact to 1 ns beside the uncertainty."""
        # Offsets are as large as the difference in uptime, beyond what a float holds in ns; only the drift is a float.
        drift_ns = np.rint((np.asarray(t_ns) - self.before.local_ns) * (self.drift_ns_per_s / 1e9)).astype(np.int64)
        common = np.asarray(t_ns, np.int64) - self.before.offset_ns - drift_ns
        return common if isinstance(t_ns, np.ndarray) else int(common)

    def to_local(self, common_ns: int) -> int:
        """This node's time when rank 0's clock shows `common_ns` (for a common start)."""
        elapsed_ns = common_ns - (self.before.local_ns - self.before.offset_ns)
        return self.before.local_ns + round(elapsed_ns / (1 - self.drift_ns_per_s / 1e9))


RECORD_TIMES: Final = ("t_start_ns",)


REQUEST_TIMES: Final = ("intended_ns", "start_ns", "end_ns")
"""The columns that hold points in time."""


def on_common_clock(rows: npt.NDArray[np.void], columns: Sequence[str], clock: CommonClock) -> npt.NDArray[np.void]:
    """A copy of `rows` with the times in `columns` on rank 0's clock."""
    shifted = rows.copy()
    for column in columns:
        shifted[column] = clock.to_common(shifted[column])
    return shifted
