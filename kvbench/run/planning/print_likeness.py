"""What `trace fit` found, as a user reads it."""

from typing import Any

import numpy as np
from rich.console import Console

from kvbench.console import make_table
from kvbench.run.planning.likeness import Likeness
from kvbench.workload.sessions.fit import Fitted


def print_likeness(source: str, fitted: Fitted, compared: Likeness, console: Console) -> None:
    """Print each parameter with what it comes from, and how far what is made up with them is from the trace."""
    _say(console, f"sessions fitted to {source}")
    workload = fitted.workload.model_dump()
    table = make_table(("parameter", "value", "from (how many)"), left=3)
    for key, what in fitted.from_what.items():
        section, _, name = key.rpartition(".")
        table.add_row(f"workload.{key}", _value((workload[section] if section else workload)[name]), what)
    console.print(table)
    populations = len(compared.made_up_curves)
    _say(
        console,
        f"{compared.recorded_requests} requests, and {compared.made_up_requests.mean():.0f} on average "
        f"({compared.made_up_requests.min()} to {compared.made_up_requests.max()}) in each of {populations} "
        "populations made up",
    )
    table = make_table(("", "", "mean", "P50", "P95", "distance"), left=2)
    for one in compared.compared:
        for name, values in (("trace", one.recorded), ("made up", one.made_up)):
            shown = (float(values.mean()), *np.percentile(values, [50, 95]).tolist())
            first = name == "trace"
            table.add_row(
                f"{one.name}, {one.unit}" if first else "",
                name,
                *(f"{number:.4g}" if abs(number) < 1000 else f"{number:.0f}" for number in shown),
                f"{one.distance:.3f}" if first else "",
            )
    console.print(table)
    made_up = compared.made_up_unlimited
    off = 100 * np.abs(compared.curve_distances)
    _say(
        console,
        f"found by prefix, nothing evicted: {compared.recorded_unlimited:.2%} of blocks, made up {made_up.mean():.2%} "
        f"({made_up.min():.2%} to {made_up.max():.2%}); LRU of {compared.capacity_blocks[0]} to "
        f"{compared.capacity_blocks[-1]} blocks: {off.mean():.1f} points off on average, {off.max():.1f} at most",
    )
    _say(
        console,
        "distance: the largest difference of the two distribution functions (Kolmogorov and Smirnov's), from 0 to 1. "
        "Nothing was measured.",
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {number:.6g}" for key, number in value.items()) + "}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
