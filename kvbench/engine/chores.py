"""What a worker does on a tier beside operations: syncs of batches, and what the layout of the tier makes necessary.

Each is timed like an operation and has a row of its own, with the request whose worker did it, and waited for it.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.engine.delays import Delays
from kvbench.engine.equipment import Equipment
from kvbench.engine.operation import ActiveRequest
from kvbench.engine.row import describe_chore, set_error
from kvbench.records.batches import BatchSplit
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, Path
from kvbench.tiers.contract import Tier, Upkeep
from kvbench.tiers.failures import SyncFailedError, why_failed
from kvbench.tiers.transfer import Cell

_WAIT_S: Final = 0.05
"""Between two looks at whether the load is to end."""


class Chores:
    """Of one worker; the rows go to `store`, with `thread` in them and the batch that `next_number` gives."""

    def __init__(
        self,
        thread: int,
        equipment: Equipment,
        store: RowStore,
        next_number: Callable[[], int],
        delays: Delays | None = None,
    ) -> None:
        self._thread = thread
        self._equipment = equipment
        self._store = store
        self._next_number = next_number
        self._delays = delays

    def sync(
        self,
        rows: npt.NDArray[np.uint8],
        row: int,
        tier: Tier,
        number: int,
        keys: Sequence[int],
        active: ActiveRequest,
        batch: int,
    ) -> SyncFailedError | None:
        """Make durable what batch number `batch` wrote to tier `number`: an operation of that batch, in a row that is
        reserved. Returns what went wrong."""
        cell = Cell(rows, row, self._equipment.stop)
        describe_chore(cell, Op.SYNC, number, Path.NONE, active, self._equipment.rank, self._thread, batch)
        try:
            tier.sync_batch(cell, keys)
        except OSError as error:
            set_error(cell, error)
            return SyncFailedError(error.errno or errno.EIO, os.strerror(error.errno or errno.EIO))
        self._note(cell)
        return None

    def make_room(self, tier: Tier, number: int, sizes: Mapping[int, int], active: ActiveRequest) -> None:
        """Give objects that are to be written (their bytes, by key) their places, as soon as there are any: all at
        once, as whoever waits must hold nothing that others wait for. Raises OSError where there will be none, or
        (ECANCELED) nothing is to be begun any more."""
        upkeep = tier.upkeep
        if upkeep is None:
            return
        while not upkeep.reserve(sizes):
            if self._equipment.stop[0] or 0 < int(self._equipment.until_ns[0]) <= timed_io.now_ns():
                raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
            if not self._do_one(upkeep, tier, number, active) and not upkeep.wait(sizes, _WAIT_S):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tier.where(next(iter(sizes))))

    def do_what_is_due(self, tier: Tier, number: int, active: ActiveRequest) -> None:
        """What its layout makes necessary on tier `number`."""
        upkeep = tier.upkeep
        while upkeep is not None and not self._equipment.stop[0] and self._do_one(upkeep, tier, number, active):
            pass

    def _do_one(self, upkeep: Upkeep, tier: Tier, number: int, active: ActiveRequest) -> bool:
        """Do the next chore; False where there is none. What goes wrong with it is reported, and ends the load."""
        try:
            chore = upkeep.due()
        except OSError as error:
            self._equipment.report_failure(why_failed("compact", tier.where(0), error))
            return False
        if chore is None:
            return False
        rows, row = self._store.reserve()
        cell = Cell(rows, row, self._equipment.stop)
        describe_chore(
            cell, Op.COMPACT, number, tier.write_path, active, self._equipment.rank, self._thread, self._next_number()
        )
        try:
            chore.carry_out(cell)
        except OSError as error:
            set_error(cell, error)
            if error.errno != errno.ECANCELED:
                self._equipment.report_failure(why_failed("compact", chore.where, error))
        self._note(cell)
        self._store.commit()
        return True

    def _note(self, cell: Cell) -> None:
        if self._delays is not None:
            self._delays.note(BatchSplit.of_sums(timed_io.sum_rows(cell.rows, cell.row, 1)))
