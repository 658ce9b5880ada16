"""Directories that carry kvbench's marker: how they are told from others, and emptied of what a file tier makes.

Everything is done by names relative to directories that are open, and no link is followed, so that whatever somebody
puts into their place meanwhile, nothing else is read or deleted.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from kvbench.tiers.file.naming import MOST_LEVELS, is_name_of_folder, is_name_of_object
from kvbench.tiers.marker import MARKER, content_of_marker, marks

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STORAGE_FAILED: Final = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO)
"""Errors that do not tell whether a marker is there."""
_GOING: Final = re.compile(r"\.(?:fuse_hidden|nfs)[0-9a-f]+")
"""What FUSE and NFS call a file that was deleted while somebody had it open, until that is over. FUSE hears of a close
a moment after it, when nobody has the file open any more."""
_GOING_S: Final = 1.0
"""How long what is going is waited for."""
_POLL_S: Final = 0.01


def mark(folder: int, run_id: str) -> None:
    """Put the marker of run `run_id` into an open directory, unless there is one."""
    content = content_of_marker(run_id)
    with suppress(FileExistsError):
        descriptor = os.open(MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)


def is_marked(folder: int, run_id: str) -> bool:
    """Whether an open directory holds the marker of run `run_id`, a regular file. Raises OSError when the storage
    fails."""
    try:
        descriptor = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in _STORAGE_FAILED:
            raise
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and marks(os.read(descriptor, 4096), run_id)
    finally:
        os.close(descriptor)


@contextmanager
def opened(name: str | os.PathLike[str], parent: int | None = None, *, by_link: bool = False) -> Iterator[int]:
    """A directory, relative to the open directory `parent`; through a link only `by_link`, as a user may name what a
    link leads to. Raises OSError."""
    descriptor = os.open(name, _DIRECTORY & ~os.O_NOFOLLOW if by_link else _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_if_there(name: str | os.PathLike[str], parent: int | None = None) -> Iterator[int | None]:
    """As `opened`; None where there is no directory of that name, or none that may be looked into. Raises OSError when
    the storage fails."""
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in _STORAGE_FAILED:
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_object(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file that a file tier makes, by its name; no link counts."""
    return is_name_of_object(entry.name) and entry.is_file(follow_symlinks=False)


def files_in(folder: int, levels: int = MOST_LEVELS, above: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """All that is in an open directory of a rank, by its path from there: in folders that a file tier makes, what is in
    them; of any other folder, itself. The marker is left out. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _is_folder(entry) and levels:
                with opened(entry.name, folder) as inner:
                    yield from files_in(inner, levels - 1, f"{above}{entry.name}/")
            elif above or entry.name != MARKER:
                yield f"{above}{entry.name}", entry


def delete_objects(folder: int) -> list[str]:
    """Delete the objects in an open directory of a rank, and the folders that they lie in; returns the paths from there
    of what else there is, but for the marker. Raises OSError."""
    until_s = time.monotonic() + _GOING_S
    while True:
        strangers = _delete_objects(folder)
        going = bool(strangers) and all(is_going(os.path.basename(path)) for path in strangers)
        if not going or time.monotonic() > until_s:
            return strangers
        time.sleep(_POLL_S)


def _delete_objects(folder: int, levels: int = MOST_LEVELS, above: str = "") -> list[str]:
    strangers = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_object(entry):
                os.unlink(entry.name, dir_fd=folder)
            elif _is_folder(entry) and levels:
                with opened(entry.name, folder) as inner:
                    strangers += _delete_objects(inner, levels - 1, f"{above}{entry.name}/")
                _rmdir(entry.name, folder)
            elif above or entry.name != MARKER:
                strangers.append(f"{above}{entry.name}")
    return strangers


def is_going(name: str) -> bool:
    """Whether a file of that name is deleted already, and only not gone yet."""
    return _GOING.fullmatch(name) is not None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return is_name_of_folder(entry.name) and entry.is_dir(follow_symlinks=False)


def remove_if_empty(name: str | os.PathLike[str], parent: int | None = None) -> None:
    """Remove a directory, relative to the open directory `parent`, unless something is in it. What is going is waited
    for, for a moment."""
    until_s = time.monotonic() + _GOING_S
    while not _rmdir(name, parent) and time.monotonic() < until_s:
        with opened_if_there(name, parent) as folder:
            if folder is None or not all(map(is_going, os.listdir(folder))):
                return
        time.sleep(_POLL_S)


def _rmdir(name: str | os.PathLike[str], parent: int | None) -> bool:
    """Whether a directory is gone. Raises OSError but for what is not empty."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if error.errno != errno.ENOENT:
            raise
    return True
