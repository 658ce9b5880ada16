"""What workers take: operations one by one, or shares of a bundle. Plain state, no decisions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache import Step
from kvbench.engine.operation import Bundle, Operation
from kvbench.records.schema import Locality

_OWN: Final = Locality.OWN


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

    @property
    def layers(self) -> npt.NDArray[np.uint8] | None:
        """Of its objects; None: 0."""
        layers = self.bundle.layers
        return None if layers is None else layers[self.first : self.first + self.count]

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
        found = [operation_of(self.bundle, key, self.inflight) for key in self.keys]
        layers = self.layers
        for operation, layer in zip(found, () if layers is None else layers.tolist(), strict=layers is not None):
            operation.layer = layer
        return found


Work = Sequence[Operation] | Share
"""What a worker takes."""


def operation_of(bundle: Bundle, key: int, inflight: int = 0) -> Operation:
    """The operation on one object of `bundle`."""
    step = Step(bundle.op, key, bundle.nbytes, bundle.source, bundle.target)
    operation = Operation(step, bundle.request, bundle.tokens, bundle.stage)
    operation.ready_ns, operation.inflight, operation.locality = bundle.ready_ns, inflight, _OWN
    return operation
