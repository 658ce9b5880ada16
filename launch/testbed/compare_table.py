"""The table of docs/findings.md from what `kvbench compare --json` said: `compare_table.py NAME=FILE.json ...`.

One row for each NAME, operation and figure: its value over the runs of each side with their range, and the ratio with
its interval.
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


def row(name: str, metric: dict[str, Any]) -> str:
    """One row in Markdown."""
    title, factor = SHOWN[metric["metric"]]

    def side(which: str) -> str:
        value, least, most = (metric[f"{which}_{part}"] * factor for part in ("value", "min", "max"))
        return f"{value:.3g} ({least:.3g} to {most:.3g})"

    ratio = f"{metric['ratio']:.3g} ({metric['low']:.3g} to {metric['high']:.3g})"
    mark = "" if metric["backed"] else "~"
    return f"| {name} | {metric['op']} | {title} | {side('baseline')} | {side('target')} | {mark}{ratio} |"


def main() -> None:
    """Print the table."""
    print(
        "| path | operation | figure | node-local disk | GlusterFS | ratio (95 % interval) |",
        "|---|---|---|---|---|---|",
        sep="\n",
    )
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        for metric in json.loads(Path(path).read_text())["metrics"]:
            if metric["op"] in ("read", "write") and metric["metric"] in SHOWN:
                print(row(name, metric))


main()
