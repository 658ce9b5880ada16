"""What happened when: bandwidth, operations in flight, prefix hits, and what the nodes' counters said."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.marks import Axis, Line, Mark, Panel

_PERCENT: Final = 100.0
_LEAST_GIB: Final = 0.001
_CPU: Final = {
    "user": "cpu_user_pct", "system": "cpu_system_pct", "I/O wait": "cpu_iowait_pct", "steal": "cpu_steal_pct",
}  # fmt: skip
_PRESSURE: Final = {"a processor": "psi_cpu_some_pct", "memory": "psi_memory_some_pct", "I/O": "psi_io_some_pct"}
_DISK: Final = {"disk reads": "disk_read_gib_per_s", "disk writes": "disk_write_gib_per_s"}
_NETWORK: Final = {"received": "net_recv_gib_per_s", "sent": "net_sent_gib_per_s"}


def timeline_plot(nodes: pd.DataFrame, flows: pd.DataFrame) -> Figure:
    """The timeline of a run: `nodes` and `flows` are the tables of `timeline(run)`."""
    nodes, flows = _whole(nodes), _whole(flows)
    panels = [
        ("bandwidth, all nodes together", "GiB/s", _bandwidths(flows)),
        ("operations in flight", "per node", _lines(nodes, {"in flight": "in_flight"})),
        ("prefix hits", "% of prompt tokens", _lines(nodes, {"prefix hits": "prefix_hits"}, _PERCENT)),
        ("processors", "% of all processors", _lines(nodes, _CPU)),
        ("pressure: somebody waited for", "% of the time", _lines(nodes, _PRESSURE)),
        ("the disk's own counters", "GiB/s", _lines(nodes, _DISK)),
        ("the network's own counters", "GiB/s", _lines(nodes, _NETWORK)),
    ]
    x = Axis("seconds of the measured window")
    shown = [(title, unit, tuple(marks)) for title, unit, marks in panels]
    step = float(nodes["seconds"].max())
    band = (
        " A line is the mean over the nodes, its band goes from the lowest to the highest." if _several(nodes) else ""
    )
    return Figure(
        "timeline",
        "Timeline",
        f"Per {step:g} s; bandwidth and operations in flight are spread evenly over the time that each operation took. "
        f"Hits are per request started, counters are of whole nodes, with everything that runs on them.{band}",
        tuple(Panel(title, x, _from_zero(unit, marks), marks) for title, unit, marks in shown if marks),
        panel_height=130,
        one_x=True,
        own_legends=True,
    )


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Without a last part that is so short that its rates say nothing, and with the middle of each part."""
    long: pd.DataFrame = table[table["seconds"] >= table["seconds"].max() / 2]
    return long.assign(middle=long["second"] + long["seconds"] / 2)


def _several(nodes: pd.DataFrame) -> bool:
    return len(set(nodes["node"])) > 1


def _bandwidths(flows: pd.DataFrame) -> Iterator[Mark]:
    for number, ((tier, direction), flow) in enumerate(flows.groupby(["tier", "direction"], sort=False)):
        total = flow.groupby("middle")["gib_per_s"].sum()
        yield Line(f"{tier} {direction}", total.index.to_numpy(float), total.to_numpy(float), *palette.style(number))


def _lines(nodes: pd.DataFrame, columns: Mapping[str, str], factor: float = 1.0) -> Iterator[Mark]:
    """The mean over the nodes of each column that has values, with a band from the lowest to the highest node."""
    number = 0
    for name, column in columns.items():
        # A counter that hardly ever counts is no line along the bottom.
        if column not in nodes or not nodes[column].max() > (_LEAST_GIB if "gib" in column else 0):
            continue
        found = nodes.groupby("middle")[column].agg(["mean", "min", "max"]) * factor
        low, high = (found[end].to_numpy(float) if _several(nodes) else None for end in ("min", "max"))
        x, y = found.index.to_numpy(float), found["mean"].to_numpy(float)
        yield Line(name, x, y, *palette.style(number), low=low, high=high)
        number += 1


def _from_zero(unit: str, marks: Sequence[Mark]) -> Axis:
    tops = [np.nanmax(mark.y if mark.high is None else mark.high) for mark in marks if isinstance(mark, Line)]
    top = max(tops, default=0.0)
    return Axis(unit, low=0.0, high=1.08 * top if top > 0 else 1.0)
