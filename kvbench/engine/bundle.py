"""Operations of one request that move equal objects the same way, as arrays: there is no Python object for each.

A `Bundle` is decided, waits and is finished as one; workers take it in `Share`s. Plain state, no decisions.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache import Step
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.records.schema import Locality, Op

_OWN: Final = Locality.OWN


class Bundle:
    """What one stage of a request (or what makes room for it) moves from one place to another: objects of `nbytes` and
    `tokens` each, none of them twice. What it waits for, all of it waits for, as an `Operation` does."""

    __slots__ = (
        "done", "followers", "ghosts", "keys", "nbytes", "numbers", "op", "ready_ns", "request", "shadows", "source",
        "stage", "taken", "target", "tokens", "unfinished", "waits_for",
    )  # fmt: skip

    def __init__(
        self,
        op: Op,
        keys: Sequence[int],
        nbytes: int,
        tokens: int,
        places: tuple[int | None, int | None],
        request: ActiveRequest,
        stage: int | None,
    ) -> None:
        """`places`: the tier that the objects leave or are read from, and the one that they come to."""
        self.op = op
        self.keys = keys
        self.numbers: npt.NDArray[np.uint64] = np.array(keys, np.uint64)
        self.nbytes = nbytes
        self.tokens = tokens
        self.source, self.target = places
        self.request = request
        self.stage = stage
        self.waits_for = 0
        self.followers: list[Operation | Bundle] | None = None
        self.ghosts: list[Operation | Bundle] | None = None
        self.shadows: Sequence[Operation | Bundle] = ()
        self.done = False
        self.ready_ns = 0
        self.taken = 0
        """How many of the objects workers have taken, from the first."""
        self.unfinished = len(keys)
        """How many have not been carried out."""

    @property
    def count(self) -> int:
        """Operations that it stands for."""
        return len(self.keys)

    @property
    def left(self) -> int:
        """Those that no worker has taken."""
        return len(self.keys) - self.taken

    @property
    def room_bytes(self) -> int:
        """What all of it takes on its target."""
        return len(self.keys) * self.nbytes


class Share:
    """Objects of a bundle, one after the other, that one worker carries out."""

    __slots__ = ("bundle", "count", "first", "inflight", "wall_ns")

    def __init__(self, bundle: Bundle, first: int, count: int) -> None:
        self.bundle = bundle
        self.first = first
        self.count = count
        self.inflight = 0
        """Operations in flight on the rank when it began, its own included."""
        self.wall_ns = 0
        """Sum of the wall times of what was carried out of it."""

    def __len__(self) -> int:
        return self.count

    @property
    def keys(self) -> Sequence[int]:
        """Of its objects."""
        return self.bundle.keys[self.first : self.first + self.count]

    @property
    def numbers(self) -> npt.NDArray[np.uint64]:
        """Its keys as an array."""
        return self.bundle.numbers[self.first : self.first + self.count]

    def head(self, count: int) -> "Share":
        """The first `count` objects of it, which has as many."""
        share = Share(self.bundle, self.first, count)
        share.inflight = self.inflight
        return share

    def behind(self, count: int) -> "Share":
        """What is left of it behind the first `count` objects."""
        share = Share(self.bundle, self.first + count, self.count - count)
        share.inflight = self.inflight
        return share

    def operations(self) -> list[Operation]:
        """One for each object, for what is not worth a faster way."""
        return [operation_of(self.bundle, key, self.inflight) for key in self.keys]


Unit = Operation | Bundle
"""What is decided, waits and becomes ready as one."""

Work = Sequence[Operation] | Share
"""What a worker takes."""


def operation_of(bundle: Bundle, key: int, inflight: int = 0) -> Operation:
    """The operation on one object of `bundle`."""
    step = Step(bundle.op, key, bundle.nbytes, bundle.source, bundle.target)
    operation = Operation(step, bundle.request, bundle.tokens, bundle.stage)
    operation.ready_ns, operation.inflight, operation.locality = bundle.ready_ns, inflight, _OWN
    return operation
