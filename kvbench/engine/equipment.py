"""What the workers of a rank share, and how what goes wrong in a batch is told. Moves nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.engine.operation import Operation
from kvbench.engine.violations import Violations
from kvbench.records.batches import BatchLog
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload

Errors = dict[int, BaseException]
"""What went wrong, by the number of the operation in its batch."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What all workers of a rank share."""

    rank: int
    host: str
    tiers: Sequence[Tier]
    arena: Arena
    payload: Payload
    verify_full: bool
    stop: npt.NDArray[np.int32]
    report_failure: Callable[[str], None]
    batches: BatchLog
    until_ns: npt.NDArray[np.int64]
    """One number: from then on no operation is begun any more (`timed_io.now_ns`); 0: never."""
    payload_of: Callable[[int], Payload] | None = None
    """What another rank writes, to check what is read of it."""
    violations: Violations | None = None
    """Where ranks share a filesystem: reads that do not give what was written are counted and do not end the run."""
    speed: VirtualSpeed | None = None
    """What is to seem faster or slower than it is, in the load that is measured."""

    def source(self, operation: Operation, number: int) -> Tier:
        """Tier `number`, or there the objects of the rank whose object is to be read."""
        tier = self.tiers[number]
        return tier if operation.writer is None else tier.of_rank(operation.writer)
