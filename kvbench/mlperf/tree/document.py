"""A file of a tree as it was read: its content, or why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, read_bytes, read_json, read_yaml
from kvbench.units import KIB

NO_SUCH_FILE: Final = "no such file"
MOST_TEXT_BYTES: Final = 64 * KIB


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON, YAML or text file; `content` is MISSING where `problem` says why it could not be read."""

    path: Path
    content: Any
    problem: str = ""

    @property
    def readable(self) -> bool:
        """Whether there is a content to look at."""
        return not self.problem

    @property
    def exists(self) -> bool:
        """Whether there is such a file, readable or not."""
        return self.problem != NO_SUCH_FILE


def absent(path: Path) -> Document:
    """What stands for a file that is not there."""
    return Document(path, MISSING, NO_SUCH_FILE)


def read_document(path: Path, *, as_yaml: bool = False) -> Document:
    """The JSON (or YAML) file at `path`, or why it cannot be read."""
    return _read(path, read_yaml if as_yaml else read_json)


def read_text(path: Path) -> Document:
    """The small text file at `path`, or why it cannot be read."""
    return _read(path, lambda place: read_bytes(place, MOST_TEXT_BYTES).decode("utf-8"))


def _read(path: Path, read: Callable[[Path], Any]) -> Document:
    try:
        return Document(path, read(path))
    except Unreadable as error:
        return Document(path, MISSING, str(error))
    except UnicodeDecodeError:
        return Document(path, MISSING, "no text")
