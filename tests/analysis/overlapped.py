"""A synthetic run of which some operations overlap: their rows lose what such rows do not have, and /splits has it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from synthetic import SyntheticRun

from kvbench.records.schema import OVERLAPPING, Op, TimedBy
from kvbench.records.tables import SPLIT_DTYPE, as_columns

Kind = tuple[int, Op]
"""Tier and operation."""
PARTS = ("device", "host", "runq", "copy")


def overlapped(run: SyntheticRun, rng: np.random.Generator, shares: Mapping[Kind, float]) -> SyntheticRun:
    """`run`, of which such a share of the operations of these kinds overlap."""
    records = run.records.copy()
    for (tier, op), share in shares.items():
        mine = (records["tier"] == tier) & (records["op"] == op) & (rng.random(len(records)) < share)
        records["timed_by"][mine] = rng.choice([TimedBy.URING, TimedBy.NIXL], int(mine.sum()))
        for part in PARTS:
            records[f"{part}_ns"][mine] = 0
    tables = {**run.tables, "splits": as_columns(_splits(records, rng))}
    return SyntheticRun(records, run.requests, run.attributes, tables)


def overlaps(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of the rows are of operations that overlap."""
    return np.isin(rows["timed_by"], OVERLAPPING)


def _splits(records: NDArray[np.void], rng: np.random.Generator) -> NDArray[np.void]:
    names = ["rank", "tier", "op", "phase", "timed_by"]
    rows = records[overlaps(records)]
    kinds, place = np.unique(rows[names], return_inverse=True)
    splits = np.zeros(len(kinds), SPLIT_DTYPE)
    for name in names:
        splits[name] = kinds[name]
    splits["operations"] = np.bincount(place.reshape(-1), minlength=len(kinds))
    splits["batches"] = np.maximum(splits["operations"] // 8, 1)
    for part in ("device", "host", "runq"):
        splits[f"{part}_ns"] = rng.integers(0, 10**9, len(kinds))
    splits["copy_ns"] = splits["host_ns"] // 3
    splits["wall_ns"] = splits["device_ns"] + splits["host_ns"] + splits["runq_ns"]
    splits["helper_ns"] = splits["wall_ns"] * rng.choice([0, 1, 3], len(kinds))
    return splits
