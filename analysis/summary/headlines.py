"""What came of a run, in sentences. Computes no figure."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from kvbench_analysis.tables.percentiles import operations_needed
from kvbench_analysis.text import units


def headlines(totals: pd.DataFrame) -> Iterator[str]:
    """A sentence for storage reads and one for storage writes (memory where there is no storage I/O)."""
    moved = _moved(totals)
    if moved.empty:
        yield "no reads or writes were measured"
    elif moved["storage"].iloc[0] != "storage":
        yield "no storage operations were measured"
    for row in moved.to_dict("records"):
        yield f"{_rate_and_p95(row)} per operation of {_sizes(row)} ({_split(row)})"
    beside = compaction(totals)
    if beside:
        yield beside


def compaction(totals: pd.DataFrame) -> str:
    """What the layout of the storage tier wrote beside the workload; "" where it compacts nothing."""
    storage = totals[totals["storage"] == "storage"]
    nbytes = storage.groupby("op")["bytes"].sum()
    if "compact" not in nbytes:
        return ""
    asked, moved = int(nbytes.get("write", 0)) + int(nbytes.get("demote", 0)), int(nbytes["compact"])
    text = f"written to storage: {units.size(asked + moved)}, of which compaction {units.size(moved)}"
    return f"{text} ({(asked + moved) / asked:.3g} bytes for each that the workload wrote)" if asked else text


def answer(totals: pd.DataFrame) -> str:
    """The first of the headlines, short enough for a line: storage reads, or else what there was."""
    moved = _moved(totals)
    if moved.empty:
        return "no reads or writes were measured"
    row = moved.to_dict("records")[0]
    return f"{_rate_and_p95(row)} ({_split(row).replace(' %,', ',')})"


def _moved(totals: pd.DataFrame) -> pd.DataFrame:
    moved = totals[totals["op"].isin(["read", "write"])]
    storage = moved[moved["storage"] == "storage"]
    return moved if storage.empty else storage


def _rate_and_p95(row: dict[Any, Any]) -> str:
    rate = f"{units.digits(row['gib_per_s'])} GiB/s" if row["gib_per_s"] == row["gib_per_s"] else "no rate"
    p95 = units.percentile(row["wall_p95_ns"], row["percentiles_of"], operations_needed(95))
    return f"{row['storage']} {row['op']}s: {rate}, P95 {p95}"


def _split(row: dict[Any, Any]) -> str:
    shares = (("device", row["device_share"]), ("host", row["host_share"]), ("run queue", row["runq_share"]))
    return ", ".join(f"{name} {units.share(share)}" for name, share in shares)


def _sizes(row: dict[Any, Any]) -> str:
    least, most = units.size(row["size_min_bytes"]), units.size(row["size_max_bytes"])
    return least if least == most else f"{least} to {most}, P50 {units.size(row['size_p50_bytes'])}"
