"""Reading a tree that somebody else made: nothing in it is executed or believed, and nothing outside it is read.

Symbolic links are never followed, only regular files are opened, and no more of a file is read than a limit allows.
Whatever is wrong with a file becomes `Unreadable`, which says what; it never becomes another exception. A directory
that this user may not list is no fault of the tree, and ends the command: else what stands there would be passed over.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from kvbench.errors import KvbenchError
from kvbench.units import MIB, format_bytes

Kind = Literal["directory", "file", "link", "other"]

MOST_JSON_BYTES: Final = 256 * MIB
"""A rank's result holds a number for each of its requests; one of five minutes has some MiB."""
MOST_YAML_BYTES: Final = MIB
_LONGEST_SHOWN: Final = 160


class Unreadable(Exception):
    """A file or directory of the tree that cannot be used; the text says why, in words for the checker's message."""


class _Missing:
    """The type of MISSING."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()
"""What `dig` finds where there is nothing: unlike None, which JSON can hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory."""

    name: str
    path: Path
    kind: Kind

    @property
    def hidden(self) -> bool:
        """Whether its name begins with a dot; the rules let such entries be."""
        return self.name.startswith(".")


def entries_of(directory: Path) -> list[Entry]:
    """The entries of `directory` by name; none where there is no such directory. Links are entries, and not followed.

    Raises KvbenchError where this user has no right to list it.
    """
    try:
        with os.scandir(directory) as found:
            every = [Entry(entry.name, directory / entry.name, _kind(entry)) for entry in found]
    except PermissionError as error:
        raise KvbenchError(
            f"cannot read {printable(str(directory))}: {error.strerror}: nothing is said of a tree of which a part is "
            "unread; read it as a user who may, or change the rights"
        ) from error
    except (OSError, ValueError):
        return []
    return sorted(every, key=lambda entry: os.fsencode(entry.name))


def kind_of(path: Path) -> Kind | None:
    """What stands at `path` itself; None for nothing."""
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISLNK(mode):
        return "link"
    return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the regular file `path`. Raises Unreadable; a pipe is not waited for, a link not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unreadable("no such file") from error
    except (OSError, ValueError) as error:
        reason = "a symbolic link" if kind_of(path) == "link" else f"unreadable ({getattr(error, 'strerror', error)})"
        raise Unreadable(reason) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of the regular file `path`. Raises Unreadable, also where it is larger than `most` bytes."""
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > most:
            raise Unreadable(f"{format_bytes(size)} large, more than {format_bytes(most)}")
        try:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                content = file.read(most + 1)
        except OSError as error:
            raise Unreadable(f"unreadable ({error.strerror})") from error
    if len(content) > most:
        raise Unreadable(f"larger than {format_bytes(most)}")
    return content


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """The JSON value in `path`. Raises Unreadable."""
    try:
        return json.loads(read_bytes(path, most))
    except RecursionError as error:
        raise Unreadable("JSON nested too deeply") from error
    except ValueError as error:
        # JSONDecodeError and UnicodeDecodeError, and numbers of too many digits.
        where = f" in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(f"no valid JSON{where}") from error


def read_yaml(path: Path) -> Any:
    """The YAML value in `path`, of plain types only. Raises Unreadable, also for aliases: they can grow endlessly."""
    try:
        text = read_bytes(path, MOST_YAML_BYTES).decode("utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise Unreadable("YAML with aliases")
        return yaml.safe_load(text)
    except RecursionError as error:
        raise Unreadable("YAML nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # What PyYAML makes of tags, dates and keys that do not exist is not always its own error.
        raise Unreadable("no valid YAML") from error


def dig(value: Any, *keys: str | int) -> Any:
    """What stands in `value` at `keys`, one below the other; MISSING where a level is absent or something else."""
    for key in keys:
        if isinstance(key, int):
            if not isinstance(value, list) or not 0 <= key < len(value):
                return MISSING
            value = value[key]
        else:
            if not isinstance(value, Mapping) or key not in value:
                return MISSING
            value = value[key]
    return value


def number(value: Any) -> float | None:
    """`value` as a finite number; None for everything else (truth values are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if abs(result) < float("inf") else None


def whole(value: Any) -> int | None:
    """`value` as an integer; None for everything else. 42.0 is one: JSON does not tell them apart."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def items(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def shown(value: Any) -> str:
    """`value` as it stands in a message: short, on one line, safe to print."""
    if value is MISSING:
        return "nothing"
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except (ValueError, RecursionError, TypeError):
        text = f"a {type(value).__name__} that cannot be shown"
    text = printable(text[: _LONGEST_SHOWN + 1])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def printable(text: str) -> str:
    """`text` on one line, without what could drive a terminal or cannot be encoded."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _kind(entry: os.DirEntry[str]) -> Kind:
    try:
        if entry.is_symlink():
            return "link"
        if entry.is_dir(follow_symlinks=False):
            return "directory"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        return "other"
