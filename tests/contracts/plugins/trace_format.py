"""A format of traces: one request per line, `SECONDS CONTEXT OUTPUT`."""

from kvbench.workload.traces.collect import BadRowError, Row
from kvbench.workload.traces.format import lines_format
from kvbench.workload.traces.formats import register


def is_of_it(start: bytes) -> bool:
    return len(start.splitlines()[0].split()) == 3


def parse(line: bytes) -> Row:
    try:
        seconds, context, output = line.split()
        return Row(round(float(seconds) * 1e9), int(context), int(output))
    except ValueError as error:
        raise BadRowError(f"expected SECONDS CONTEXT OUTPUT: {error}") from error


register(lines_format("numbers", is_of_it, parse, shape="three numbers"))
