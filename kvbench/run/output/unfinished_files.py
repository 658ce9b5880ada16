"""Finds and removes what commands that were killed left beside their outputs: files that are not finished, and folders
that were there only for the time of a command.

Only what lies right in a directory is looked at, and no link is followed. What does not carry kvbench's mark
(`records.unfinished`) is not seen. A command that is alive holds a lock on its file, which is left alone.
"""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.records.unfinished import FOLDER_MARKER, MARK_BYTES, SUFFIX, lock, marked_by
from kvbench.tiers.file.marked import opened
from kvbench.tiers.target import Leftover, LeftoverState

_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STATES: Final[dict[str, LeftoverState]] = {"mine": "left over", "held": "in use", "none": "unknown"}


class Unfinished(Leftover):
    """A file or a folder that a command has not finished; `run_id` is the id in its mark."""


def find(folder: Path) -> list[Unfinished]:
    """What commands left in `folder`, oldest first; nothing where that is no directory. Raises KvbenchError where it
    cannot be read."""
    if not folder.is_dir():
        return []
    try:
        with opened(folder, by_link=True) as top, os.scandir(top) as entries:
            found = [_look(top, folder / name) for name in sorted(entry.name for entry in entries)]
    except OSError as error:
        raise KvbenchError(f"cannot look into {folder}: {error.strerror}") from error
    return sorted((leftover for leftover in found if leftover is not None), key=lambda leftover: -leftover.age_s)


def remove(leftover: Unfinished, even_unknown: bool = False) -> Unfinished:
    """Delete `leftover`; returns what is left of it, with no files if nothing is.

    It is looked at anew: what has come into use since it was found stays, and so does what is in state `unknown` unless
    `even_unknown`. Raises KvbenchError where it cannot be deleted.
    """
    name = leftover.path.name
    try:
        with opened(leftover.path.parent, by_link=True) as top, _mark(top, name) as mark:
            now = None if mark is None else _describe(top, leftover.path, mark)
            if now is not None and not now.may_go(even_unknown):
                return now
            # It is locked, so whoever made it is gone, and has not given it its name meanwhile.
            if now is not None and stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=top)
            elif now is not None:
                os.unlink(name, dir_fd=top)
    except OSError as error:
        raise KvbenchError(
            f"cannot remove {leftover.path}: {error.strerror}; change its permissions, or ask its owner"
        ) from error
    return Unfinished(leftover.path, leftover.run_id, "left over")


def _look(top: int, path: Path) -> Unfinished | None:
    """What `path`, a name in the open directory `top`, is; None for anything that carries no mark."""
    try:
        with _mark(top, path.name) as mark:
            return None if mark is None else _describe(top, path, mark)
    except OSError:
        # What cannot be opened or has just gone is not known to be kvbench's.
        return None


@contextmanager
def _mark(top: int, name: str) -> Iterator[int | None]:
    """The open file that bears the mark of `name`: itself, or the marker in a folder; None where it is no name of ours.
    Raises OSError."""
    status = os.stat(name, dir_fd=top, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        with opened(name, top) as own:
            descriptor = os.open(FOLDER_MARKER, _FILE, dir_fd=own)
    elif stat.S_ISREG(status.st_mode) and name.endswith(SUFFIX):
        descriptor = os.open(name, _FILE, dir_fd=top)
    else:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _describe(top: int, path: Path, mark: int) -> Unfinished | None:
    status = os.fstat(mark)
    run_id = marked_by(os.pread(mark, MARK_BYTES, 0)) if stat.S_ISREG(status.st_mode) else None
    if run_id is None:
        return None
    found = Unfinished(path, run_id, _STATES[lock(mark)], 1, status.st_size)
    newest_s = status.st_mtime
    if path.name.endswith(SUFFIX):
        named = os.stat(path.name, dir_fd=top, follow_symlinks=False)
        if not os.path.samestat(named, status):
            return None
    else:
        found.files = found.nbytes = 0
        for _, _, names, folder in os.fwalk(path.name, dir_fd=top):
            for name in names:
                inside = os.stat(name, dir_fd=folder, follow_symlinks=False)
                found.files += 1
                found.nbytes += inside.st_size
                newest_s = max(newest_s, inside.st_mtime)
    found.age_s = max(0.0, time.time() - newest_s)
    return found
