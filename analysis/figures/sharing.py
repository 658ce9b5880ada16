"""The figures of a key space that ranks share: who read whose objects, how soon they could, and what was not kept.

A run whose ranks each had their own objects has none of these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.thread_time import SPLIT
from kvbench_analysis.tables.batch_sums import overlap
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, backed_percentile, percentiles
from kvbench_analysis.tables.window import Window

from kvbench.records.schema import Locality, Op, Phase, label

VIOLATIONS: Final = ("missing", "torn", "stale", "unseen")
"""Kinds of broken promises of a filesystem, as /sharing counts them (docs/sharing.md)."""

_GIB: Final = 1024**3


@dataclass(frozen=True)
class SharingFigures:
    """Empty tables, where ranks shared nothing."""

    reads: pd.DataFrame
    """Per writer (`own`, `same-node`, `other-node`): storage reads of the measured phase, their rate and wall time."""
    visibility: pd.DataFrame
    """Per writer and part (`heard`, `readable`): the time since the end of the write, of the objects looked for."""
    counts: dict[str, int]
    """Over all ranks and phases: objects written and retired, requests handed over, reads whose object had been evicted
    meanwhile, and violations by kind."""
    violations: tuple[str, ...]
    """What the first violations were, as sentences."""


def is_shared(run: Run) -> bool:
    """Whether the ranks of `run` shared one key space."""
    return run.attributes.get("namespace") == "shared"


def sharing_figures(run: Run, window: Window) -> SharingFigures:
    """All figures of the shared key space of `run`; rates are over `window`."""
    if not is_shared(run):
        return SharingFigures(pd.DataFrame(), pd.DataFrame(), {}, ())
    table = run.table("sharing")
    counts = {
        name: int(table[name].sum()) if name in table else 0
        for name in (
            "written_objects",
            "retired_objects",
            "handed_over_requests",
            "evicted_reads",
            "looked_for_objects",
            *(f"{kind}_violations" for kind in VIOLATIONS),
        )
    }
    return SharingFigures(
        reads=pd.DataFrame(_reads(run, window)),
        visibility=pd.DataFrame(_visibility(run)),
        counts=counts,
        violations=tuple(_sentences(run)),
    )


def _reads(run: Run, window: Window) -> Iterator[dict[str, Any]]:
    names = ["phase", "errno", "op", "tier", "locality"]
    codes = run.columns(names)
    storage = run.tiers["storage"].to_numpy(bool)
    counted = (codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0) & (codes["op"] == Op.READ)
    if len(storage):
        counted &= storage[codes["tier"]]
    locality = codes["locality"][counted]
    columns = {
        name: run.columns([name])[name][counted]
        for name in ("t_start_ns", "wall_ns", "nbytes", *(f"{part}_ns" for part in SPLIT))
    }
    overlapping = overlap(run.columns(["timed_by"])["timed_by"])[counted]
    inside = window.share_inside(columns["t_start_ns"], columns["wall_ns"])
    for kind in Locality:
        mine = locality == kind
        wall = columns["wall_ns"][mine]
        row: dict[str, Any] = {"writer": label(kind), "operations": len(wall)}
        row["bytes"] = int(columns["nbytes"][mine].sum(dtype=np.int64))
        row["gib_per_s"] = window.rate(float((columns["nbytes"][mine] * inside[mine]).sum()) / _GIB)
        told = not overlapping[mine].any()
        row |= reads_split({part: int(columns[f"{part}_ns"][mine].sum()) for part in SPLIT}, int(wall.sum()), told)
        yield row | _distribution(wall)


def reads_split(parts_ns: dict[str, int], wall_ns: int, told: bool) -> dict[str, Any]:
    """Shares of the wall time, of one writer's reads. Not `told` where they overlap: batches mix those of all."""
    shares = {part: value / wall_ns if told and wall_ns else float("nan") for part, value in parts_ns.items()}
    return {f"{part}_share": share for part, share in shares.items()} | {
        "split_of": "operations" if told else "unknown"
    }


def _visibility(run: Run) -> Iterator[dict[str, Any]]:
    found = run.table("visibility")
    if not len(found):
        return
    for kind in (Locality.SAME_NODE, Locality.OTHER_NODE):
        looked_for = found[found["locality"] == kind]
        seen = looked_for[looked_for["readable_ns"] != 0]
        if not len(looked_for):
            continue
        for part in ("heard", "readable"):
            times = (seen[f"{part}_ns"] - seen["written_ns"]).to_numpy(np.int64)
            yield {"writer": label(kind), "part": part, "objects": len(seen)} | _distribution(times)


def _distribution(times: "np.ndarray[Any, Any]") -> dict[str, Any]:
    row: dict[str, Any] = {"mean_ns": float(times.mean()) if len(times) else float("nan")}
    row |= dict(zip(PERCENTILE_COLUMNS, percentiles(times), strict=True))
    row["max_ns"] = float(times.max()) if len(times) else float("nan")
    return row | {"backed_percentile": backed_percentile(len(times))}


def _sentences(run: Run) -> Iterator[str]:
    for row in run.table("violations").head(8).to_dict("records"):
        yield f"{row['kind']}: rank {row['rank']} read what rank {row['writer']} wrote: {row['text']}"
