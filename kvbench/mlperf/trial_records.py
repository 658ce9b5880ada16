"""A trial's figures, recomputed from the records of its run file where there is one.

A run file is HDF5 from elsewhere: `records.reader` checks it before it believes it. Rows are read rank by rank, and of
a rank only the columns that are needed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.mlperf.foreign import kind_of
from kvbench.records.reader import Attribute, RunFile, open_run, read_columns
from kvbench.records.schema import RESIDENT_UNKNOWN, Op, Phase
from kvbench.units import GIB

_COLUMNS: Final = ("nbytes", "span_ns", "op", "tier", "phase", "errno", "resident_pct")
_READS: Final = (Op.READ,)
_WRITES: Final = (Op.WRITE, Op.DEMOTE)
"""What writes to storage: new entries, and entries that leave memory for it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a rank read from storage, or wrote to it, in the measured phase."""

    operations: int
    nbytes: int
    span_p95_ms: float
    """Of the spans that the rules call device: the load, the fsync. 0 without operations."""

    @property
    def gib(self) -> float:
        """Bytes in GiB."""
        return self.nbytes / GIB


@dataclass(frozen=True, slots=True)
class RankRecords:
    """What the records say of one rank."""

    reads: Moved
    writes: Moved
    resident_reads: int
    """Storage reads that found pages of their object in the page cache."""


@dataclass(frozen=True, slots=True)
class TrialRecords:
    """What a run file says; `problem` says why it says nothing."""

    path: Path
    problem: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[Mapping[str, Any], ...] = ()
    ranks: Mapping[int, RankRecords] = field(default_factory=dict)
    """Empty where the file does not hold every operation (a sample, histograms)."""

    @property
    def readable(self) -> bool:
        """Whether there is something to compare with."""
        return not self.problem


def read_records(path: Path) -> TrialRecords:
    """What the run file at `path` says, or why it cannot be used."""
    if kind_of(path) != "file":
        return TrialRecords(path, "no regular file")
    try:
        run = open_run(path)
        config = json.loads(str(run.attributes["config_json"]))
        nodes = _rows(read_columns(run, "nodes")) if "nodes" in run.tables else ()
        return TrialRecords(path, "", run.attributes, config, nodes, _ranks(run))
    except KvbenchError as error:
        return TrialRecords(path, f"unreadable ({str(error).removeprefix(f'{path}').lstrip(' :')})")


def _ranks(run: RunFile) -> dict[int, RankRecords]:
    table = run.tables.get("ranks")
    if table is None or not {"rank", "first_row", "rows"} <= set(table.columns):
        return {}
    if run.attributes.get("records", "full") != "full" and run.attributes.get("records_sampled_1_in") != 1:
        return {}
    places = read_columns(run, "ranks", ("rank", "first_row", "rows"))
    total = run.tables["records"].rows
    found = {}
    for rank, first, rows in zip(*(places[name].tolist() for name in ("rank", "first_row", "rows")), strict=True):
        if first < 0 or rows < 0 or first + rows > total:
            raise KvbenchError(f"{run.path}: the rows of rank {rank} are not in /records")
        found[int(rank)] = _rank(run, int(first), int(first + rows))
    return found


def _rank(run: RunFile, start: int, stop: int) -> RankRecords:
    rows = read_columns(run, "records", _COLUMNS, start, stop)
    storage = np.array([tier["kind"] != "memory" for tier in run.tiers] or [False])
    done = storage[rows["tier"]] & (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)
    reads = done & np.isin(rows["op"], _READS)
    resident = rows["resident_pct"][reads]
    return RankRecords(
        reads=_moved(rows, reads),
        writes=_moved(rows, done & np.isin(rows["op"], _WRITES)),
        resident_reads=int(np.count_nonzero((resident > 0) & (resident != RESIDENT_UNKNOWN))),
    )


def _moved(rows: Mapping[str, NDArray[Any]], chosen: NDArray[np.bool_]) -> Moved:
    spans = rows["span_ns"][chosen]
    p95 = float(np.percentile(spans, 95)) / 1e6 if len(spans) else 0.0
    return Moved(len(spans), int(rows["nbytes"][chosen].sum()), p95)


def _rows(columns: Mapping[str, NDArray[Any]]) -> tuple[Mapping[str, Any], ...]:
    values = {name: column.tolist() for name, column in columns.items()}
    length = min((len(column) for column in values.values()), default=0)
    return tuple({name: column[row] for name, column in values.items()} for row in range(length))
