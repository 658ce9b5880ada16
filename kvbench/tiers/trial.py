"""Trying a tier out: one object is written, read back, compared and deleted, with the code that a run uses.

It says what works, not how fast: nothing here is a measurement.
"""

import errno
import os
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kvbench.records.schema import RECORD_DTYPE
from kvbench.tiers.arena import Memory, anonymous_memory
from kvbench.tiers.contract import ExplainedError, NotAsWrittenError, Tier
from kvbench.tiers.transfer import WHOLE, Cell
from kvbench.units import KIB

TRIAL_BYTES: Final = 256 * KIB
TRIAL_KEY: Final = 0x7121A10B7EC70000
"""Of no meaning to a workload."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong."""

    op: Literal["write", "read"]
    error: OSError

    @property
    def reason(self) -> str:
        """In words."""
        if isinstance(self.error, NotAsWrittenError | ExplainedError):
            return str(self.error.strerror)
        return os.strerror(self.error.errno) if self.error.errno else str(self.error)


def try_out(tier: Tier) -> Trouble | None:
    """What goes wrong with an object of TRIAL_BYTES on `tier`, which keeps bytes; None for nothing. It may stay there
    where something does."""
    cell = Cell(np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8), 0, np.zeros(1, dtype=np.int32))
    source, target = _memory(), _memory()
    source.buffer[:] = np.arange(TRIAL_BYTES, dtype=np.uint32).astype(np.uint8)
    try:
        tier.allocate(TRIAL_KEY, TRIAL_BYTES)
        tier.write(cell, TRIAL_KEY, WHOLE, source)
    except OSError as error:
        return Trouble("write", error)
    try:
        tier.prepare_read(TRIAL_KEY)
        _, landed = tier.read(cell, TRIAL_KEY, WHOLE, target)
        if landed is None:  # the path only touches pages
            tier.inspect(TRIAL_KEY, 0, target)
            landed = target
        if not np.array_equal(landed.buffer[:TRIAL_BYTES], source.buffer):
            raise NotAsWrittenError(errno.EIO, "what was read is not what was written")
        tier.delete(cell, TRIAL_KEY)
    except OSError as error:
        return Trouble("read", error)
    return None


def _memory() -> Memory:
    extents = np.array([[0, TRIAL_BYTES]], dtype=np.int64)
    return Memory(np.frombuffer(anonymous_memory(TRIAL_BYTES), dtype=np.uint8), extents)
