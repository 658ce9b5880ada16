"""What keeps operations in order: one line per key, and one line per tier for room.

Decisions are made one after the other; their operations run at the same time as far as these two allow. Both lines
only ever make an operation wait for ones that were decided before it, so there is always one that can go on.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from kvbench.engine.operation import Operation
from kvbench.records.schema import Op

_LOOKS: Final = (Op.READ, Op.LOOKUP)
"""Named once, as elsewhere where it counts: to look a member up takes longer than what is done with it."""


class _Line:
    """The operations on a key that the next one may have to wait for, of those that are not done."""

    __slots__ = ("exclusive", "readers")

    def __init__(self) -> None:
        self.exclusive: Operation | None = None
        """The last one that nothing may overlap."""
        self.readers: set[Operation] = set()
        """Reads that were decided after it."""


class KeyOrder:
    """Operations on one key take effect in the order in which they were decided; reads and look-ups of a key may
    overlap, but for those that are to be alone."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}

    def add(self, operation: Operation) -> None:
        """Make `operation` wait for the earlier ones on its key that it must not overtake."""
        step = operation.step
        line = self._lines.get(step.key)
        if line is None:
            line = self._lines[step.key] = _Line()
        if step.op in _LOOKS and not operation.alone:
            if line.exclusive is not None:
                _follow(line.exclusive, operation)
            line.readers.add(operation)
            return
        if line.readers:
            for reader in line.readers:
                _follow(reader, operation)
            # They are waited for: whatever comes next waits for this operation alone.
            line.readers = set()
        elif line.exclusive is not None:
            _follow(line.exclusive, operation)
        line.exclusive = operation

    def finish(self, operation: Operation) -> Sequence[Operation]:
        """Mark `operation` as carried out; returns those that no longer wait for it and for nothing else."""
        operation.done = True
        key = operation.step.key
        line = self._lines.get(key)
        if line is not None:
            if line.exclusive is operation:
                line.exclusive = None
            else:
                line.readers.discard(operation)
            if line.exclusive is None and not line.readers:
                del self._lines[key]
        if operation.followers is None:
            return ()
        freed = []
        for follower in operation.followers:
            follower.waits_for -= 1
            if follower.waits_for == 0:
                freed.append(follower)
        return freed


def _follow(earlier: Operation, operation: Operation) -> None:
    if earlier.followers is None:
        earlier.followers = [operation]
    else:
        earlier.followers.append(operation)
    operation.waits_for += 1


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

    def release(self, nbytes: int) -> Sequence[Operation]:
        """Take `nbytes` back; returns the operations that have their room now and wait for nothing else."""
        self.free_bytes += nbytes
        if not self._line:
            return ()
        freed = []
        while self._line and self._line[0].step.nbytes <= self.free_bytes:
            operation = self._line.popleft()
            self.free_bytes -= operation.step.nbytes
            operation.waits_for -= 1
            if operation.waits_for == 0:
                freed.append(operation)
        return freed
