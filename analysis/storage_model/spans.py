"""What took time in a run, as spans: operations on a tier, and what workers did between them. Estimates nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.schema import OVERLAPPING, Op, Phase, label
from kvbench.records.storage_model import BETWEEN, HAND_IN, NEXT, WAKE

_LOADS = (Op.READ, Op.PROMOTE)
_LEAST_NS = 1000
"""Of what lies between operations; less is not worth to be told from nothing."""
_MOST_HAND_IN = 0.7
"""Share of what lies between two batches."""
_WAITED = 30
"""Times the median."""
_CHORES = (Op.COMPACT,)

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Of one station; n of them, parallel columns."""

    station: str
    server: Longs
    """Which of several: spans of one share it."""
    kind: NDArray[Any]
    """Text; empty: it is there beside others, and not to be estimated."""
    nbytes: Longs
    start_ns: Longs
    end_ns: Longs
    counts: NDArray[np.bool_]
    """Whether it is one that others have beside them. What moves no bytes is not."""
    parts_ns: NDArray[np.int64]
    """(n, 3) device, host, run queue; -1: not known."""
    beside: int = 1
    """What one that does not count is itself, in the load that it sees."""


@dataclass(frozen=True)
class _Rows:
    """Columns of /records, in the order of ranks, threads and starts, and the request of each."""

    columns: dict[str, NDArray[Any]]
    request_start_ns: Longs
    """0: it has no row."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def end_ns(self) -> Longs:
        return np.asarray(self["t_start_ns"] + self["wall_ns"])


_COLUMNS = (
    "t_start_ns", "wall_ns", "device_ns", "host_ns", "runq_ns", "queue_ns", "nbytes", "errno", "request", "rank",
    "thread", "op", "tier", "phase", "timed_by", "batch",
)  # fmt: skip


def spans_of(run: Run, tier: int) -> Iterator[Spans]:
    """The spans of each station of a run whose tier number `tier` is the storage. Raises KvbenchError."""
    rows = _rows(run)
    if not len(rows["op"]):
        return
    storages = _servers(run, rows["rank"])
    yield _operations(rows, "storage", rows["tier"] == tier, storages)
    above = (rows["tier"] < tier) & ~np.isin(rows["tier"], _modelled(run))
    if above.any():
        yield _operations(rows, "memory", above, _nodes(run, rows["rank"]))
    yield _client(run, rows, tier, np.isin(rows["tier"], np.unique(rows["tier"][above])))


def _modelled(run: Run) -> list[int]:
    return [number for number, tier in enumerate(run.file.tiers) if tier.get("kind") == "gpu"]


def _rows(run: Run) -> _Rows:
    old = "batch" not in run.file.tables["records"].columns
    columns = run.columns([name for name in _COLUMNS if not (old and name == "batch")])
    if old:
        # Of version 0.1, which had no batches: every operation is one.
        columns["batch"] = np.arange(len(columns["op"]))
    order = np.lexsort((columns["t_start_ns"], columns["thread"], columns["rank"]))
    columns = {name: values[order] for name, values in columns.items()}
    requests = run.columns(["rank", "request", "start_ns"], "requests")
    names = requests["rank"].astype(np.int64) << 32 | requests["request"]
    sorting = np.argsort(names, kind="stable")
    wanted = columns["rank"].astype(np.int64) << 32 | columns["request"]
    start = np.zeros(len(wanted), np.int64)
    if len(names):
        at = np.minimum(np.searchsorted(names[sorting], wanted), len(names) - 1)
        found = names[sorting][at] == wanted
        start[found] = requests["start_ns"][sorting][at[found]]
    return _Rows(columns, start)


def _nodes(run: Run, rank: NDArray[Any]) -> Longs:
    return _looked_up(run.ranks, "node", rank)


def _servers(run: Run, rank: NDArray[Any]) -> Longs:
    """Which filesystem each rank was on."""
    own = run.table("directories")
    if not own.empty:
        return _looked_up(own, "filesystem_group", rank)
    nodes = run.nodes
    if nodes.empty or "filesystem_group" not in nodes:
        return _nodes(run, rank)
    group = dict(zip(nodes["node"].tolist(), nodes["filesystem_group"].tolist(), strict=True))
    return np.array([group.get(node, node) for node in _nodes(run, rank).tolist()], np.int64)


def _looked_up(table: Any, column: str, rank: NDArray[Any]) -> Longs:
    """`column` of the row of each rank; 0 where the table has none."""
    values = np.zeros(int(rank.max(initial=0)) + 1, np.int64)
    if not table.empty:
        known = table["rank"].to_numpy()
        inside = known < len(values)
        values[known[inside]] = table[column].to_numpy()[inside]
    return np.asarray(values[rank])


def _operations(rows: _Rows, station: str, chosen: NDArray[np.bool_], server: Longs) -> Spans:
    op, overlapping = rows["op"][chosen], np.isin(rows["timed_by"][chosen], OVERLAPPING)
    good = (rows["errno"][chosen] == 0) & (rows["phase"][chosen] != Phase.PRECONDITION) & ~np.isin(op, _CHORES)
    names = np.array([label(each) for each in Op], object)
    parts = np.stack([rows[name][chosen] for name in ("device_ns", "host_ns", "runq_ns")], axis=1)
    parts[overlapping] = -1
    return Spans(
        station=station,
        server=server[chosen],
        kind=np.where(good, names[op], ""),
        nbytes=rows["nbytes"][chosen],
        start_ns=rows["t_start_ns"][chosen],
        end_ns=rows.end_ns[chosen],
        counts=(rows["nbytes"][chosen] > 0) | (op == Op.SYNC),
        parts_ns=parts,
    )


def _client(run: Run, rows: _Rows, tier: int, in_memory: NDArray[np.bool_]) -> Spans:
    """What the workers of a rank did between operations: each rank is a server of its own."""
    start, end, rank = rows["t_start_ns"], rows.end_ns, rows["rank"].astype(np.int64)
    on_storage = rows["tier"] == tier
    names = np.array([label(each) for each in Op], object)
    what = np.where(on_storage, "storage ", "memory ").astype(object) + names[rows["op"]]
    of_thread = rank << 16 | rows["thread"]
    same = _same_as_before(of_thread)
    of_batch = same & _same_as_before(rows["batch"])
    usable = (on_storage | in_memory) & (rows["errno"] == 0) & (rows["phase"] != Phase.PRECONDITION)
    usable &= ~np.isin(rows["op"], (*_CHORES, Op.SYNC))

    last, handed_in_ns = _handed_in(run, rows, usable & np.isin(rows["op"], _LOADS))
    pieces = [(HAND_IN, last, end[last], handed_in_ns)]

    inside = np.flatnonzero(usable & of_batch & ~np.isin(rows["timed_by"], OVERLAPPING))
    pieces.append((BETWEEN, inside, end[inside - 1], start[inside]))

    first = np.flatnonzero(usable & ~of_batch & (rows.request_start_ns > 0))
    free_ns = np.where(same[first], end[first - 1], 0)
    ready_ns = np.maximum(start[first] - rows["queue_ns"][first], rows.request_start_ns[first])
    begin_ns = np.maximum(free_ns, ready_ns)
    waited = ~same[first] | (ready_ns > free_ns)
    woken, going_on = first[waited], first[~waited]
    pieces.append((WAKE, woken, begin_ns[waited], start[woken]))
    # The beginning of what lies between two batches is the hand-in of the one before.
    whole_ns = np.maximum(0, start[going_on] - free_ns[~waited])
    share = 0.0
    if len(last) and whole_ns.any():
        share = min(_MOST_HAND_IN, float(np.median(handed_in_ns - end[last]) / max(1.0, float(np.median(whole_ns)))))
    pieces.append((NEXT, going_on, free_ns[~waited] + (share * whole_ns).astype(np.int64), start[going_on]))

    at = np.concatenate([piece[1] for piece in pieces])
    ends = np.concatenate([piece[3] for piece in pieces])
    starts = np.minimum(np.concatenate([piece[2] for piece in pieces]), ends - _LEAST_NS)
    kinds = np.concatenate([what[piece[1]] + f" {piece[0]}" for piece in pieces])
    kinds[_waited(kinds, rows["nbytes"][at], ends - starts)] = ""
    # The load is the workers that are at work: on an operation, or between two.
    busy = np.flatnonzero(rows["wall_ns"] > 0)
    busy_ns = start[busy]
    own = np.searchsorted(busy, np.concatenate([inside, first]))
    busy_ns[own[own < len(busy)]] = np.concatenate([end[inside - 1], begin_ns])[own < len(busy)]
    none = np.full(len(busy), "", object)
    return Spans(
        station="client",
        server=np.concatenate([rank[at], rank[busy]]),
        kind=np.concatenate([kinds, none]),
        nbytes=np.concatenate([rows["nbytes"][at], rows["nbytes"][busy]]),
        start_ns=np.concatenate([starts, np.minimum(busy_ns, start[busy])]),
        end_ns=np.concatenate([ends, end[busy]]),
        counts=np.arange(len(at) + len(busy)) >= len(at),
        parts_ns=np.full((len(at) + len(busy), 3), -1, np.int64),
        beside=0,
    )


def _waited(kinds: NDArray[Any], nbytes: Longs, took_ns: Longs) -> NDArray[np.bool_]:
    """What took so long that the worker must have waited for something else: room, or an operation on the same block.
    A simulation of the same dispatcher has such waits of its own."""
    waited = np.zeros(len(kinds), np.bool_)
    number = np.unique(kinds.astype(str), return_inverse=True)[1]
    octave = np.rint(np.log2(nbytes + 1.0)).astype(np.int64)
    group = np.unique(number << 8 | octave, return_inverse=True)[1]
    for each in range(int(group.max(initial=-1)) + 1):
        mine = np.flatnonzero(group == each)
        waited[mine] = took_ns[mine] > _WAITED * np.median(took_ns[mine])
    return waited


def _same_as_before(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.concatenate([[False], values[1:] == values[:-1]])


def _handed_in(run: Run, rows: _Rows, loads: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Longs]:
    """The last load of each request (its row), and when the request knew of it; none where ranks serve together."""
    none = np.empty(0, np.intp), np.empty(0, np.int64)
    row = np.flatnonzero(loads)
    told = "load_ns" in run.file.tables["requests"].columns
    if not len(row) or not told or run.config.get("tensor_parallel", 1) != 1:
        return none
    request = rows["rank"][row].astype(np.int64) << 32 | rows["request"][row]
    order = np.lexsort((rows.end_ns[row], request))
    ends = np.append(request[order][1:] != request[order][:-1], True)
    last, request = row[order][ends], request[order][ends]
    asked = run.columns(["rank", "request", "start_ns", "look_up_ns", "load_ns", "hit_objects"], "requests")
    loaded = (asked["load_ns"] >= 0) & (asked["hit_objects"] > 0)
    asked = {name: values[loaded] for name, values in asked.items()}
    names = asked["rank"].astype(np.int64) << 32 | asked["request"]
    _, mine, theirs = np.intersect1d(request, names, return_indices=True)
    known_ns = (asked["start_ns"] + asked["look_up_ns"] + asked["load_ns"])[theirs]
    last = last[mine]
    well = known_ns > rows.end_ns[last]
    return last[well], known_ns[well]
