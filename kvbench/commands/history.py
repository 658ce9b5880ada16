"""The command `kvbench history`: parse, call, print."""

import datetime
from pathlib import Path
from typing import Any, Final

import click
from kvbench_analysis.history import print as history_print
from kvbench_analysis.history.changes import changes
from kvbench_analysis.history.history import Wanted
from kvbench_analysis.history.history import history as find_runs

from kvbench.commands.options import PATH
from kvbench.console import make_console
from kvbench.errors import KvbenchError


class _Moment(click.types.StringParamType):
    """A day (2026-05-31) or a time of one (2026-05-31T08:00), in UTC where it does not say otherwise: the first moment
    that it is, and the first that it is no more."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            day = datetime.date.fromisoformat(value)
            begin = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
            return begin, begin + datetime.timedelta(days=1)
        except ValueError:
            pass
        except OverflowError:
            self.fail(f"{value!r} is later than can be counted.", param, ctx)
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time like 2026-05-31 or 2026-05-31T08:00.", param, ctx)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
        return moment, moment


MOMENT: Final = _Moment()


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...", type=PATH)
@click.option("--since", type=MOMENT, help="Runs that started on this day or later, or from this time on.")
@click.option("--until", type=MOMENT, help="Runs that started on this day or earlier, or before this time.")
@click.option("--host", default="", metavar="PATTERN", help="Runs that had a rank there; * stands for anything.")
@click.option("--config", default="", metavar="PATTERN", help="Runs of configurations with this name.")
@click.option("--fingerprint", default="", metavar="BEGIN", help="Runs that did this work; its first digits will do.")
@click.option("--compare", "compared", is_flag=True, help="Each run against the one before that did the same work.")
@click.option("--no-figures", is_flag=True, help="What the files say of themselves alone, which reads no rows.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def history(
    folders: tuple[Path, ...],
    since: tuple[datetime.datetime, datetime.datetime] | None,
    until: tuple[datetime.datetime, datetime.datetime] | None,
    host: str,
    config: str,
    fingerprint: str,
    compared: bool,
    no_figures: bool,
    as_json: bool,
) -> None:
    """List the runs of all run files below FOLDERS, in order of time: when, where and what, and how fast storage was.

    Files that are no run files, or damaged, are named and skipped.
    """
    wanted = Wanted(since and since[0], until and until[1], host, config, fingerprint)
    if wanted.since and wanted.before and wanted.since >= wanted.before:
        raise KvbenchError("no time lies between --since and --until: exchange them")
    found = find_runs(folders, wanted, figures=not no_figures)
    between = changes(found.runs) if compared else None
    if as_json:
        click.echo(history_print.to_json(found, between))
    else:
        history_print.print_history(found, make_console(), between)
