"""Attribution: where the time of slow operations went, and on which ranks and nodes they were.

The time of an operation is counted from when it was wanted: queueing and wall time. docs/contention.md has the rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.batch_sums import overlap
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.kinds import KIND, each_kind, kind_numbers
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.membership import Members
from kvbench_analysis.tables.percentiles import percentiles
from numpy.typing import NDArray

from kvbench.records.schema import Phase

PARTS: Final = ("device", "host", "runq", "queue")
"""What the time of an operation consists of: the three parts of its wall time, and the queueing before it."""
OVERLAPPING_PARTS: Final = ("wall", "queue")
"""Of a kind that has operations that overlap: their wall time has no parts."""
TAILS: Final = (95.0, 99.0)

SHARE_COLUMNS: Final = (
    *KIND, "tail", "part", "operations", "threshold_ns", "share", "rest_share", "excess_share", "mean_ns",
    "rest_mean_ns",
)  # fmt: skip
PLACE_COLUMNS: Final = (
    *KIND, "tail", "scope", "node", "rank", "host", "tail_operations", "operations", "tail_share", "operations_share",
    "lift",
)  # fmt: skip
MEDIAN_COLUMNS: Final = (
    *KIND, "scope", "node", "rank", "host", "operations", "median_ns", "typical_ns", "ratio", "score", "straggler",
    "slow_part",
)  # fmt: skip

FEWEST_MEMBERS: Final = 4
"""Ranks (or nodes) that it takes to tell which of them is out of line."""
FEWEST_OPERATIONS: Final = 20
"""A rank with fewer is not judged."""
SCORE_LIMIT: Final = 3.5
LEAST_RATIO: Final = 1.1
"""A straggler is slower by a tenth, too: where ranks are almost equal, a tiny difference has a high score."""

_NORMAL_MAD: Final = 0.6745
_NORMAL_MEAN: Final = 1.253314


@dataclass(frozen=True)
class Attribution:
    """What `attribution` found, as tidy tables."""

    shares: pd.DataFrame
    """SHARE_COLUMNS: one row per kind, tail (`p95`, `p99`) and part (of PARTS, or OVERLAPPING_PARTS)."""
    places: pd.DataFrame
    """PLACE_COLUMNS: one row per kind, tail and rank (scope `rank`) or node (scope `node`)."""
    medians: pd.DataFrame
    """MEDIAN_COLUMNS: one row per kind and rank or node: its median time against the others'."""

    @property
    def stragglers(self) -> pd.DataFrame:
        """The rows of `medians` that are out of line on the slow side, the slowest first."""
        found = self.medians[self.medians["straggler"].astype(bool)]
        return found.sort_values("ratio", ascending=False, ignore_index=True)


def attribution(run: Run) -> Attribution:
    """Where the time of the slowest operations of `run` went. Raises KvbenchError: damaged file.

    Of the phase `measure`, without those that ended in an error.
    """
    codes = run.columns(["phase", "errno", "op", "tier", "path"])
    counted = np.flatnonzero((codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0))
    kinds = kind_numbers(codes)[counted]
    del codes
    members, place = Members.of(run, run.columns(["rank"])["rank"])
    place = place[counted]
    columns = {part: run.columns([f"{part}_ns"])[f"{part}_ns"][counted] for part in ("wall", *PARTS)}
    overlapping = overlap(run.columns(["timed_by"])["timed_by"])[counted]
    shares: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    medians: list[dict[str, Any]] = []
    for labels, rows in each_kind(run, kinds):
        names_of_parts = OVERLAPPING_PARTS if overlapping[rows].any() else PARTS
        parts = {part: np.maximum(columns[part][rows], 0) for part in names_of_parts}
        total = np.sum(list(parts.values()), axis=0)
        mine = place[rows]
        for tail, threshold in zip(TAILS, percentiles(total, TAILS), strict=True):
            slow = total >= threshold
            names = labels | {"tail": f"p{tail:g}"}
            shares += [names | row for row in _shares(parts, total, slow, float(threshold))]
            places += [names | row for row in _places(members, mine, slow)]
        medians += [labels | row for row in _medians(members, mine, parts, total)]
    return Attribution(
        shares=pd.DataFrame(shares, columns=list(SHARE_COLUMNS)),
        places=pd.DataFrame(places, columns=list(PLACE_COLUMNS)),
        medians=pd.DataFrame(medians, columns=list(MEDIAN_COLUMNS)),
    )


def _shares(
    parts: dict[str, NDArray[Any]], total: NDArray[Any], slow: NDArray[np.bool_], threshold: float
) -> Iterator[dict[str, Any]]:
    count = int(slow.sum())
    others = len(slow) - count
    in_tail = {part: int(values[slow].sum()) for part, values in parts.items()}
    in_rest = {part: int(values.sum()) - in_tail[part] for part, values in parts.items()}
    whole, whole_rest = sum(in_tail.values()), sum(in_rest.values())
    excess = whole / count - whole_rest / others if others else float("nan")
    for part in parts:
        mean = in_tail[part] / count
        rest_mean = in_rest[part] / others if others else float("nan")
        yield {
            "part": part,
            "operations": count,
            "threshold_ns": threshold,
            "share": in_tail[part] / whole if whole else float("nan"),
            "rest_share": in_rest[part] / whole_rest if whole_rest else float("nan"),
            "excess_share": (mean - rest_mean) / excess if excess else float("nan"),
            "mean_ns": mean,
            "rest_mean_ns": rest_mean,
        }


def _scopes(members: Members, place: NDArray[np.uint32]) -> Iterator[tuple[NDArray[Any], list[dict[str, Any]]]]:
    """Ranks, then nodes: of each operation, the index of the member that it ran on, and the members' columns."""
    yield (
        place,
        [
            {"scope": "rank", "node": int(node), "rank": int(rank), "host": host}
            for rank, node, host in zip(members.rank, members.node, members.host, strict=True)
        ],
    )
    yield (
        members.node_place[place],
        [
            {"scope": "node", "node": int(node), "rank": -1, "host": host}
            for node, host in zip(members.nodes, members.node_hosts, strict=True)
        ],
    )


def _places(members: Members, place: NDArray[np.uint32], slow: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    for index, names in _scopes(members, place):
        every = np.bincount(index, minlength=len(names))
        tail = np.bincount(index[slow], minlength=len(names))
        for number in np.flatnonzero(every):
            share, expected = tail[number] / tail.sum(), every[number] / every.sum()
            yield names[number] | {
                "tail_operations": int(tail[number]),
                "operations": int(every[number]),
                "tail_share": float(share),
                "operations_share": float(expected),
                "lift": float(share / expected),
            }


def _medians(
    members: Members, place: NDArray[np.uint32], parts: dict[str, NDArray[Any]], total: NDArray[Any]
) -> Iterator[dict[str, Any]]:
    for index, names in _scopes(members, place):
        groups = Grouping(index)
        medians = np.array([percentiles(values, (50.0,))[0] for values in groups.split(total)])
        means = np.array([groups.sums(values) / groups.counts for values in parts.values()])
        judged = groups.counts >= FEWEST_OPERATIONS
        typical, scores = _scores(medians, judged)
        # What it has more of than is usual among the ranks.
        excess = means - np.median(means[:, judged] if judged.any() else means, axis=1, keepdims=True)
        for place_in, number in enumerate(groups.keys):
            median, score = float(medians[place_in]), float(scores[place_in])
            straggler = bool(judged[place_in] and score > SCORE_LIMIT and median > LEAST_RATIO * typical)
            yield names[number] | {
                "operations": int(groups.counts[place_in]),
                "median_ns": median,
                "typical_ns": typical,
                "ratio": median / typical if typical else float("nan"),
                "score": score,
                "straggler": straggler,
                "slow_part": list(parts)[int(np.argmax(excess[:, place_in]))] if straggler else "",
            }


def _scores(medians: NDArray[np.float64], judged: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """The median of the members' medians, and how far each is from it in units of their spread (NaN: too few).

    The modified z-score of B. Iglewicz and D. Hoaglin, How to Detect and Handle Outliers, 1993: 0.6745 (x - median) /
    MAD, out of line beyond 3.5; where more than half are equal and the MAD is 0, with the mean absolute deviation.
    """
    compared = medians[judged]
    typical = float(np.median(compared)) if len(compared) else float("nan")
    if len(compared) < FEWEST_MEMBERS:
        return typical, np.full(len(medians), np.nan)
    distances = np.abs(compared - typical)
    spread = float(np.median(distances)) / _NORMAL_MAD or float(distances.mean()) * _NORMAL_MEAN
    if not spread:
        return typical, np.zeros(len(medians))
    return typical, np.where(judged, (medians - typical) / spread, np.nan)
