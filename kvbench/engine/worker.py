"""One thread's loop: takes batches of operations, has them carried out, and says what went wrong with which."""

import errno
import os
import traceback
from collections.abc import Sequence
from typing import Final

from kvbench import timed_io
from kvbench.engine.bundle import Share, Work
from kvbench.engine.carrier import Carrier
from kvbench.engine.delays import Delays
from kvbench.engine.equipment import Equipment
from kvbench.engine.operation import Operation
from kvbench.engine.source import OperationSource
from kvbench.engine.violations import Violation, of_error, of_mismatch
from kvbench.records.recorder import RowStore
from kvbench.records.schema import Op, RequestState, label
from kvbench.tiers.failures import SyncFailedError, VerificationError, why_failed

MOST_TOGETHER: Final = 64
"""Operations of a batch."""


class Worker:
    """Carries out, one after the other, what a source hands out; its rows go to `store`."""

    def __init__(self, thread: int, equipment: Equipment, store: RowStore, room: int = MOST_TOGETHER) -> None:
        """`room`: the most operations of a batch."""
        self._equipment = equipment
        self._delays = None if equipment.speed is None else Delays(equipment.speed, equipment.stop)
        self._carrier = Carrier(thread, equipment, store, self._delays)
        self._room = room

    @property
    def verified_sectors(self) -> int:
        """Sectors whose content was compared with what was written."""
        return self._carrier.verified_sectors

    @property
    def delays(self) -> Delays | None:
        """What makes a part of its work seem faster or slower; None: it is as it is."""
        return self._delays

    def prepare(self) -> bool:
        """What its thread has to do before the load begins. Whether that was done: a failure is reported."""
        try:
            for tier in self._equipment.tiers:
                tier.begin_thread(self._equipment.arena.bytes)
        except OSError as error:
            self._equipment.report_failure(f"a thread cannot begin: {error.strerror or error}")
        except BaseException:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
            self._equipment.report_failure(f"internal error\n{traceback.format_exc()}")
        else:
            return True
        return False

    def leave(self) -> None:
        """What its thread has to do when the load is over."""
        for tier in self._equipment.tiers:
            tier.end_thread()

    def run(self, source: OperationSource, delayed: bool = False) -> None:
        """Work until there is no more; a failure is reported and ends the load of the whole rank. `delayed`: after each
        batch, and before its request goes on, comes what makes a part of the work seem faster or slower."""
        done: Work = ()
        delays = self._delays if delayed else None
        try:
            if delays is not None:
                delays.begin()
            while batch := source.take(done, self._room):
                done, left, state = self._carry_out(batch)
                if delays is not None and not delays.pay() and not left:
                    # Canceled with what it stands for: the operations are done, and would not be yet.
                    operations = done.operations() if isinstance(done, Share) else done
                    done, left, state = (), operations, RequestState.CUT_SHORT
                if left:
                    source.give_up(done, left, state)
                    return
        except BaseException:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
            self._equipment.report_failure(f"internal error\n{traceback.format_exc()}")
            source.stop()

    def _carry_out(self, batch: Work) -> tuple[Work, Sequence[Operation], RequestState]:
        """What of a batch was carried out, and what was not, with the state in which its request then ends."""
        return self._carry_out_share(batch) if isinstance(batch, Share) else self._carry_out_each(batch)

    def _carry_out_share(self, share: Share) -> tuple[Work, Sequence[Operation], RequestState]:
        ahead = share
        while ahead.count:
            try:
                count, errors, wall_ns = self._carrier.carry_out_share(ahead)
            except BaseException as error:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
                count, errors, wall_ns = 1, {0: error}, 0
            share.wall_ns += wall_ns
            if errors:
                operations, behind = share.operations(), share.count - ahead.count
                failed = {behind + at: error for at, error in errors.items()}
                done = [operation for at, operation in enumerate(operations[: behind + count]) if at not in failed]
                if done:
                    # They are of one request, which adds them up.
                    done[0].wall_ns = share.wall_ns
                left = [*(operations[at] for at in failed), *operations[behind + count :]]
                return done, left, self._report(operations[min(failed)], failed[min(failed)])
            ahead = ahead.behind(count)
            if ahead.count and self._is_over():
                operations, behind = share.operations(), share.count - ahead.count
                operations[0].wall_ns = share.wall_ns
                return operations[:behind], operations[behind:], RequestState.CUT_SHORT
        return share, (), RequestState.DONE

    def _is_over(self) -> bool:
        """Whether no operation is to be begun any more."""
        return 0 < int(self._equipment.until_ns[0]) <= timed_io.now_ns()

    def _carry_out_each(
        self, batch: Sequence[Operation]
    ) -> tuple[Sequence[Operation], Sequence[Operation], RequestState]:
        done: list[Operation] = []
        ahead = batch
        while ahead:
            try:
                count, errors = self._carrier.carry_out(ahead)
            except BaseException as error:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
                count, errors = 1, {0: error}
            if not errors and count == len(batch):
                return batch, (), RequestState.DONE
            fatal = {at: error for at, error in errors.items() if not self._is_violation(ahead[at], error)}
            done += [operation for at, operation in enumerate(ahead[:count]) if at not in fatal]
            if fatal:
                left = [*(ahead[at] for at in fatal), *ahead[count:]]
                return done, left, self._report(ahead[min(fatal)], fatal[min(fatal)])
            ahead = ahead[count:]
            if ahead and self._is_over():
                return done, ahead, RequestState.CUT_SHORT
        return done, (), RequestState.DONE

    def _report(self, operation: Operation, error: BaseException) -> RequestState:
        """Report why the load ends; the state in which the operation's request does."""
        if isinstance(error, OSError):
            if error.errno == errno.ECANCELED:
                return RequestState.CUT_SHORT
            text = self._describe(operation, error)
        elif isinstance(error, VerificationError):
            text = str(error)
        elif isinstance(error, MemoryError):
            text = self._describe(operation, OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
            text += f" ({error})" if str(error) else ""
        else:
            text = "internal error\n" + "".join(traceback.format_exception(error))
        self._equipment.report_failure(text)
        return RequestState.FAILED

    def _is_violation(self, operation: Operation, error: BaseException) -> bool:
        """Whether a failed read is a broken promise of a shared filesystem, which is counted and goes on; or a failed
        delete, of what is gone already."""
        violations, step = self._equipment.violations, operation.step
        if violations is None or step.op not in (Op.READ, Op.DELETE) or step.source is None:
            return False
        tier = self._equipment.source(operation, step.source)
        if not tier.storage:
            return False
        if isinstance(error, VerificationError):
            kind: Violation | None = of_mismatch(error.mismatch)
            text = str(error)
        elif isinstance(error, OSError):
            kind = of_error(error, tier.size_bytes(step.key), step.nbytes)
            text = self._describe(operation, error)
        else:
            return False
        if kind is None or (step.op == Op.DELETE and kind != Violation.MISSING):
            return False
        writer = self._equipment.rank if operation.writer is None else operation.writer
        violations.note(kind, writer, step.key, step.nbytes, timed_io.now_ns(), text)
        operation.spoiled = step.op == Op.READ
        return True

    def _describe(self, operation: Operation, error: OSError) -> str:
        step = operation.step
        what = "sync" if isinstance(error, SyncFailedError) else label(step.op)
        tier = step.target if step.target is not None and step.op != Op.PROMOTE else step.source
        assert tier is not None
        where = self._equipment.source(operation, tier).where(step.key)
        return why_failed(what, where, error)
