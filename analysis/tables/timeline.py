"""The timeline: what every node did in each second of the measured window.

Operations are spread evenly over their duration, so a long one counts in every second it lasted. docs/contention.md
defines the columns. Draws nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pandas as pd
from kvbench_analysis.tables.kinds import READING, WRITING
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.membership import Members
from kvbench_analysis.tables.time_bins import spread
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Op, Phase

FLOW_COLUMNS: Final = ("node", "host", "second", "start_ns", "seconds", "tier", "direction", "gib_per_s", "in_flight")
RANK_COLUMNS: Final = (
    "rank", "node", "host", "second", "start_ns", "seconds", "read_gib_per_s", "write_gib_per_s", "in_flight",
)  # fmt: skip
_COUNTERS: Final = {
    "cpu_user_pct": ("cpu_user_pct", 1.0),
    "cpu_system_pct": ("cpu_system_pct", 1.0),
    "cpu_iowait_pct": ("cpu_iowait_pct", 1.0),
    "cpu_steal_pct": ("cpu_steal_pct", 1.0),
    # Microseconds of stall in a second, as a percentage of it.
    "psi_cpu_some_us": ("psi_cpu_some_pct", 1e-4),
    "psi_memory_some_us": ("psi_memory_some_pct", 1e-4),
    "psi_io_some_us": ("psi_io_some_pct", 1e-4),
    "disk_read_bytes": ("disk_read_gib_per_s", 1 / 2**30),
    "disk_write_bytes": ("disk_write_gib_per_s", 1 / 2**30),
    "net_recv_bytes": ("net_recv_gib_per_s", 1 / 2**30),
    "net_sent_bytes": ("net_sent_gib_per_s", 1 / 2**30),
}
"""Columns of /samples that hold a mean since the sample before (`_pct`) or a running count: what becomes of them."""
SAMPLE_COLUMNS: Final = (*(name for name, _ in _COUNTERS.values()), "memory_available_bytes")
NODE_COLUMNS: Final = (
    "node", "host", "second", "start_ns", "seconds", "in_flight", "requests", "prefix_blocks", "prefix_hits",
    *SAMPLE_COLUMNS,
)  # fmt: skip

_GIB: Final = 1024**3
_DIRECTIONS: Final = ("read", "write")


@dataclass(frozen=True)
class Timeline:
    """What `timeline` found, as tidy tables. `second` counts from the start of the measured window."""

    nodes: pd.DataFrame
    """NODE_COLUMNS: one row per node and second; a figure that there is not is NaN."""
    flows: pd.DataFrame
    """FLOW_COLUMNS: one row per node, second, tier and direction (`read`, `write`) that occur in the run."""
    ranks: pd.DataFrame
    """RANK_COLUMNS: one row per rank and second, all tiers together."""
    sampled_1_in: int = 1
    """Above 1, rates and numbers are estimates: those of a sample of 1 in so many rows, times that."""


def timeline(run: Run, step_s: float = 1.0) -> Timeline:
    """What every node and rank of `run` did, in parts of `step_s` seconds (the last may be shorter).

    A run without a measured window is shown from its first to its last operation. Of a file that holds a sample of its
    rows, the figures are estimates without bias (`sampled_1_in`). Raises KvbenchError: damaged file.
    """
    columns = run.columns(["phase", "errno", "op", "tier", "nbytes", "t_start_ns", "wall_ns", "rank"])
    names = ["phase", "rank", "start_ns", "hit_objects", "miss_objects", "hit_tokens", "miss_tokens"]
    requests = run.columns(names, "requests")
    rank = (columns.pop("rank"), requests.pop("rank"), run.ranks.get("rank", np.empty(0, np.uint32)))
    members, place = Members.of(run, np.concatenate(rank).astype(np.uint32))
    edges = _edges(run, columns, step_s)
    if edges is None:
        nothing = [pd.DataFrame(columns=list(names)) for names in (NODE_COLUMNS, FLOW_COLUMNS, RANK_COLUMNS)]
        return Timeline(nothing[0], nothing[1], nothing[2])
    operations = _Operations.of(columns, place[: len(rank[0])], len(members.rank), edges, run.sampled_1_in())
    nodes = _frame(members.nodes, members.node_hosts, edges)
    nodes["in_flight"] = _of_nodes(operations.in_flight, members).ravel()
    line = members.node_place[place[len(rank[0]) : len(rank[0]) + len(rank[1])]]
    for name, values in _hits(requests, line, len(members.nodes), edges, run.serves_as_engine):
        nodes[name] = values * run.sampled_1_in("requests") if name == "requests" else values
    samples = [_samples(run.samples, int(node), edges) for node in members.nodes]
    for name in SAMPLE_COLUMNS:
        nodes[name] = np.concatenate([of_node[name] for of_node in samples]) if samples else np.empty(0)
    ranks = _frame(members.node, members.host, edges)
    ranks["rank"] = np.repeat(members.rank, len(edges) - 1)
    for direction in _DIRECTIONS:
        ranks[f"{direction}_gib_per_s"] = operations.direction(direction).ravel()
    ranks["in_flight"] = operations.in_flight.ravel()
    return Timeline(
        nodes=nodes[list(NODE_COLUMNS)],
        flows=_flows(run, operations, members, edges),
        ranks=ranks[list(RANK_COLUMNS)],
        sampled_1_in=max(run.sampled_1_in(), run.sampled_1_in("requests")),
    )


def _edges(run: Run, columns: Mapping[str, NDArray[Any]], step_s: float) -> NDArray[np.int64] | None:
    window = Window.of(run.attributes)
    start, end = window.start_ns, window.end_ns
    if window.seconds is None:
        mine = columns["phase"] == Phase.MEASURE
        if not mine.any():
            return None
        start = int(columns["t_start_ns"][mine].min())
        end = max(int((columns["t_start_ns"] + columns["wall_ns"])[mine].max()), start + 1)
    return np.append(np.arange(start, end, max(round(step_s * 1e9), 1)), end)


@dataclass(frozen=True)
class _Operations:
    """What the operations that moved bytes did in each part of the time: arrays (ranks, parts)."""

    gib_per_s: dict[tuple[int, str], NDArray[np.float64]]
    """Per tier and direction, of the measured operations."""
    busy: dict[tuple[int, str], NDArray[np.float64]]
    """The mean number of them in flight."""
    in_flight: NDArray[np.float64]
    """The mean number of operations in flight, whatever their phase and however they ended."""

    @classmethod
    def of(
        cls,
        columns: Mapping[str, NDArray[Any]],
        place: NDArray[np.uint32],
        ranks: int,
        edges: NDArray[np.int64],
        rows_each: int,
    ) -> Self:
        """`rows_each`: for how many rows of the run each row stands."""
        # The group of a row: 0 for what is only in flight, else its tier and direction.
        reads, writes = (np.isin(np.arange(len(Op)), ops)[columns["op"]] for ops in (READING, WRITING))
        group = columns["tier"].astype(np.uint16) * np.uint16(2) + writes + np.uint16(1)
        group[~((reads | writes) & (columns["phase"] == Phase.MEASURE) & (columns["errno"] == 0))] = 0
        active = columns["nbytes"] > 0
        seconds = np.diff(edges) / 1e9
        in_flight = np.zeros((ranks, len(seconds)))
        gib_per_s, busy = {}, {}
        for number in np.unique(group[active]):
            rows = np.flatnonzero(active & (group == number))
            start, wall, nbytes = (columns[name][rows] for name in ("t_start_ns", "wall_ns", "nbytes"))
            moved, lasted = spread(start, wall, (nbytes, wall), edges, place[rows], ranks)
            moved *= rows_each
            lasted *= rows_each / (seconds * 1e9)
            in_flight += lasted
            if number:
                key = ((int(number) - 1) // 2, _DIRECTIONS[(int(number) - 1) % 2])
                gib_per_s[key], busy[key] = moved / _GIB / seconds, lasted
        return cls(gib_per_s, busy, in_flight)

    def direction(self, direction: str) -> NDArray[np.float64]:
        """GiB/s of all tiers."""
        result = np.zeros_like(self.in_flight)
        for (_, way), values in self.gib_per_s.items():
            result += values if way == direction else 0
        return result


def _of_nodes(of_ranks: NDArray[np.float64], members: Members) -> NDArray[np.float64]:
    result = np.zeros((len(members.nodes), of_ranks.shape[1]))
    np.add.at(result, members.node_place, of_ranks)
    return result


def _frame(node: NDArray[np.int64], host: tuple[str, ...], edges: NDArray[np.int64]) -> pd.DataFrame:
    parts = len(edges) - 1
    return pd.DataFrame(
        {
            "node": np.repeat(node, parts),
            "host": np.repeat(np.array(host, dtype=object), parts),
            "second": np.tile((edges[:-1] - edges[0]) / 1e9, len(node)),
            "start_ns": np.tile(edges[:-1], len(node)),
            "seconds": np.tile(np.diff(edges) / 1e9, len(node)),
        }
    )


def _flows(run: Run, operations: _Operations, members: Members, edges: NDArray[np.int64]) -> pd.DataFrame:
    tables = []
    for (tier, direction), rates in operations.gib_per_s.items():
        table = _frame(members.nodes, members.node_hosts, edges)
        table["tier"], table["direction"] = str(run.tiers["name"].iloc[tier]), direction
        table["gib_per_s"] = _of_nodes(rates, members).ravel()
        table["in_flight"] = _of_nodes(operations.busy[tier, direction], members).ravel()
        tables.append(table[list(FLOW_COLUMNS)])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FLOW_COLUMNS))


def _hits(
    requests: Mapping[str, NDArray[Any]],
    line: NDArray[np.intp],
    lines: int,
    edges: NDArray[np.int64],
    as_engine: bool,
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Of the requests that started in each part: how many, and what share of their contexts they found, where they are
    served as an engine does it (else NaN: look-ups of several kinds have no common share)."""
    parts = len(edges) - 1
    part = np.searchsorted(edges, requests["start_ns"], side="right") - 1
    mine = (requests["phase"] == Phase.MEASURE) & (part >= 0) & (part < parts)
    key = line[mine] * parts + part[mine]
    yield "requests", np.bincount(key, minlength=lines * parts)
    for name, unit in (("prefix_blocks", "objects"), ("prefix_hits", "tokens")):
        hits, misses = (
            np.bincount(key, requests[f"{kind}_{unit}"][mine], minlength=lines * parts) for kind in ("hit", "miss")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            yield name, hits / (hits + misses) if as_engine else np.full(lines * parts, np.nan)


def _samples(samples: pd.DataFrame, node: int, edges: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """What the samples of `node` say about each part of the time; NaN where none of them reaches."""
    nothing = np.full(len(edges) - 1, np.nan)
    result = dict.fromkeys(SAMPLE_COLUMNS, nothing)
    if not {"node", "t_ns"} <= set(samples):
        return result
    mine = samples[samples["node"] == node].sort_values("t_ns")
    times = mine["t_ns"].to_numpy(np.int64)
    if len(times) < 2:
        return result
    for source, (name, factor) in _COUNTERS.items():
        if source not in mine:
            continue
        values = mine[source].to_numpy(np.float64)
        # -1 stands for a counter that the node does not have.
        values = np.where(values < 0, np.nan, values)
        # A counter that goes back was set to 0.
        steps = values[1:] * np.diff(times) / 1e9 if source.endswith("_pct") else np.diff(values)
        result[name] = _per_second(times, np.where(steps < 0, np.nan, steps), edges) * factor
    if "memory_available_bytes" in mine:
        values = mine["memory_available_bytes"].to_numpy(np.float64)
        middle = (edges[:-1] + edges[1:]) / 2
        near = np.interp(middle, times, np.where(values < 0, np.nan, values), left=np.nan, right=np.nan)
        result["memory_available_bytes"] = near
    return result


def _per_second(times: NDArray[np.int64], steps: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.float64]:
    """The rate in each part of the time of what grew by `steps` between the `times`, evenly; NaN where unknown.

    A part that the samples cover to less than half is unknown.
    """
    known = ~np.isnan(steps)
    amount = np.concatenate(([0], np.cumsum(np.where(known, steps, 0))))
    seconds = np.concatenate(([0], np.cumsum(np.where(known, np.diff(times) / 1e9, 0))))
    grown, covered = (np.diff(np.interp(edges, times, total)) for total in (amount, seconds))
    enough = covered >= np.diff(edges) / 1e9 / 2
    return np.where(enough, grown / np.where(enough, covered, 1), np.nan)
