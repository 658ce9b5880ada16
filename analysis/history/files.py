"""Which files below some folders are run files, told by how they begin. Opens none of them as HDF5."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from kvbench.records.outputs import HDF5
from kvbench.records.reader import KvbenchError
from kvbench.records.unfinished import MARK_BYTES, marked_by

_ENDINGS: Final = (".h5", ".hdf5")
_OPEN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Skipped(NamedTuple):
    """What is no run file that can be read, and why."""

    path: Path
    reason: str


def hdf5_files(places: Iterable[Path]) -> Iterator[Path | Skipped]:
    """Every HDF5 file below `places` (folders, or files), each once, in the order of names; links to folders are not
    followed. Of other files are told those that are called as if they were such, are not finished, or cannot be read.
    Raises KvbenchError where one of `places` is not there."""
    seen: set[tuple[int, int]] = set()
    for place in places:
        try:
            os.stat(place)
        except OSError as error:
            raise KvbenchError(f"cannot look into {place}: {error.strerror}") from error
        for found in _below(place):
            if isinstance(found, Skipped):
                yield found
                continue
            looked = _look(found, seen)
            if looked is not None:
                yield looked


def _below(place: Path) -> Iterator[Path | Skipped]:
    if not place.is_dir():
        yield place
        return
    refused: list[OSError] = []
    for folder, below, names in os.walk(place, onerror=refused.append):
        below.sort()
        for name in sorted(names):
            yield Path(folder, name)
    for error in refused:
        yield Skipped(Path(os.fsdecode(error.filename)), f"cannot look into it: {error.strerror}")


def _look(path: Path, seen: set[tuple[int, int]]) -> Path | Skipped | None:
    try:
        # Pipes and devices are not opened: that can do something.
        if not path.is_file():
            return None
        descriptor = os.open(path, _OPEN)
        try:
            status, head = os.fstat(descriptor), os.read(descriptor, MARK_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Skipped(path, f"cannot read it: {error.strerror}")
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return None
    seen.add(identity)
    if HDF5.begins(head):
        return path
    if marked_by(head) is not None:
        return Skipped(path, "not finished: a command is writing it, or was killed (`kvbench clean` tells)")
    return Skipped(path, "no HDF5 file, or damaged") if path.suffix.lower() in _ENDINGS else None
