"""The memory tier's free ranges, against a map with one mark for each unit."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvbench.tiers.arena import Extents
from kvbench.tiers.memory import RangeAllocator, part_of


class AllocatorMachine(RuleBasedStateMachine):
    """Any sequence of taking and giving back, in any order."""

    @initialize(size=st.integers(0, 60))
    def start(self, size: int) -> None:
        self.allocator = RangeAllocator(size)
        self.taken = np.zeros(size, dtype=bool)
        self.held: list[Extents] = []

    @rule(nbytes=st.integers(0, 25))
    def allocate(self, nbytes: int) -> None:
        free = np.flatnonzero(~self.taken)
        if nbytes > len(free):
            with pytest.raises(MemoryError):
                self.allocator.allocate(nbytes)
            return
        extents = self.allocator.allocate(nbytes)
        got = [unit for start, length in extents.tolist() for unit in range(start, start + length)]
        assert got == free[:nbytes].tolist(), "the lowest free addresses, each once"
        assert (extents[:, 1] > 0).all()
        assert (extents[1:, 0] > extents[:-1].sum(axis=1)).all(), "neighbours are one range"
        self.taken[got] = True
        self.held.append(extents)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            extents = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
            self.allocator.release(extents)
            for start, length in extents.tolist():
                self.taken[start : start + length] = False

    @invariant()
    def counts_what_is_free_and_joins_neighbours(self) -> None:
        assert self.allocator.free_bytes == np.count_nonzero(~self.taken)
        edges = np.flatnonzero(np.diff(np.concatenate([[True], self.taken, [True]]).astype(np.int8)) == -1)
        assert self.allocator._starts == edges.tolist()
        assert sum(self.allocator._lengths.values()) == self.allocator.free_bytes
        assert sorted(self.allocator._lengths) == self.allocator._starts


TestRangeAllocator = AllocatorMachine.TestCase
TestRangeAllocator.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_a_part_of_an_object_is_cut_from_its_ranges() -> None:
    extents = np.array([[100, 10], [40, 5], [70, 20]], dtype=np.int64)
    units = [u for start, length in extents.tolist() for u in range(start, start + length)]
    for offset in range(35):
        for nbytes in range(1, 36 - offset):
            part = part_of(extents, offset, nbytes)
            assert part.flags.c_contiguous
            got = [unit for start, length in part.tolist() for unit in range(start, start + length)]
            assert got == units[offset : offset + nbytes]
