"""Look-ups of what a cache has decided on: the storage is asked, and its answer held against the decision."""

import errno
import os
from collections.abc import Sequence

from kvbench.engine.operation import Operation
from kvbench.tiers.contract import Tier
from kvbench.tiers.transfer import Batch, Cell


def ask(tier: Tier, batch: Batch, operations: Sequence[Operation]) -> None:
    """Look objects up, together or one after the other. One that has tokens was found by the cache, and is to be
    there."""
    if tier.looks_up_together:
        tier.run(batch)
        for at in batch.missing:
            if operations[at].tokens:
                batch.errors[at] = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return
    cell = Cell(batch.rows, batch.first_row, batch.stop)
    for at, operation in enumerate(operations):
        cell.row = batch.first_row + at
        batch.begun += 1
        try:
            is_there = tier.look_up(cell, operation.step.key)
        except OSError as error:
            batch.errors[at] = error
            return
        if operation.tokens and not is_there:
            batch.errors[at] = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return
