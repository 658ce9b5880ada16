"""Which operations are alike: of one kind are those of one tier, op and path. Figures are per kind."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.schema import Op, Path, label

KIND: Final = ("tier", "op", "path")
"""The columns that name a kind in every table, and the columns of /records that a kind's number is made of."""

MOVES: Final = (Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE)
"""Operations that move bytes for the workload."""


READING: Final = (Op.READ, Op.PROMOTE, Op.PREFETCH)
"""Operations that take bytes from their tier; of a move, that is the slower of the two."""
WRITING: Final = (Op.WRITE, Op.DEMOTE)
"""Operations that put bytes on their tier."""


def kind_numbers(codes: dict[str, NDArray[Any]]) -> NDArray[np.uint16]:
    """The number of each row's kind, from the columns `tier`, `op` and `path`."""
    number = codes["tier"].astype(np.uint16)
    number *= np.uint16(len(Op) * len(Path))
    number += codes["op"] * np.uint16(len(Path))
    number += codes["path"]
    return number


def kind_labels(run: Run, number: int) -> dict[str, Any]:
    """The kind's `tier`, `op` and `path`, as tables name them."""
    tier, rest = divmod(number, len(Op) * len(Path))
    op, path = divmod(rest, len(Path))
    return {"tier": str(run.tiers["name"].iloc[tier]), "op": label(Op(op)), "path": label(Path(path))}


def moves(op: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the operations are MOVES."""
    return np.array([code in MOVES for code in Op])[op]


def each_kind(run: Run, numbers: NDArray[np.uint16]) -> Iterator[tuple[dict[str, Any], NDArray[np.intp] | slice]]:
    """Of every kind that occurs, from the fastest tier down: its labels, and which of the rows are of it."""
    found = np.flatnonzero(np.bincount(numbers, minlength=1))
    for number in found:
        # All rows as a slice, which does not copy.
        yield kind_labels(run, int(number)), slice(None) if len(found) == 1 else np.flatnonzero(numbers == number)
