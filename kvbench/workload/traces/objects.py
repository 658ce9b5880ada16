"""The objects of a JSON file, as a list, one a line, or one that is all of it. Knows no format."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.workload.traces.collect import BadRowError
from kvbench.workload.traces.stream import TraceStream

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_BOM: Final = b"\xef\xbb\xbf"


def read_objects(stream: TraceStream, what: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of every object; the value is a BadRowError where a line is no JSON. `what` they are is for
    messages.

    Raises KvbenchError where the text is no text, or a list that is not whole.
    """
    start = stream.head.removeprefix(_BOM).lstrip()
    if start.startswith(b"["):
        yield from _elements(stream.path, _text(stream.path, stream.content()), what)
        return
    first, _, rest = start.partition(b"\n")
    if rest.strip() and not isinstance(_line_value(first), BadRowError):
        # Line by line: all of it may be more than the memory holds.
        yield from ((number, _line_value(line)) for number, line in stream.lines())
        return
    content = stream.content().removeprefix(_BOM)
    line = 1 + content.count(b"\n", 0, len(content) - len(content.lstrip()))
    whole = _line_value(content)
    if content.strip() and not isinstance(whole, BadRowError):
        yield line, whole
        return
    for number, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            yield number, _line_value(text.strip())


def _line_value(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRowError(f"not UTF-8 text: byte 0x{line[error.start]:02x} at column {error.start + 1}")
    except json.JSONDecodeError as error:
        return BadRowError(f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return BadRowError(f"this JSON cannot be read: {error}")


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{content[error.start]:02x}"
        raise KvbenchError(f"{path}, line {line}: not UTF-8 text: {wrong} (convert the file to UTF-8)") from error


def _elements(path: Path, text: str, what: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of the elements of the list that `text` is, by the line that each starts on, decoded one at a time.

    `json.load` would hold all of them at once and forget where they stood.
    """
    decoder = json.JSONDecoder()
    position = _after_blanks(text, 0)
    line = 1 + text.count("\n", 0, position)
    expected = "["
    while text.startswith(expected, position):
        start = _after_blanks(text, position + 1)
        line += text.count("\n", position, start)
        if expected == "[" and text.startswith("]", start):
            position = start
            break
        try:
            element, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise KvbenchError(
                f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise KvbenchError(f"{path}, line {line}: this {what} cannot be read: {error}") from error
        yield line, element
        position = _after_blanks(text, end)
        line += text.count("\n", start, position)
        expected = ","
    if expected == "[" and not text.startswith("]", position):
        raise KvbenchError(f"{path}, line {line}: expected a JSON list of {what}s")
    if not text.startswith("]", position):
        raise KvbenchError(f"{path}, line {line}: expected , or ] after a {what}")
    rest = _after_blanks(text, position + 1)
    if rest != len(text):
        line += text.count("\n", position, rest)
        raise KvbenchError(f"{path}, line {line}: something follows the end of the list")


def _after_blanks(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position
