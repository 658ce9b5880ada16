"""Who ran an operation: ranks numbered without gaps, and the node and host that each of them was on."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

UNKNOWN_NODE: Final = -1
"""The node of a rank that /ranks does not have."""


@dataclass(frozen=True)
class Members:
    """The ranks that occur in a column, in rising order; all arrays have one value per rank."""

    rank: NDArray[np.int64]
    node: NDArray[np.int64]
    host: tuple[str, ...]
    node_place: NDArray[np.intp]
    """Each rank's index into `nodes`."""
    nodes: NDArray[np.int64]
    """The nodes that occur, in rising order."""
    node_hosts: tuple[str, ...]

    @classmethod
    def of(cls, run: Run, column: NDArray[Any]) -> tuple[Self, NDArray[np.uint32]]:
        """The ranks in `column`, and of each row its rank's index."""
        # The rows of a rank are together, so there are few stretches of equal values.
        first = np.flatnonzero(np.diff(column)) + 1
        first = np.concatenate(([0], first)) if len(column) else np.empty(0, np.intp)
        ranks, index = np.unique(column[first], return_inverse=True)
        place = np.repeat(index.astype(np.uint32), np.diff(np.append(first, len(column))))
        known: dict[int, tuple[int, str]] = {}
        table = run.ranks
        if {"rank", "node"} <= set(table):
            hosts = table["host"] if "host" in table else [""] * len(table)
            known = {
                int(rank): (int(node), str(host))
                for rank, node, host in zip(table["rank"], table["node"], hosts, strict=True)
            }
        where = [known.get(int(rank), (UNKNOWN_NODE, "")) for rank in ranks]
        node = np.array([number for number, _ in where], np.int64)
        nodes, node_place = np.unique(node, return_inverse=True)
        names = dict(where)
        return (
            cls(
                rank=ranks.astype(np.int64),
                node=node,
                host=tuple(host for _, host in where),
                node_place=node_place,
                nodes=nodes,
                node_hosts=tuple(names[int(number)] for number in nodes),
            ),
            place,
        )
