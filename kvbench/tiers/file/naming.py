"""What the files of objects are called, and which folders they lie in: names alone, no I/O.

A name is sixteen hexadecimal digits of the key and an ending; folders are called after its first digits, as the file
system connectors of vLLM and llm-d have it. Nothing from a trace or a configuration can become part of a path.
"""

import re
from dataclasses import dataclass
from typing import Final

OBJECT_SUFFIXES: Final = (".kv", ".npy")
TEMPORARY: Final = ".tmp"
"""What the stopwatch puts behind a name until the file is whole."""

SLAB_NAME: Final = "objects.slab"
"""Of the one file that holds all objects of a rank in slots."""

_BUCKET: Final = re.compile(r"objects-\d{6,}\.bucket")

_KEY_DIGITS: Final = 16
_OBJECT: Final = re.compile(
    rf"[0-9a-f]{{{_KEY_DIGITS}}}(?:{'|'.join(map(re.escape, OBJECT_SUFFIXES))})(?:\{TEMPORARY})?"
)
_FOLDER: Final = re.compile(r"[0-9a-f]{1,4}")

MOST_LEVELS: Final = 4
"""Folders within one another."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Where each object of a tier lies, relative to the rank's directory."""

    suffix: str
    levels: int = 0
    """Folders that it lies in, one in the other."""
    width: int = 2
    """Digits of each folder's name: 16 to the power of it in a folder."""

    def name(self, key: int) -> str:
        """`0f/3c/0f3c...` of a 64-bit key."""
        digits = f"{key & 0xFFFFFFFFFFFFFFFF:016x}"
        name = f"{digits}{self.suffix}"
        for level in reversed(range(self.levels)):
            name = f"{digits[level * self.width : (level + 1) * self.width]}/{name}"
        return name


def bucket_name(number: int) -> str:
    """Of the file that holds the objects of a bucket one behind the other."""
    return f"objects-{number:06d}.bucket"


def is_name_of_object(name: str) -> bool:
    """Whether a file tier calls files so: that of an object, whole or not, or of many."""
    return name == SLAB_NAME or _BUCKET.fullmatch(name) is not None or _OBJECT.fullmatch(name) is not None


def is_name_of_folder(name: str) -> bool:
    """Whether a file tier calls folders so."""
    return _FOLDER.fullmatch(name) is not None
