"""The tables of docs/findings.md from what kvbench said as JSON.

    compare_table.py STORAGE,PATH=FILE.json ... [--across-nodes STORAGE=FILE.json ...]

First what `kvbench compare --json` said: one row for each storage, path, operation and figure, its value over the runs
of each side with their range, and the ratio with its interval. Then what `kvbench summary --json` said of runs in which
one node reads what the other has just written: one row for each storage.
"""

import json
import sys
from pathlib import Path
from typing import Any

SHOWN = {
    "gib_per_s": ("GiB/s", 1.0),
    "wall_p50_ns": ("P50, ms", 1e-6),
    "wall_p95_ns": ("P95, ms", 1e-6),
    "device_p50_ns": ("device P50, ms", 1e-6),
    "host_p50_ns": ("host P50, ms", 1e-6),
}
"""Metrics of `kvbench compare` in the table: what they are called, and the factor to that unit."""
ACROSS_NODES = "--across-nodes"


def row(storage: str, path: str, metric: dict[str, Any]) -> str:
    """One row in Markdown."""
    title, factor = SHOWN[metric["metric"]]

    def side(which: str) -> str:
        value, least, most = (metric[f"{which}_{part}"] * factor for part in ("value", "min", "max"))
        return f"{value:.3g} ({least:.3g} to {most:.3g})"

    ratio = f"{metric['ratio']:.3g} ({metric['low']:.3g} to {metric['high']:.3g})"
    mark = "" if metric["backed"] else "~"
    sides = f"{side('baseline')} | {side('target')}"
    return f"| {storage} | {path} | {metric['op']} | {title} | {sides} | {mark}{ratio} |"


def row_across_nodes(storage: str, sharing: dict[str, Any]) -> str:
    """One row in Markdown: how soon another node hears of what was written, can read it, and reads it."""
    parts = {part["part"]: part for part in sharing["visibility"] if part["writer"] == "other-node"}
    reads = next(part for part in sharing["reads"] if part["writer"] == "other-node")
    broken = sum(number for name, number in sharing["counts"].items() if name.endswith("_violations"))
    cells = [storage, f"{reads['operations']}; {reads['gib_per_s']:.3g} GiB/s; P50 {reads['p50_ns'] * 1e-6:.3g} ms"]
    for name in ("heard", "readable"):
        part = parts[name]
        cells.append(f"{part['p50_ns'] * 1e-6:.3g}, {part['max_ns'] * 1e-6:.3g} ({part['objects']} objects)")
    return f"| {' | '.join([*cells, str(broken)])} |"


def loaded(argument: str) -> tuple[str, Any]:
    """What stands before the `=`, and what the file behind it holds."""
    name, _, path = argument.partition("=")
    return name, json.loads(Path(path).read_text(encoding="utf-8"))


def main() -> None:
    """Print the tables."""
    arguments = sys.argv[1:]
    cut = arguments.index(ACROSS_NODES) if ACROSS_NODES in arguments else len(arguments)
    print(
        "| storage | path | operation | figure | node-local disk | storage | ratio (95 % interval) |",
        "|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for name, compared in map(loaded, arguments[:cut]):
        storage, _, path = name.partition(",")
        for metric in compared["metrics"]:
            if metric["op"] in ("read", "write") and metric["metric"] in SHOWN:
                print(row(storage, path, metric))
    if not arguments[cut + 1 :]:
        return
    print(
        "",
        "| storage | reads of what the other node wrote | heard of after its write: P50, longest, ms | readable: P50, "
        "longest, ms | missing, torn, stale or unseen |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    for storage, summary in map(loaded, arguments[cut + 1 :]):
        print(row_across_nodes(storage, summary["sharing"]))


main()
