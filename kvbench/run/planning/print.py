"""A plan as a user reads it."""

from typing import Any

from rich.console import Console

from kvbench.config.run_config import RunConfig
from kvbench.console import make_table
from kvbench.engine.chained import block_shape
from kvbench.engine.prefix_hits import IN_NO_BLOCK, MISSES
from kvbench.records.tables import PREFIX_WORDS
from kvbench.run.planning.curve import Curve
from kvbench.run.planning.figures import Planned, policy_of
from kvbench.run.planning.print_frontier import print_frontier
from kvbench.run.planning.print_predicted import print_predicted
from kvbench.units import format_bytes


def print_plan(planned: Planned, console: Console) -> None:
    """Print the point in a few lines, what became of the blocks, and what each tier moves."""
    sums, config, of = planned.sums, planned.config, planned.sums.looked_up
    ranks = "1 rank" if planned.ranks == 1 else f"{planned.ranks} ranks"
    span = "as fast as possible" if planned.span_s is None else f"in {planned.span_s:.6g} s"
    _say(
        console,
        f"plan of {config.name}: {ranks}, {planned.source}, fingerprint {planned.fingerprint}; decided, nothing was "
        "read or written",
    )
    print_bad_lines(planned.bad_lines, planned.first_bad_line, console)
    _say(
        console,
        f"{of.requests} requests {span}, {of.tokens} prompt tokens, {sums.full_blocks} full blocks of "
        f"{config.cache.block_tokens} tokens ({format_bytes(planned.block_bytes)} each{_objects(config)})",
    )
    share, ideal = (_percent(part, of.tokens) for part in (sums.hit.tokens, sums.unlimited_hit_tokens))
    _say(
        console,
        f"prefix hits: {share} of prompt tokens ({policy_of(config)}); {ideal} if nothing ever had to leave",
        style="bold",
    )
    _print_prefix(planned, console)
    print_moved(planned, console)
    if planned.lasting is not None:
        _print_lasting(planned.lasting, console)
    if planned.curve is not None:
        _print_curve(planned.curve, console)
    if planned.frontier is not None:
        print_frontier(planned.frontier.as_dict(planned.asked_rate, planned.rated), console)
    if planned.predicted is not None:
        print_predicted(planned.predicted, console)
    _say(
        console,
        "Capacity is per rank, all else of all ranks; a request counts in each row that it has a block in; read and "
        "written include moves between tiers.",
    )


def print_bad_lines(number: int, first: str, console: Console) -> None:
    """How many lines of a trace were left out, if any, and what is wrong with the first."""
    if number:
        lines = "1 bad line" if number == 1 else f"{number} bad lines"
        _say(console, f"{lines} of the trace left out; the first: {first}", style="yellow")


def _objects(config: RunConfig) -> str:
    """In what a block is stored, where that is not one object."""
    shape = block_shape(config)
    number = shape.parts * shape.ranks
    return "" if number == 1 else f", {number} objects of {format_bytes(shape.object_bytes)}"


def _print_prefix(planned: Planned, console: Console) -> None:
    """What became of all that was looked up."""
    prefix, of = planned.sums.prefix, planned.sums.looked_up
    rows = [("looked up", of)]
    rows += [(f"found on {tier.name}, up to the first gap", tier.hit) for tier in planned.tiers]
    rows += [(PREFIX_WORDS[what], prefix[what, -1]) for what in MISSES.values()]
    if prefix[IN_NO_BLOCK, -1].tokens:
        rows.append((PREFIX_WORDS[IN_NO_BLOCK], prefix[IN_NO_BLOCK, -1]))
    table = make_table(("of contexts", "requests", "blocks", "of blocks", "tokens", "of tokens"), left=1)
    for name, found in rows:
        table.add_row(
            name,
            str(found.requests),
            str(found.blocks),
            _percent(found.blocks, of.blocks),
            str(found.tokens),
            _percent(found.tokens, of.tokens),
        )
    console.print(table)


def print_moved(planned: Planned, console: Console) -> None:
    """Two rows for each tier: what is read, and what is written."""
    requests, size = max(1, planned.sums.looked_up.requests), planned.block_bytes
    own, asked = planned.trace_rate, planned.rate
    rates = ([] if own is None else [("the trace's pace", own)]) + (
        [] if asked is None else [(f"{asked:g} requests/s", asked)]
    )
    table = make_table(("tier", "capacity", "", "in all", "per request", *(name for name, _ in rates)), left=3)
    for tier in planned.tiers:
        capacity = "unlimited" if tier.capacity_bytes is None else format_bytes(tier.capacity_bytes)
        paces = [planned.pace(tier, rate) for _, rate in rates]
        for what, blocks, per_s in (
            ("read", tier.read_blocks, [pace.read_bytes_per_s for pace in paces]),
            ("written", tier.written_blocks, [pace.written_bytes_per_s for pace in paces]),
        ):
            moved = [format_bytes(nbytes) for nbytes in (blocks * size, blocks * size / requests)]
            names = (tier.name, capacity) if what == "read" else ("", "")
            table.add_row(*names, what, *moved, *(f"{format_bytes(nbytes)}/s" for nbytes in per_s))
    console.print(table)
    for tier in planned.tiers:
        for name, rate in rates:
            pace = planned.pace(tier, rate)
            if pace.drive_writes_per_day is None:
                continue
            _say(
                console,
                f"{tier.name}: written full {_rounded(pace.drive_writes_per_day)} times a day (drive writes per day, "
                f"{format_bytes(pace.as_dict()['written_bytes_per_day'])} a day) at {name}",
            )


def _print_lasting(lasting: dict[str, Any], console: Console) -> None:
    """How long rated drives last."""
    full, years, drives = (lasting[name] for name in ("drive_writes_per_day", "years", "drives"))
    _say(
        console,
        f"endurance: {'' if full is None else f'{_rounded(full)} drive writes per day, '}"
        f"{'no end' if years is None else f'{years:.3g} years'} of {drives} drive{'' if drives == 1 else 's'} rated "
        f"for {lasting['rated_tbw_bytes'] / 1e12:.4g} TB{'' if drives == 1 else ' each'}, at "
        f"{lasting['requests_per_s']:.4g} requests/s all day",
    )


def _rounded(number: float) -> str:
    """With three digits or all of its whole part."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _percent(part: float, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _print_curve(curve: Curve, console: Console) -> None:
    """A row for each capacity, a column for each policy."""
    names = list(curve.hit_blocks)
    knees = {name: curve.knee(name) for name in names}
    optimum = curve.optimum_blocks
    table = make_table(("capacity", *names, *(["at most"] if optimum else [])), left=0)
    for place, nbytes in enumerate(curve.capacities):
        error = "" if curve.error_blocks is None else f" ± {_percent(curve.error_blocks[place], curve.blocks)}"
        shares = [f"{curve.shares(name)[place]:.2%}{error}" + ("*" if knees[name] == place else " ") for name in names]
        table.add_row(format_bytes(nbytes), *shares, *([_percent(optimum[place], curve.blocks)] if optimum else []))
    _say(console, "prefix hits against the capacity of the last tier, of all blocks that were looked up", "italic")
    console.print(table)
    known = (
        "; at most: Belady's rule, which knows the future, over single blocks in the room of all tiers"
        if optimum
        else ""
    )
    _say(
        console,
        f"{_percent(curve.unlimited_hit_blocks, curve.blocks)} if it is never full; * the knee, behind which more room "
        f"is worth the least{known}",
    )
    if curve.sample is not None:
        _say(
            console,
            f"Estimated: the mean of {curve.samples} samples of {curve.sample:.4g} of the blocks each, which have none "
            "in common. ± is twice the standard error of that mean, by their spread: over the choice of blocks alone. "
            "No sample knows that a block out of it can be the gap before one in it, or that a chain is longer than a "
            "capacity: where it is, leave --sample out.",
        )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
