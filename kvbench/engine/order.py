"""What keeps operations in order: who comes last on each key, and one line per tier for room.

Decisions are made one after the other; their operations run at the same time as far as these two allow. Both only ever
make an operation wait for ones that were decided before it, so there is always one that can go on. A bundle of
operations waits as one: for all that any of its keys must wait for, and for room for all of it.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

from kvbench.engine.operation import Bundle, Operation, Unit
from kvbench.records.schema import Op

_LOOKS: Final = (Op.READ, Op.LOOKUP)
"""Named once, as elsewhere where it counts: to look a member up takes longer than what is done with it."""


class KeyOrder:
    """Operations on one key take effect in the order in which they were decided; reads and look-ups of a key may
    overlap, but for those that are to be alone."""

    def __init__(self) -> None:
        self._exclusive: dict[int, Unit] = {}
        """By key, the last one that nothing may overlap, of those that are not done."""
        self._readers: dict[int, Unit] = {}
        """By key, the last reader behind it. It stands for those readers before it that are not done (`shadows`), and
        stays for their sake when it is done itself."""

    def add(self, operation: Operation) -> None:
        """Make `operation` wait for the earlier ones on its key that it must not overtake."""
        step = operation.step
        key = step.key
        before = self._exclusive.get(key)
        if before is not None:
            _follow(before, operation)
        if step.op in _LOOKS and not operation.alone:
            reader = self._readers.get(key)
            if reader is not None:
                operation.shadows = _still_reading((reader,))
            self._readers[key] = operation
            return
        reader = self._readers.pop(key, None)
        if reader is not None:
            for each in _still_reading((reader,)):
                _follow(each, operation)
        self._exclusive[key] = operation

    def add_bundle(self, bundle: Bundle) -> None:
        """The same of all keys of `bundle`."""
        keys = bundle.keys
        if self._exclusive:
            for before in {*map(self._exclusive.get, keys)}:
                if before is not None:
                    _follow(before, bundle)
        readers = {*map(self._readers.get, keys)} - {None} if self._readers else ()
        if bundle.op in _LOOKS:
            bundle.shadows = _still_reading(readers)
            self._readers.update(zip(keys, repeat(bundle), strict=False))
            return
        if readers:
            for each in _still_reading(readers):
                _follow(each, bundle)
            for key in keys:
                self._readers.pop(key, None)
        self._exclusive.update(zip(keys, repeat(bundle), strict=False))

    def finish(self, unit: Unit) -> Sequence[Unit]:
        """Mark `unit` as carried out; returns those that no longer wait for it and for nothing else."""
        unit.done = True
        self._forget(unit)
        if unit.ghosts is not None:
            for ghost in unit.ghosts:
                self._forget(ghost)
            unit.ghosts = None
        if unit.followers is None:
            return ()
        freed = []
        for follower in unit.followers:
            follower.waits_for -= 1
            if follower.waits_for == 0:
                freed.append(follower)
        return freed

    def _forget(self, unit: Unit) -> None:
        """Nothing needs to find `unit`, which is done, on its keys: but as long as it stands for others."""
        if unit.shadows:
            unit.shadows = _still_reading(unit.shadows)
            if unit.shadows:
                other = unit.shadows[0]
                other.ghosts = [unit] if other.ghosts is None else [*other.ghosts, unit]
                return
        keys: Sequence[int]
        if isinstance(unit, Bundle):
            keys, reads = unit.keys, unit.op in _LOOKS
        else:
            keys, reads = (unit.step.key,), unit.step.op in _LOOKS and not unit.alone
        held = self._readers if reads else self._exclusive
        found = [*map(held.pop, keys, repeat(None))]
        if found.count(unit) < len(found):
            held.update(
                (key, other) for key, other in zip(keys, found, strict=True) if other is not None and other is not unit
            )


def _still_reading(readers: Iterable[Unit | None]) -> list[Unit]:
    """Those of `readers`, and of the ones that they stand for, that are not done, each once."""
    found: dict[Unit, None] = {}
    for reader in readers:
        if reader is not None:
            found.update((each, None) for each in (reader, *reader.shadows) if not each.done)
    return list(found)


def _follow(earlier: Unit, unit: Unit) -> None:
    if earlier.followers is None:
        earlier.followers = [unit]
    else:
        earlier.followers.append(unit)
    unit.waits_for += 1


class Room:
    """Bytes of one tier that are really free now. Room is given in the order in which it was asked for."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.free_bytes = capacity_bytes
        self._line: deque[Unit] = deque()

    def ask(self, unit: Unit) -> None:
        """Give `unit` the room for its objects at once, or make it wait for its turn."""
        nbytes = unit.room_bytes
        if not self._line and nbytes <= self.free_bytes:
            self.free_bytes -= nbytes
            return
        unit.waits_for += 1
        self._line.append(unit)

    def release(self, nbytes: int) -> Sequence[Unit]:
        """Take `nbytes` back; returns the operations that have their room now and wait for nothing else."""
        self.free_bytes += nbytes
        if not self._line:
            return ()
        freed = []
        while self._line and self._line[0].room_bytes <= self.free_bytes:
            unit = self._line.popleft()
            self.free_bytes -= unit.room_bytes
            unit.waits_for -= 1
            if unit.waits_for == 0:
                freed.append(unit)
        return freed
