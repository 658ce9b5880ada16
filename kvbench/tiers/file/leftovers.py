"""Finds and removes what runs that were killed left in a directory under test: `kvbench-RUN_ID` and probe files.

Only what lies right in the directory is looked at, as runs put it there, and only by names relative to directories that
are open, so that no link is ever followed. What carries no marker of its run, and every file that a file tier does not
make, stays; but for a directory that is called after a run and empty, which a run that was killed may leave between its
marker and itself. A run whose ranks are alive holds locks on its markers (see `run_directory`) and is left alone. Spill
files are no business of this module: they may hold records that nobody has yet.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from kvbench.errors import KvbenchError
from kvbench.records.unfinished import lock
from kvbench.tiers.file.marked import (
    delete_objects,
    files_in,
    is_marked,
    is_object,
    opened,
    remove_if_empty,
)
from kvbench.tiers.marker import MARKER, RANK_FOLDER, RUN, SIGN
from kvbench.tiers.target import Leftover, LeftoverState

_PROBE_S: Final = 60.0
"""A run has its probes, and directories that are not marked yet, for a moment only; an older one is left over."""


def find(directory: Path) -> list[Leftover]:
    """What runs have in `directory`, oldest first. Raises KvbenchError where it cannot be read."""
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KvbenchError(f"cannot look into {directory}: {error.strerror}; give a directory under test") from error
    now_s = time.time()
    try:
        names = sorted(os.listdir(top))
        found = [_look(top, directory / name, now_s) for name in names]
    finally:
        os.close(top)
    return sorted((leftover for leftover in found if leftover is not None), key=lambda leftover: -leftover.age_s)


def remove(leftover: Leftover, even_unknown: bool = False) -> Leftover:
    """Delete what is kvbench's of `leftover`; returns what is left of it, with no files if nothing is.

    It is looked at anew: what has come into use since it was found stays, and so does a run of state `unknown` unless
    `even_unknown`. Raises KvbenchError where something cannot be deleted.
    """
    directory = leftover.path.parent
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        now = _look(top, leftover.path, time.time())
        if now is None:
            return Leftover(leftover.path, leftover.run_id, "left over")
        if not now.may_go(even_unknown):
            return now
        if SIGN.fullmatch(leftover.path.name):
            os.unlink(leftover.path.name, dir_fd=top)
        else:
            _remove_run(top, leftover.path.name, leftover.run_id)
        return _look(top, leftover.path, time.time()) or Leftover(leftover.path, leftover.run_id, "left over")
    except OSError as error:
        raise KvbenchError(
            f"cannot remove all of {leftover.path}: {error.strerror}; change its permissions, or ask its owner"
        ) from error
    finally:
        os.close(top)


def _look(top: int, path: Path, now_s: float) -> Leftover | None:
    """What `path`, a name in the open directory `top`, is of a run; None for anything else."""
    probe = SIGN.fullmatch(path.name)
    run = RUN.fullmatch(path.name)
    if probe is None and run is None:
        return None
    try:
        status = os.stat(path.name, dir_fd=top, follow_symlinks=False)
        if probe is not None:
            empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
            age_s = now_s - status.st_mtime
            state: LeftoverState = "not ours" if not empty else "in use" if age_s < _PROBE_S else "left over"
            return Leftover(path, probe[1], state, int(empty), 0, max(0.0, age_s))
        assert run is not None
        if not stat.S_ISDIR(status.st_mode):
            return Leftover(path, run[1], "not ours")
        return _look_into_run(top, path, run[1], now_s)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR):
            return Leftover(path, (probe or run)[1], "not ours")  # type: ignore[index]  # one of them is not None
        raise KvbenchError(f"cannot look into {path}: {error.strerror}") from error


def _look_into_run(top: int, path: Path, run_id: str, now_s: float) -> Leftover:
    newest_s = 0.0
    found = Leftover(path, run_id, "left over")
    with opened(path.name, top) as own:
        if not is_marked(own, run_id):
            found.age_s = max(0.0, now_s - os.stat(own).st_mtime)
            empty = not os.listdir(own)
            found.state = "not ours" if not empty else "in use" if found.age_s < _PROBE_S else "left over"
            return found
        for rank in _entries(own):
            if rank.name == MARKER:
                continue
            if not _is_rank(rank):
                found.strangers.append(rank.name)
                continue
            with opened(rank.name, own) as folder:
                if not is_marked(folder, run_id):
                    if os.listdir(folder):
                        found.strangers.append(rank.name)
                    continue
                with _marker_locked(folder) as held:
                    if held == "held":
                        found.state = "in use"
                    elif held == "none" and found.state != "in use":
                        found.state = "unknown"
                newest_s = max(newest_s, os.stat(MARKER, dir_fd=folder, follow_symlinks=False).st_mtime)
                for path_there, entry in files_in(folder):
                    status = entry.stat(follow_symlinks=False)
                    newest_s = max(newest_s, status.st_mtime)
                    if is_object(entry):
                        found.files += 1
                        found.nbytes += status.st_size
                    else:
                        found.strangers.append(f"{rank.name}/{path_there}")
        newest_s = max(newest_s, os.stat(MARKER, dir_fd=own, follow_symlinks=False).st_mtime)
    found.age_s = max(0.0, now_s - newest_s)
    return found


def _remove_run(top: int, name: str, run_id: str) -> None:
    with opened(name, top) as own:
        for rank in _entries(own):
            if _is_rank(rank):
                with opened(rank.name, own) as folder:
                    if is_marked(folder, run_id):
                        if not _empty(folder):
                            continue
                        os.unlink(MARKER, dir_fd=folder)
                remove_if_empty(rank.name, own)
        found = set(os.listdir(own))
        if found - {MARKER}:
            return
        if found:
            os.unlink(MARKER, dir_fd=own)
    remove_if_empty(name, top)


def _empty(folder: int) -> bool:
    """Delete the objects in an open directory; whether nothing but its marker is left. No rank can take the directory
    into use meanwhile, as its marker is locked."""
    with _marker_locked(folder) as held:
        return held != "held" and not delete_objects(folder)


@contextmanager
def _marker_locked(folder: int) -> Iterator[Literal["mine", "held", "none"]]:
    """Lock the marker in an open directory, for the time of the context."""
    descriptor = os.open(MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def _entries(folder: int) -> Sequence["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_rank(entry: "os.DirEntry[str]") -> bool:
    return RANK_FOLDER.fullmatch(entry.name) is not None and entry.is_dir(follow_symlinks=False)
