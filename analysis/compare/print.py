"""Prints a comparison on a console, and as JSON. Computes no figure."""

import json
import math
from typing import Any, Final

import pandas as pd
from kvbench_analysis.compare.comparison import Comparison
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from kvbench_analysis.text.units import duration
from rich.console import Console
from rich.text import Text

_STYLES = {"better": "green", "worse": "red", "same": ""}
_HEADINGS: Final = ("metric", "baseline", "target", "ratio", "95 % interval", "")
_WORDS: Final = frozenset((0, 5))
"""Columns that hold words."""


def print_comparison(comparison: Comparison, console: Console) -> None:
    """One table for each target against the baseline, after the warnings and what the runs differ in."""
    for row in comparison.warnings.to_dict("records"):
        about = f"{row['label']}: " if row["label"] else ""
        console.print(safe_text(f"Warning: {about}{row['message']}", "yellow"))
    if len(comparison.differences):
        console.print("The runs differ in:")
        for row in comparison.differences.astype(str).to_dict("records"):
            console.print(safe_text("  " + ", ".join(f"{key} {value}" for key, value in row.items())))
    for (baseline, target), metrics in comparison.metrics.groupby(["baseline", "target"], sort=False):
        console.print(safe_text(f"{target} against {baseline}", "bold"))
        for (tier, op), part in metrics.groupby(["tier", "op"], sort=False):
            rows = [_cells({str(key): value for key, value in row.items()}) for row in part.to_dict("records")]
            print_table(console, f"{tier} {op}".strip() or "all", _HEADINGS, rows, left=_WORDS)
    console.print(
        "Below a figure of repeated runs stands its range. ratio: target by baseline; its interval is a bootstrap over "
        "repeated runs, or over blocks of time where there is one run; a verdict where the interval leaves out 1. "
        "~: too few operations for the percentile.",
    )


def _cells(row: dict[str, Any]) -> tuple[Text | str, ...]:
    unit = str(row["unit"])
    # Times are shown with a unit of their own each; the others have theirs in the name.
    name = str(row["metric"]).removesuffix("_ns").replace("_", " ")
    interval = "" if _missing(row["low"]) else f"{_ratio(row['low'])}..{_ratio(row['high'])}"
    verdict = str(row["verdict"])
    return (
        name,
        _value(row["baseline_value"], row["baseline_min"], row["baseline_max"], int(row["baseline_runs"]), unit),
        _value(row["target_value"], row["target_min"], row["target_max"], int(row["target_runs"]), unit),
        "" if _missing(row["ratio"]) else ("" if row["backed"] else "~") + _ratio(row["ratio"]),
        interval,
        Text(verdict, _STYLES.get(verdict, "")),
    )


def _value(value: float, least: float, most: float, runs: int, unit: str) -> str:
    if _missing(value):
        return ""
    if unit != "ns":
        return f"{value:.4g}" + (f"\n{least:.3g}..{most:.3g}" if runs > 1 else "")
    return duration(value) + (f"\n{_durations(duration(least), duration(most))}" if runs > 1 else "")


def _ratio(value: float) -> str:
    """Three digits; one where they need an exponent, so that an interval fits beside the figures."""
    return f"{value:.3g}" if 0.001 <= abs(value) < 999.5 or value == 0 else f"{value:.0e}"


def _durations(least: str, most: str) -> str:
    """`4.08..4.98 ms`: a unit that both have stands once."""
    number, _, unit = least.partition(" ")
    return f"{number}..{most}" if unit == most.partition(" ")[2] else f"{least}..{most}"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def comparison_to_json(comparison: Comparison) -> str:
    """The tables of `comparison` as lists of rows; figures that do not exist are null."""
    tables = {
        "metrics": comparison.metrics,
        "runs": comparison.runs,
        "differences": comparison.differences,
        "warnings": comparison.warnings,
    }
    return json.dumps({name: _rows(table) for name, table in tables.items()}, indent=2)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows
