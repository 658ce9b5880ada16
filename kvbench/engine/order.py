"""What keeps operations in order: one line per key, and one line per tier for room.

Decisions are made one after the other; their operations run at the same time as far as these two allow. Both lines
only ever make an operation wait for ones that were decided before it, so there is always one that can go on.
"""

from collections import deque

from kvbench.engine.operation import Operation
from kvbench.records.schema import Op


class KeyOrder:
    """Operations on one key take effect in the order in which they were decided; reads of a key may overlap, but for
    those that are to be alone."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Operation | None, list[Operation]]] = {}

    def add(self, operation: Operation) -> None:
        """Make `operation` wait for the earlier ones on its key that it must not overtake."""
        key = operation.step.key
        exclusive, readers = self._last.get(key, (None, []))
        if operation.step.op == Op.READ and not operation.alone:
            if exclusive is not None and not exclusive.done:
                exclusive.followers.append(operation)
                operation.waits_for += 1
            self._last[key] = (exclusive, [*(r for r in readers if not r.done), operation])
            return
        before = [r for r in readers if not r.done]
        if not before and exclusive is not None and not exclusive.done:
            before = [exclusive]
        for earlier in before:
            earlier.followers.append(operation)
        operation.waits_for += len(before)
        self._last[key] = (operation, [])

    def finish(self, operation: Operation) -> list[Operation]:
        """Mark `operation` as carried out; returns those that no longer wait for it and for nothing else."""
        operation.done = True
        freed = []
        for follower in operation.followers:
            follower.waits_for -= 1
            if follower.waits_for == 0:
                freed.append(follower)
        key = operation.step.key
        exclusive, readers = self._last.get(key, (None, []))
        if (exclusive is None or exclusive.done) and all(reader.done for reader in readers):
            self._last.pop(key, None)
        return freed


class Room:
    """Bytes of one tier that are really free now. Room is given in the order in which it was asked for."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        self._line: deque[Operation] = deque()

    def ask(self, operation: Operation) -> None:
        """Give `operation` the room for its object at once, or make it wait for its turn."""
        if not self._line and operation.step.nbytes <= self.free_bytes:
            self.free_bytes -= operation.step.nbytes
            return
        operation.waits_for += 1
        self._line.append(operation)

    def release(self, nbytes: int) -> list[Operation]:
        """Take `nbytes` back; returns the operations that have their room now and wait for nothing else."""
        self.free_bytes += nbytes
        freed = []
        while self._line and self._line[0].step.nbytes <= self.free_bytes:
            operation = self._line.popleft()
            self.free_bytes -= operation.step.nbytes
            operation.waits_for -= 1
            if operation.waits_for == 0:
                freed.append(operation)
        return freed
