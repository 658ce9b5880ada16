"""What is predicted of a run on a storage that a model describes: figures, each with an interval. Predicts nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.records.storage_model import StorageModel

PARTS: Final = ("queue", "look_up", "load", "first_token")
"""Of a request; the first token only where compute is modelled."""
STATISTICS: Final = ("mean", "p50", "p95", "p99")
LEVEL: Final = 0.9
WORDS: Final = "predicted: simulated from a storage model; nothing of this load was measured"


class Figure(NamedTuple):
    """Over all draws: the median, and what LEVEL of them lie between."""

    predicted: float
    low: float
    high: float

    @staticmethod
    def of(values: NDArray[np.float64]) -> "Figure":
        """Of the draws (at least one)."""
        low, middle, high = np.quantile(values, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]).tolist()
        return Figure(middle, low, high)

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Predicted:
    """Of the requests of the measured phase that are done, as of a run."""

    storage: str
    """The file of the model."""
    model: StorageModel
    draws: int
    storage_ranks: int
    """That share a storage."""
    parts: Mapping[str, Mapping[str, Figure]]
    """By PARTS and STATISTICS, in seconds; none where in some simulation no request was done."""
    requests: Figure
    cut_short: Figure
    read_bytes_per_s: Figure
    """From storage, from the start of the load to its end, all ranks together."""
    written_bytes_per_s: Figure
    utilisation: Figure
    """Share of that time in which a storage had anything in flight."""
    most_in_flight: int
    """On a storage, in any draw."""
    extrapolated: tuple[str, ...]
    """What the model was not measured for, in words; empty unless that was allowed."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, for JSON."""
        return {
            "is": WORDS,
            "storage": {
                "file": self.storage,
                "tier": self.model.tier,
                "run_files": [source.file for source in self.model.sources],
                "fingerprints": [source.fingerprint for source in self.model.sources],
                "hosts": sorted({host for source in self.model.sources for host in source.hosts}),
                "filesystem": self.model.sources[0].filesystem,
            },
            "extrapolated": list(self.extrapolated),
            "draws": self.draws,
            "interval": LEVEL,
            "ranks_per_storage": self.storage_ranks,
            **{
                part: {f"{name}_s": figure.as_dict() for name, figure in of_part.items()}
                for part, of_part in self.parts.items()
            },
            "requests": self.requests.as_dict(),
            "cut_short_requests": self.cut_short.as_dict(),
            "read_bytes_per_s": self.read_bytes_per_s.as_dict(),
            "written_bytes_per_s": self.written_bytes_per_s.as_dict(),
            "utilisation": self.utilisation.as_dict(),
            "most_in_flight": self.most_in_flight,
        }
