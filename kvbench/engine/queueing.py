"""Lines operations up: each waits for those before it on its key, for its room, and for the stage it belongs to."""

from collections.abc import Callable, Sequence

from kvbench import timed_io
from kvbench.engine.operation import ActiveRequest, Bundle, Unit
from kvbench.engine.order import KeyOrder, Room


class Queueing:
    """Takes operations in the order in which they were decided."""

    def __init__(
        self,
        order: KeyOrder,
        rooms: Sequence[Room],
        make_ready: Callable[[Unit], None],
        clock: Callable[[], int] = timed_io.now_ns,
    ) -> None:
        """`make_ready` is called with each operation that nothing stands in the way of; `clock` says what time it is
        (ns)."""
        self._order = order
        self._rooms = rooms
        self._make_ready = make_ready
        self._clock = clock

    def make_room(self, operation: Unit) -> None:
        """An operation that no stage of the request waits for."""
        self._line_up(operation)
        operation.ready_ns = self._clock()
        if operation.waits_for == 0:
            self._make_ready(operation)

    def ask(self, operation: Unit, stage: list[Unit]) -> None:
        """Take an operation that the request asks for into `stage`, for which it waits too."""
        self._line_up(operation)
        operation.waits_for += 1
        stage.append(operation)

    def _line_up(self, operation: Unit) -> None:
        if isinstance(operation, Bundle):
            self._order.add_bundle(operation)
            target = operation.target
        else:
            operation.alone = operation.request.request.in_steps
            self._order.add(operation)
            target = operation.step.target
        if target is not None:
            self._rooms[target].ask(operation)


def add_stage(active: ActiveRequest, operations: list[Unit], delay_ns: int = 0) -> None:
    """One more stage of a request, if there is anything in it."""
    if operations or delay_ns:
        active.stages.append(operations)
        active.stage_delays_ns.append(delay_ns)
