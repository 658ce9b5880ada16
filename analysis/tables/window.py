"""The measured window, and what of an operation or a request lies in it.

Rates are what happened in the window divided by its length. What crosses an edge (begun in the warm-up, or ended while
the run drained) counts by the share of its time inside, so a slow last operation cannot raise a rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """From `start_ns` to `end_ns` on rank 0's clock."""

    start_ns: int
    end_ns: int

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Self:
        """The window that a run's attributes give; an empty one where they do not."""
        edges = attributes.get("measure_start_ns"), attributes.get("measure_end_ns")
        start, end = (edge if isinstance(edge, int) else 0 for edge in edges)
        return cls(start, end)

    @property
    def seconds(self) -> float | None:
        """The window's length; None when it is empty, and no rate can be given."""
        return (self.end_ns - self.start_ns) / 1e9 if self.end_ns > self.start_ns else None

    def rate(self, amount: float) -> float:
        """`amount` per second of the window; NaN when it is empty."""
        return float(amount) / self.seconds if self.seconds else float("nan")

    def share_inside(self, start_ns: NDArray[np.int64], duration_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """The share (0 to 1) of each span that lies in the window; a span of no length is in or out."""
        end_ns = start_ns + duration_ns
        inside = np.minimum(end_ns, self.end_ns) - np.maximum(start_ns, self.start_ns)
        shares = np.clip(inside, 0, None) / np.maximum(duration_ns, 1)
        within = (start_ns >= self.start_ns) & (end_ns <= self.end_ns)
        return np.where(duration_ns > 0, np.clip(shares, 0, 1), within).astype(np.float64)
