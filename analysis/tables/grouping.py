"""Splitting columns of many rows into groups: sort the keys once, then every column is split by slicing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Grouping:
    """Groups of equal `keys` (non-negative integers). Keys come in rising order everywhere."""

    def __init__(self, keys: NDArray[Any]) -> None:
        """`keys` has one value per row."""
        largest = int(keys.max()) if len(keys) else 0
        # numpy sorts 16-bit keys in linear time (radix sort).
        keys = keys.astype(np.uint16 if largest < 2**16 else np.uint32 if largest < 2**32 else np.uint64)
        self._order: NDArray[np.intp] | None = None
        if len(keys) and np.any(keys[1:] < keys[:-1]):
            self._order = np.argsort(keys, kind="stable")
            keys = keys[self._order]
        starts = np.flatnonzero(np.diff(keys)) + 1
        self._bounds = np.concatenate(([0], starts, [len(keys)])) if len(keys) else np.zeros(1, np.intp)
        self.keys: list[int] = [int(key) for key in keys[self._bounds[:-1]]]
        self.counts: NDArray[np.int64] = np.diff(self._bounds)

    def split(self, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The values of each group, in the order of `keys`. May be views of `values`: copy before changing them."""
        ordered = values if self._order is None else values[self._order]
        for index in range(len(self.keys)):
            yield ordered[self._bounds[index] : self._bounds[index + 1]]

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum of each group, in the type of `values` widened to 64 bits."""
        dtype = np.float64 if values.dtype.kind == "f" else np.int64
        return np.array([group.sum(dtype=dtype) for group in self.split(values)], dtype)
