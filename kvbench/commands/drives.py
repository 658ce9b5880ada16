"""The options that say what the drives under test are rated for, of all commands that have them."""

import functools
from collections.abc import Callable
from typing import Any

import click

from kvbench.commands.options import Finite
from kvbench.records.endurance import RatedDrives
from kvbench.units import parse_bytes


def _size(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        nbytes = parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not nbytes:
        raise click.BadParameter("expected a size above 0")
    return nbytes


_OPTIONS = (
    click.option(
        "--rated-tbw", callback=_size, metavar="SIZE", help="Rated endurance of a drive: bytes written, as 3500TB."
    ),
    click.option(
        "--rated-dwpd",
        type=Finite(min=0, min_open=True, max=1e4),
        metavar="N",
        help="In its place: drive writes per day, with --drive-capacity.",
    ),
    click.option("--drive-capacity", callback=_size, metavar="SIZE", help="Of a drive, as 3.84TB."),
    click.option(
        "--warranty-years",
        type=Finite(min=0, min_open=True, max=100),
        metavar="N",
        help="Of --rated-dwpd.  [default: 5]",
    ),
    click.option("--drives", type=click.IntRange(min=1), metavar="N", help="That share what is written.  [default: 1]"),
)


def drive_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets what they come to as `rated` (None: nothing was given)."""

    @functools.wraps(command)
    def call(
        *positional: Any,
        rated_tbw: int | None,
        rated_dwpd: float | None,
        drive_capacity: int | None,
        warranty_years: float | None,
        drives: int | None,
        **named: Any,
    ) -> Any:
        rated = None
        if any(value is not None for value in (rated_tbw, rated_dwpd, drive_capacity, warranty_years, drives)):
            if rated_tbw is not None and warranty_years is not None:
                raise click.UsageError("--warranty-years goes with --rated-dwpd")
            try:
                rated = RatedDrives.of(rated_tbw, rated_dwpd, drive_capacity, warranty_years or 5.0, drives or 1)
            except ValueError as error:
                raise click.UsageError(f"{error} (--rated-tbw, or --rated-dwpd and --drive-capacity)") from error
        return command(*positional, rated=rated, **named)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call
