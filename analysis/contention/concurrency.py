"""How many others were active on its node while each measured operation of a run ran.

Every operation that moved bytes counts as active, whatever its phase and however it ended. Measured are those of the
phase `measure` that ended without an error. What that did to their times is `contention`'s business.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.contention.sweep import others_active
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.kinds import kind_numbers, moves
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.membership import Members
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Phase

AGAINST: Final = ("operations", "sharing", "ranks")
"""What was active beside an operation, as `kvbench_analysis.contention.sweep.OthersActive` defines it."""


UNTOLD: Final = (
    "how many operations ran beside each other cannot be told from a sample; repeat the run with records: full"
)
"""Why the contention of a sampled run is not known."""
OVERLAPPING: Final = (
    "operations whose batch keeps several in flight have no host time of their own, and count as others alone"
)
"""Why there is no contention of operations that overlap."""


@dataclass(frozen=True)
class MeasuredOperations:
    """The measured reads, writes, demotes and promotes that moved bytes; the arrays have one value per operation."""

    row: NDArray[np.int64]
    """Rows in /records, rising."""
    rows: int
    """Rows that /records has."""
    start_ns: NDArray[np.int64]
    wall_ns: NDArray[np.int64]
    kind: NDArray[np.uint16]
    place: NDArray[np.uint32]
    """Index of the rank in `members`."""
    members: Members
    others: dict[str, NDArray[np.float32]]
    """Per AGAINST: the number of others that were active."""

    def of_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """A column of /records, of these operations only; no copy where they are all."""
        return values if len(self.row) == self.rows else values[self.row]

    def only(self, chosen: NDArray[np.bool_]) -> "MeasuredOperations":
        """Those of them that are `chosen`; the others still were active beside them."""
        if chosen.all():
            return self
        return replace(
            self,
            row=self.row[chosen],
            start_ns=self.start_ns[chosen],
            wall_ns=self.wall_ns[chosen],
            kind=self.kind[chosen],
            place=self.place[chosen],
            others={name: values[chosen] for name, values in self.others.items()},
        )


def operations_contention(run: Run) -> pd.DataFrame:
    """One row per measured operation: how many others were active on its node during it.

    Columns: `row` (int64, its row in /records), `rank`, `node`, and as float32 `other_operations` and `other_ranks`
    (time-weighted means) and `other_sharing` (the harmonic mean of the operations).
    """
    measured = measured_operations(run)
    members, place = measured.members, measured.place
    return pd.DataFrame(
        {
            "row": measured.row,
            "rank": members.rank[place],
            "node": members.node[place],
            "other_operations": measured.others["operations"],
            "other_sharing": measured.others["sharing"],
            "other_ranks": measured.others["ranks"],
        },
        copy=False,
    )


def measured_operations(run: Run) -> MeasuredOperations:
    """The measured operations of `run` with their concurrency.

    Raises KvbenchError: a damaged file, or one that does not hold every row.
    """
    if run.sampled_1_in() > 1:
        raise KvbenchError(f"{run.path} holds 1 in {run.sampled_1_in()} rows: {UNTOLD}")
    codes = run.columns(["phase", "errno", "op", "tier", "path", "nbytes"])
    active = codes.pop("nbytes") > 0
    counted = active & (codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0) & moves(codes["op"])
    row = np.flatnonzero(counted)
    kind = kind_numbers(codes)[counted]
    del codes
    times = run.columns(["t_start_ns", "wall_ns", "rank"])
    start, wall = times["t_start_ns"], times["wall_ns"]
    members, place = Members.of(run, times.pop("rank"))
    if len(row):
        # What ended before the first measured operation began was beside none of them; preconditioning is such.
        active &= start + wall > start[row].min()
        active |= counted
    others = _others(np.flatnonzero(active), counted, start, wall, place, members)
    chosen = slice(None) if len(row) == len(start) else row
    return MeasuredOperations(row, len(start), start[chosen], wall[chosen], kind, place[chosen], members, others)


def _others(
    active: NDArray[np.intp],
    counted: NDArray[np.bool_],
    start: NDArray[np.int64],
    wall: NDArray[np.int64],
    place: NDArray[np.uint32],
    members: Members,
) -> dict[str, NDArray[np.float32]]:
    if len(members.nodes) == 1 and len(active) == len(start):
        # Nothing has to be picked out, so nothing is copied.
        found = vars(others_active(start, wall, place))
        return found if counted.all() else {name: values[counted] for name, values in found.items()}
    # Where each counted row is among the counted ones.
    position = np.cumsum(counted) - 1
    found = {name: np.zeros(int(counted.sum()), np.float32) for name in AGAINST}
    for of_node in Grouping(members.node_place[place[active]]).split(active):
        # The sweep wants ranks without gaps.
        occurs = np.bincount(place[of_node], minlength=len(members.rank)) > 0
        number = (np.cumsum(occurs) - 1).astype(np.uint32)[place[of_node]]
        results = others_active(start[of_node], wall[of_node], number)
        mine = counted[of_node]
        target = position[of_node[mine]]
        for name in AGAINST:
            found[name][target] = getattr(results, name)[mine]
    return found
