"""A plan as a user reads it."""

from rich.console import Console

from kvbench.console import make_table
from kvbench.run.planning.curve import Curve
from kvbench.run.planning.planned import Planned, policy_of
from kvbench.units import format_bytes


def print_plan(planned: Planned, console: Console) -> None:
    """Print the point in a few lines, what became of the blocks, and a row for each tier."""
    sums, config = planned.sums, planned.config
    ranks = "1 rank" if planned.ranks == 1 else f"{planned.ranks} ranks"
    span = "as fast as possible" if planned.span_s is None else f"in {planned.span_s:.6g} s"
    _say(
        console,
        f"plan of {config.name}: {ranks}, {planned.source}, fingerprint {planned.fingerprint}; decided, nothing was "
        "read or written",
    )
    _say(
        console,
        f"{sums.requests} requests {span}, {sums.input_tokens} prompt tokens, {sums.full_blocks} full blocks of "
        f"{config.cache.block_tokens} tokens ({format_bytes(planned.block_bytes)} each)",
    )
    share, ideal = (_percent(part, sums.input_tokens) for part in (sums.hit_tokens, sums.ideal_hit_tokens))
    _say(
        console,
        f"prefix hits: {share} of prompt tokens ({policy_of(config)}); {ideal} if nothing ever had to leave",
        style="bold",
    )
    table = make_table(("blocks", "number", "share"), left=1)
    for name, blocks in (
        ("looked up", sums.blocks),
        ("found, up to the first gap", sums.hit_blocks),
        ("never seen before", sums.never_seen_blocks),
        ("seen, and gone since", sums.evicted_blocks),
        ("there, but behind a gap", sums.behind_gap_blocks),
    ):
        table.add_row(name, str(blocks), _percent(blocks, sums.blocks))
    console.print(table)
    table = make_table(("tier", "capacity", "found", "read", "written", "read/s", "written/s"), left=1)
    size = planned.block_bytes
    for tier in planned.tiers:
        moved = tier.read_blocks * size, tier.written_blocks * size
        table.add_row(
            tier.name,
            "unlimited" if tier.capacity_bytes is None else format_bytes(tier.capacity_bytes),
            str(tier.hit_blocks),
            *(format_bytes(nbytes) for nbytes in moved),
            *(format_bytes(nbytes / planned.span_s) if planned.span_s else "-" for nbytes in moved),
        )
    console.print(table)
    for tier in planned.tiers:
        writes = planned.drive_writes_per_day(tier)
        if writes is not None:
            _say(console, f"{tier.name}: written full {_rounded(writes)} times a day (drive writes per day)")
    if planned.curve is not None:
        _print_curve(planned.curve, console)
    _say(
        console,
        "Capacity is per rank, all else of all ranks; found is in blocks, read and written are in bytes, moves between "
        "tiers included; rates are at the speed of the trace.",
    )


def _rounded(number: float) -> str:
    """With three digits or all of its whole part."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _print_curve(curve: Curve, console: Console) -> None:
    """A row for each capacity, a column for each policy."""
    names = list(curve.hit_blocks)
    knees = {name: curve.knee(name) for name in names}
    optimum = curve.optimum_blocks
    table = make_table(("capacity", *names, *(["at most"] if optimum else [])), left=0)
    for place, nbytes in enumerate(curve.capacities):
        shares = [f"{curve.shares(name)[place]:.2%}" + ("*" if knees[name] == place else " ") for name in names]
        table.add_row(format_bytes(nbytes), *shares, *([_percent(optimum[place], curve.blocks)] if optimum else []))
    _say(console, "prefix hits against the capacity of the last tier, of all blocks that were looked up", "italic")
    console.print(table)
    known = "; at most: Belady's rule, which knows the future, over single blocks" if optimum else ""
    _say(
        console,
        f"{_percent(curve.unlimited_hit_blocks, curve.blocks)} if it is never full; * the knee, behind which more room "
        f"is worth the least{known}",
    )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
