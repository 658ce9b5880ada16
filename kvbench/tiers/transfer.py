"""Cell and part: the row that a call on a tier is timed into, and the bytes of an object that it moves."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvbench.records.schema import RECORD_DTYPE


@dataclass(frozen=True, slots=True)
class Cell:
    """The row that a call is timed into, and the flag that ends it early."""

    rows: npt.NDArray[np.uint8]
    row: int
    stop: npt.NDArray[np.int32]
    """One number; when it is not 0 the call ends with OSError ECANCELED at its next chance."""

    @property
    def record(self) -> np.void:
        """The row itself, to be read and written by column; for what is not worth a faster way."""
        record: np.void = self.rows.view(RECORD_DTYPE)[self.row]
        return record


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of an object that one call moves: all of them, or one piece after the other."""

    offset: int
    first: bool = True
    last: bool = True


WHOLE = Part(0)
