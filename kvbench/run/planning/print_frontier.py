"""The frontier of hits against writes, and how long drives last, as a user of `plan` reads them."""

from typing import Any

from rich.console import Console

from kvbench.console import make_table
from kvbench.units import format_bytes


def print_frontier(frontier: dict[str, Any], console: Console) -> None:
    """Print what `Frontier.as_dict` gave: a row for each way, the most hits first, * for those on the frontier."""
    points = sorted(frontier["points"], key=lambda point: (-point["hit_blocks"], point["written_bytes"]))
    daily, several = frontier["requests_per_s"] is not None, len({point["write"] for point in points}) > 1
    rated = any(point["rated"] for point in points)
    heads = ["admission", *(["write"] if several else []), "policy", "capacity", "hits"]
    heads += [
        *(["TB a day", "times full a day"] if daily else ["written a request"]),
        *(["years"] if rated else []),
        "",
    ]
    table = make_table(heads, left=3 if several else 2)
    for point in points:
        capacity = point["capacity_bytes_per_rank"]
        table.add_row(
            point["admission"],
            *([point["write"]] if several else []),
            point["policy"],
            "unlimited" if capacity is None else format_bytes(capacity),
            f"{point['block_hit_share']:.2%}",
            *_written(point, daily),
            *([_years(point["rated"])] if rated else []),
            "*" if point["on_frontier"] else "+" if point["best_of_capacity"] else " ",
        )
    _say(console, "blocks found against what the last tier is written, decided and not measured", "italic")
    console.print(table)
    pace = f" at {frontier['requests_per_s']:.4g} requests/s" if daily else ""
    _say(
        console,
        f"Hits: of all {frontier['blocks']} blocks that were looked up, all ranks together{pace}; TB is 10^12 bytes. "
        "* the frontier: no other finds as much and writes less, or finds more and writes no more; "
        "+ the same among those with its capacity.",
    )


def _written(point: dict[str, Any], daily: bool) -> list[str]:
    if not daily:
        return [format_bytes(point["written_bytes_per_request"])]
    full = point["capacity_writes_per_day"]
    return [f"{point['written_bytes_per_day'] / 1e12:.4g}", "-" if full is None else f"{full:.3g}"]


def _years(rated: dict[str, Any] | None) -> str:
    return "-" if rated is None or rated["years"] is None else f"{rated['years']:.3g}"


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
