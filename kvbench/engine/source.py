"""Where a worker takes its work from: batches of operations, each handed in when it was carried out.

A batch is what a stage of a request moves between two places: operations of one request and one stage, of one kind,
from one tier (or another rank's objects there) to one tier, none of which waits for another. They may be carried out in
one call, in any order or at the same time; who hands them out does not care how.

How many a worker has room for is its own business. One that carries them out one after the other holds back what
another worker could have begun meanwhile: N operations that N workers would carry out at once take N times as long in
one, and latency and bandwidth would be those of kvbench and not of the storage. So a source hands out more than one
operation only where there is more than one for each worker.
"""

from collections.abc import Sequence
from typing import Protocol

from kvbench.engine.bundle import Work
from kvbench.engine.operation import Operation
from kvbench.records.schema import RequestState


class OperationSource(Protocol):
    """Hands out operations to workers, any number of them at the same time."""

    def take(self, done: Work, room: int) -> Work:
        """Hand in `done`, the batch that was taken before and carried out (nothing the first time), and get the next
        one, of at most `room` operations, waiting for it; an empty one: there is no more work.

        Of each of `done`, `wall_ns` and `ended_ns` are set (of a share, the sum `wall_ns`). Of each that is handed out,
        all that goes into its row is.
        """

    def give_up(self, done: Work, left: Sequence[Operation], state: RequestState) -> None:
        """Of a batch, `done` were carried out and `left` were not, whose request ends in `state`. This worker takes
        nothing more, and no further operation is handed out to any."""

    def stop(self) -> None:
        """Hand out no further operation; those that run go on."""
