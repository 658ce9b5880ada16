"""What a format of traces is: its name, how a file of it is recognised, and its reader.

Most have one request per line: `lines_format` makes one of a function that reads a line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvbench.workload.traces.collect import LineParser, TraceCollector, collect_lines
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import Trace

AS_RECORDED: Final = "as recorded in the trace"
"""Where token numbers come from, in most formats."""


def by_fields_only(start: bytes) -> bool:
    """What recognises files by their first bytes, for a format that is told by the fields of its objects alone."""
    return False


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One way to write a trace down."""

    name: str
    recognises: Callable[[bytes], bool]
    """From the first bytes of a file (64 KiB, or all there are), without blanks before them: whether it is of it."""
    read: Callable[[TraceStream, bool], Trace]
    """From the content of a file, and whether malformed lines are counted and left out, its requests. Raises
    KvbenchError naming file, line and what is wrong."""
    shape: str = ""
    """What a file of it is, for the message where none is recognised."""
    header: str = ""
    """Instead of the shape, for a table: the first line, as its source describes it."""
    fits: Callable[[Fields], bool] | None = None
    """For JSON: whether an object with these fields is one of this format's. No object is one of two formats'."""
    columns: frozenset[str] = frozenset()
    """For Parquet: the columns that a file of it has, whatever others it has."""


def lines_format(
    name: str,
    recognises: Callable[[bytes], bool],
    parse: LineParser,
    *,
    shape: str,
    block_tokens: int = 0,
    fits: Callable[[Fields], bool] | None = None,
    sorts: bool = False,
) -> TraceFormat:
    """A format that has one request per line, which `parse` reads; `block_tokens` of the blocks that a hash id stands
    for, 0 without ids. `sorts`: the lines may stand in any order."""
    return session_lines_format(
        name, lambda _: parse, shape=shape, block_tokens=block_tokens, fits=fits, sorts=sorts, recognises=recognises
    )


def session_lines_format(
    name: str,
    parser: Callable[[TraceStream], LineParser],
    *,
    shape: str,
    block_tokens: int = 0,
    fits: Callable[[Fields], bool] | None = None,
    sorts: bool = False,
    recognises: Callable[[bytes], bool] = by_fields_only,
) -> TraceFormat:
    """Like `lines_format`, where a line means something only with those before it: `parser` makes what reads the lines
    of one file."""

    def read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
        collector = TraceCollector(
            stream.path,
            name,
            hash_block_tokens=block_tokens,
            token_counting=AS_RECORDED,
            skip_bad_lines=skip_bad_lines,
            sorts=sorts,
        )
        return collect_lines(collector, stream.lines(), parser(stream))

    return TraceFormat(name, recognises, read, shape, fits=fits)
