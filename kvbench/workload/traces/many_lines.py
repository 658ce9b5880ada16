"""Many plain lines of Azure's tables read together, which takes less time than one after the other.

It accepts less than what reads a line, and means the same by it: where a line is not plain, or not one that can be
true, the lines are left to be read one by one, which says what is wrong.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import numpy as np

from kvbench.workload.traces.collect import BadRowError, LineParser, TraceCollector

_LINES: Final = 8192
_PLAIN: Final = re.compile(
    rb"^(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?,(\d{1,9}),(\d{1,9})$", re.MULTILINE
)
"""Time, its fraction and zone; tokens of context and output."""


def collect_many(
    collector: TraceCollector,
    lines: Iterator[tuple[int, bytes]],
    parse: LineParser,
    second: Callable[[str, str], int],
) -> None:
    """Hand all `lines` over to the collector. `parse` reads one of them; `second` gives the seconds since 1970 of a
    moment and a zone, and raises ValueError. Raises KvbenchError."""
    while some := list(islice(lines, _LINES)):
        if _add_together(collector, some, second):
            continue
        for number, line in some:
            try:
                collector.add(parse(line), number)
            except BadRowError as error:
                collector.bad(number, str(error))


def _add_together(collector: TraceCollector, lines: list[tuple[int, bytes]], second: Callable[[str, str], int]) -> bool:
    """Whether the collector has taken all `lines`; it has none otherwise."""
    found = _PLAIN.findall(b"\n".join(line for _, line in lines))
    if len(found) != len(lines):
        return False
    moments, fractions, zones, context, output = zip(*found, strict=True)
    known: dict[tuple[bytes, bytes], int] = {}
    try:
        for both in dict.fromkeys(zip(moments, zones, strict=True)):
            known[both] = second(both[0].decode(), both[1].decode() or "Z")
    except ValueError:
        return False
    return collector.add_many(
        np.array([known[both] for both in zip(moments, zones, strict=True)], np.int64),
        np.array([fraction.ljust(9, b"0") for fraction in fractions]).astype(np.int64),
        np.array(context).astype(np.int64),
        np.array(output).astype(np.int64),
        np.array([number for number, _ in lines], np.int64),
    )
