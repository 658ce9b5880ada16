"""How many operations a rank has in flight: one of each worker's batch or, where those of a batch overlap, several."""

from collections.abc import Collection, Sequence

from kvbench.engine.bundle import Share, Work
from kvbench.engine.operation import Operation
from kvbench.records.schema import Op


class InFlight:
    """Counts what workers carry out. `storage` says which tiers are storage, and `depth` how many operations of a batch
    are in flight there at once, of the kinds that overlap; 1: one after the other."""

    def __init__(self, storage: Sequence[bool], depth: int, overlapping: Collection[Op]) -> None:
        self._storage = storage
        self._depth = depth
        self._overlapping = overlapping
        self.operations = 0

    def begin(self, batch: Work) -> int:
        """A worker begins `batch`; returns how many are in flight then, its own included."""
        self.operations += self.of(batch)
        return self.operations

    def of(self, batch: Work) -> int:
        """How many of `batch` are in flight at once, at most."""
        return self._of(batch, len(batch))

    def end(self, done: Work, left: Sequence[Operation] = ()) -> None:
        """A worker has ended the batch that was begun as `done` and `left`."""
        self.operations -= self._of(done or left, len(done) + len(left))

    def _of(self, batch: Work, count: int) -> int:
        if self._depth == 1:
            return 1
        if isinstance(batch, Share):
            op, places = batch.bundle.op, (batch.bundle.source, batch.bundle.target)
        else:
            step = batch[0].step
            op, places = step.op, (step.source, step.target)
        on_storage = any(place is not None and self._storage[place] for place in places)
        return min(self._depth, count) if on_storage and op in self._overlapping else 1
