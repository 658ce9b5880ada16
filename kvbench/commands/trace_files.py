"""The commands that make a trace file of others: `trace convert`, `trace sample`, `trace slice`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from kvbench.commands.options import OUTPUT_FILE, PATH, Finite, seed_option, skip_option
from kvbench.console import make_console
from kvbench.errors import KvbenchError
from kvbench.records.outputs import PARQUET, check_output, write_output
from kvbench.workload.draws import stream_generator
from kvbench.workload.traces.files import trace_files
from kvbench.workload.traces.parquet import encoded, pyarrow
from kvbench.workload.traces.parts import between, drawn_requests, drawn_sessions, part_of
from kvbench.workload.traces.read import read_files
from kvbench.workload.traces.trace import Trace

out_option = click.option("-o", "--out", required=True, type=OUTPUT_FILE, help="The Parquet file to make.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")


class _Numbers(click.types.StringParamType):
    """A range of whole numbers, A:B, of which either may be left out."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        match = re.fullmatch(r"(\d{0,18}):(\d{0,18})", str(value), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not like 100:200 (from the first number on, before the second).", param, ctx)
        return slice(*(int(number) if number else None for number in match.groups()))


NUMBERS: Final = _Numbers()


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=PATH)
@out_option
@overwrite_option
@skip_option
def convert(paths: tuple[Path, ...], out: Path, overwrite: bool, skip_bad_lines: bool) -> str:
    """Write the trace of PATHS, whatever its format, as one Parquet file of kvbench's own format.

    Each is a file, a folder of files or a pattern; all are of one format, and merged in order of time.
    """
    making = _Making(paths, out, overwrite)
    return making.write(making.read(skip_bad_lines))


@click.command()
@click.argument("path", type=PATH)
@click.option("-n", "--number", required=True, type=click.IntRange(min=1), help="How many to draw.")
@seed_option
@click.option(
    "--by",
    type=click.Choice(["request", "session"]),
    default="request",
    show_default=True,
    help="What is drawn; of a session all requests are taken.",
)
@out_option
@overwrite_option
@skip_option
def sample(path: Path, number: int, seed: int, by: str, out: Path, overwrite: bool, skip_bad_lines: bool) -> str:
    """Write requests drawn at random from the trace at PATH, or whole sessions, as a Parquet file.

    They keep the times between them. The same seed draws the same.
    """
    making = _Making((path,), out, overwrite)
    trace = making.read(skip_bad_lines)
    draw = drawn_sessions if by == "session" else drawn_requests
    return making.write(part_of(trace, draw(trace, number, stream_generator(seed))))


@click.command("slice")
@click.argument("path", type=PATH)
@click.option("--from", "from_s", type=Finite(min=0), metavar="S", help="Seconds after the first request, or later.")
@click.option("--to", "to_s", type=Finite(min=0), metavar="S", help="Before so many seconds after the first request.")
@click.option("--requests", type=NUMBERS, help="Requests by number, from A on, before B; the first is 0.")
@out_option
@overwrite_option
@skip_option
def cut(
    path: Path,
    from_s: float | None,
    to_s: float | None,
    requests: slice | None,
    out: Path,
    overwrite: bool,
    skip_bad_lines: bool,
) -> str:
    """Write the requests of a part of the trace at PATH, by time or by number, as a Parquet file."""
    by_time = from_s is not None or to_s is not None
    if by_time == (requests is not None):
        raise click.UsageError("give --from, --to or both, or else --requests")
    making = _Making((path,), out, overwrite)
    trace = making.read(skip_bad_lines)
    positions = between(trace, from_s, to_s)
    if requests is not None:
        positions = positions[requests]
    if not len(positions):
        span_s = trace.arrival_ns[-1] / 1e9
        raise KvbenchError(f"{path}: no request of {len(trace)}, over {span_s:.3f} s, lies in that part; give another")
    return making.write(part_of(trace, positions))


class _Making:
    """A Parquet file that is made of the trace of some paths; that it can be written is known before they are read."""

    def __init__(self, paths: Sequence[Path], out: Path, overwrite: bool) -> None:
        """Raises KvbenchError where the file may not be written, or cannot be made here."""
        pyarrow(f"making {out}")
        self._source = ", ".join(map(str, paths))
        self._files = [file for path in paths for file in trace_files(path)]
        self._output = check_output(out, PARQUET, replace=overwrite, inputs=self._files)

    def read(self, skip_bad_lines: bool) -> Trace:
        """The trace. Raises KvbenchError."""
        return read_files(self._files, self._source, skip_bad_lines=skip_bad_lines)

    def write(self, trace: Trace) -> str:
        """Write the file, and say so. Raises KvbenchError. Returns that it is complete."""
        write_output(self._output, encoded(trace), PARQUET)
        left_out = f", {trace.bad_lines} bad lines left out" if trace.bad_lines else ""
        make_console().print(
            f"{self._output.path} holds {len(trace)} requests of {self._source}{left_out}, digest {trace.digest}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        return f"{self._output.path} is complete"
