"""Carries out shares of bundles: whole objects of one size, many in one call, with nothing done for each in Python.

Only what is usual: objects that a segment of the arena holds, tiers that move a batch in one call, stamps, and sampled
checks. Whatever else is asked for is `carrier`'s, one operation after the other. Payload making and verification happen
before and after the timed calls, never inside them.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from kvbench import timed_io
from kvbench.engine.bundle import Share
from kvbench.engine.chores import Chores
from kvbench.engine.delays import Delays
from kvbench.engine.equipment import Equipment, Errors
from kvbench.engine.row import describe_share, set_error, timed_by, wall_of
from kvbench.records.batches import BatchSplit
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, Path
from kvbench.tiers.arena import Lease, Memory, object_phases
from kvbench.tiers.contract import Tier
from kvbench.tiers.failures import VerificationError
from kvbench.tiers.transfer import Batch, Cell, Memories
from kvbench.units import SEGMENT_BYTES

Moved = tuple[int, Errors, int]
"""How many operations were carried out, or tried to; what went wrong with which; and the wall time of the others."""

_READ, _WRITE, _DELETE, _DEMOTE = Op.READ, Op.WRITE, Op.DELETE, Op.DEMOTE
_NOWHERE: Final = np.empty(0, np.uint8)
_NO_EXTENTS: Final = np.empty((0, 2), np.int64)


class ShareCarrier:
    """Of one worker; the rows go to `store`, with `thread` in them and the batch that `next_number` gives."""

    def __init__(
        self,
        thread: int,
        equipment: Equipment,
        store: RowStore,
        next_number: Callable[[], int],
        chores: Chores,
        delays: Delays | None = None,
    ) -> None:
        self._thread = thread
        self._equipment = equipment
        self._store = store
        self._next_number = next_number
        self._chores = chores
        self._delays = delays
        self._usual = equipment.payload.is_stamped and not equipment.verify_full
        self.verified_sectors = 0

    def carry_out(self, share: Share) -> Moved | None:
        """Move the first objects of `share`, as many as can be moved together; see `Carrier.carry_out`. None, and
        nothing is done, where it is not as usual."""
        bundle = share.bundle
        number = bundle.source if bundle.op in (_READ, _DELETE) else bundle.target
        assert number is not None
        tier = self._equipment.tiers[number]
        if not tier.moves_together:
            return None
        if bundle.op == _DELETE:
            return self._move(share, _DELETE, tier, number, Path.NONE, ())
        if bundle.op == _DEMOTE:
            return self._demote(share, tier, number)
        return self._read_or_write(share, tier, number)

    def _read_or_write(self, share: Share, tier: Tier, number: int) -> Moved | None:
        bundle = share.bundle
        path = tier.read_path if bundle.op == _READ else tier.write_path
        if not tier.holds_bytes:
            self._allocate(tier, number, share)
            nowhere = Memories(_NOWHERE, _NO_EXTENTS, np.zeros(len(share), np.int64))
            return self._move(share, bundle.op, tier, number, path, nowhere)
        if not self._usual or bundle.nbytes > SEGMENT_BYTES:
            return None
        with self._equipment.arena.lease_each(len(share)) as lease:
            share = share.head(len(lease.segments))
            starts = np.array(lease.segments, np.int64) * SEGMENT_BYTES + object_phases(share.numbers, bundle.nbytes)
            extents = np.stack([starts, np.full(len(starts), bundle.nbytes)], axis=1)
            memories = Memories(lease.arena.bytes, extents, np.arange(1, len(starts) + 1))
            if bundle.op == _WRITE:
                self._allocate(tier, number, share)
                self._equipment.payload.make_each(memories, share.numbers, bundle.nbytes)
            return self._move(share, bundle.op, tier, number, path, memories, lease)

    def _demote(self, share: Share, target: Tier, number: int) -> Moved:
        source = share.bundle.source
        assert source is not None
        upper = self._equipment.tiers[source].addressable
        assert upper is not None, "only memory lies above another tier"
        self._allocate(target, number, share)
        keys = share.keys
        memories = [upper.memory_of(key) for key in keys]
        count, errors, wall_ns = self._move(share, _WRITE, target, number, target.write_path, memories)
        for at in range(count):
            if at not in errors:
                upper.release(keys[at])
        return count, errors, wall_ns

    def _allocate(self, tier: Tier, number: int, share: Share) -> None:
        if share.bundle.op != _READ:
            if tier.upkeep is not None:
                sizes = dict.fromkeys(share.keys, share.bundle.nbytes)
                self._chores.make_room(tier, number, sizes, share.bundle.request)
            for key in share.keys:
                tier.allocate(key, share.bundle.nbytes)

    def _move(
        self,
        share: Share,
        does: Op,
        tier: Tier,
        number: int,
        path: Path,
        memories: Sequence[Memory],
        lease: Lease | None = None,
    ) -> Moved:
        """Have `tier` carry out one batch, into rows with tier `number` and `path`. Where something goes wrong, nobody
        knows what lies in `lease`."""
        syncs = does == _WRITE and tier.syncs_batches
        rows, first_row = self._store.reserve(len(share) + syncs)
        equipment = self._equipment
        batch_number = self._next_number()
        describe_share(rows, first_row, share, number, path, equipment.rank, self._thread, batch_number)
        batch = Batch(does, share.keys, memories, rows, first_row, equipment.stop, numbers=share.numbers)
        batch.until_ns = int(equipment.until_ns[0])
        errors: Errors = {}
        try:
            tier.run(batch)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is an operation's, and goes into its row
            batch.begun = max(1, batch.begun)
            errors[batch.begun - 1] = error
        errors |= batch.errors
        unsynced, is_synced, active = None, syncs and not errors, share.bundle.request
        if is_synced:
            row = first_row + batch.begun
            unsynced = self._chores.sync(rows, row, tier, number, share.keys[: batch.begun], active, batch_number)
        if does == _READ and tier.holds_bytes and batch.begun:
            self._check(share, tier, batch, errors)
        count = batch.begun + (batch.begun in errors)
        lost_ns = 0
        for at, wrong in errors.items():
            cell = Cell(rows, first_row + at, equipment.stop)
            set_error(cell, wrong)
            lost_ns += int(cell.record["wall_ns"])
        by = timed_by(rows, first_row) if batch.timed_by is None else batch.timed_by
        codes = number, share.bundle.op, active.phase, by
        split = batch.split or BatchSplit.of_sums(timed_io.sum_rows(rows, first_row, count))
        equipment.batches.add(batch_number, codes, count, split)
        if self._delays is not None:
            self._delays.note(split)
        wall_ns = split.wall_ns - (lost_ns if batch.split is None else 0)
        if is_synced:
            # The request has waited for it too.
            wall_ns += wall_of(rows, first_row + count)
        if errors and lease is not None:
            lease.renew()
        self._store.commit(count + is_synced)
        if unsynced is not None:
            # None of them is durable; the last stands for all.
            errors.setdefault(count - 1, unsynced)
        self._chores.do_what_is_due(tier, number, active)
        return count, errors, wall_ns

    def _check(self, share: Share, tier: Tier, batch: Batch, errors: Errors) -> None:
        """Compare the stamps of what was read with what was written."""
        count, memories = batch.begun, batch.memories
        assert isinstance(memories, Memories)
        if errors:
            count = min(count, *errors)
        checked, wrong = self._equipment.payload.check_each_sampled(
            memories[:count], share.numbers[:count], share.bundle.nbytes
        )
        self.verified_sectors += checked
        for at, mismatch in wrong.items():
            errors[at] = VerificationError(tier.where(share.keys[at]), mismatch)
