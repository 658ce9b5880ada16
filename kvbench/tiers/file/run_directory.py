"""The directories of one run in the directory under test: made, marked, and removed again.

kvbench deletes only what carries its marker: `<directory>/kvbench-<run id>/rank-<r>/`, each level with a marker file
that names the run. Whatever else is found there is left alone, with the directories that hold it.

A rank that is alive holds a lock (flock) on its own marker, so that `clean` can tell what is in use. The kernel gives
it up when the process ends, in whatever way. NFS, GlusterFS, Lustre (mounted with `flock`) and other shared filesystems
make it known to all nodes; on one without locks, ranks go without.
"""

import errno
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.records.unfinished import lock

MARKER: Final = ".kvbench-run"
_OBJECT_SUFFIXES: Final = (".kv", ".npy")
_PREFIX: Final = "kvbench-"
_STORAGE_FAILED: Final = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO)
"""Errors that do not tell whether a marker is there."""

RANK_FOLDER: Final = re.compile(r"rank-\d+")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The directories of run `run_id` below `directory`, seen from rank `rank`."""

    directory: Path
    run_id: str
    rank: int
    _held: list[int] = field(default_factory=list, repr=False, compare=False)
    """Descriptor of the marker that is locked, if it is."""

    @property
    def top(self) -> Path:
        """The run's own directory, shared by its ranks on this filesystem."""
        return self.directory / f"{_PREFIX}{self.run_id}"

    @property
    def objects(self) -> Path:
        """This rank's own directory."""
        return self.top / _rank_folder(self.rank)

    def create(self) -> None:
        """Make both levels with their markers, and lock this rank's. Raises KvbenchError naming what is wrong."""
        check_directory(self.directory)
        try:
            self.top.mkdir(mode=0o700, exist_ok=True)
            self._mark(self.top)
            self.objects.mkdir(mode=0o700)
            self._mark(self.objects)
            descriptor = os.open(self.objects / MARKER, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise KvbenchError(
                f"cannot make {self.objects}: {error.strerror}; give a directory that can be written with --dir"
            ) from error
        self._held.append(descriptor)
        if lock(descriptor) == "held":
            raise KvbenchError(f"{self.objects} is being cleaned by somebody else: start the run again")

    def remove(self) -> list[Path]:
        """Remove this rank's objects and directory, then the run's directory if it is the last rank to leave it.

        Returns what was found there that kvbench did not make, and left. Raises OSError when removing fails.
        """
        strangers: list[Path] = []
        if not self.top.is_symlink() and _is_marked(self.objects, self.run_id):
            strangers += self._remove_objects()
        self._release()
        if _is_marked(self.top, self.run_id):
            # Two ranks may both find themselves the last; either may remove what the other looks at.
            with suppress(FileNotFoundError):
                remaining = _others_in(self.top)
                if not remaining:
                    (self.top / MARKER).unlink()
                    _remove_if_empty(self.top)
                elif not RANK_FOLDER.fullmatch(remaining[-1]):
                    strangers += [self.top / name for name in remaining]
        return strangers

    def _remove_objects(self) -> list[Path]:
        strangers = []
        with os.scandir(self.objects) as entries:
            for entry in entries:
                if entry.name == MARKER:
                    continue
                if is_object(entry):
                    os.unlink(entry.path)
                else:
                    strangers.append(Path(entry.path))
        # Before the marker goes: NFS keeps a removed file that is open under another name, in this directory.
        self._release()
        if not strangers:
            (self.objects / MARKER).unlink()
            _remove_if_empty(self.objects)
        return strangers

    def _release(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def _mark(self, directory: Path) -> None:
        content = json.dumps({"program": "kvbench", "run_id": self.run_id}).encode()
        with suppress(FileExistsError):
            descriptor = os.open(directory / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, content)
            finally:
                os.close(descriptor)


class Nowhere(RunDirectory):
    """Stands for the directories of a run that keeps no files: none are made."""

    def __init__(self, run_id: str, rank: int) -> None:
        super().__init__(Path("none"), run_id, rank)

    def create(self) -> None:
        """Make nothing."""

    def remove(self) -> list[Path]:
        """Remove nothing."""
        return []


def other_rank(rank: int) -> str:
    """The directory of another rank of the run, from a rank's own directory."""
    return f"../{_rank_folder(rank)}"


def check_directory(directory: Path) -> None:
    """Raise KvbenchError when `directory` is missing, no directory, or cannot be written."""
    if not directory.exists():
        raise KvbenchError(
            f"the directory {directory} does not exist; make it, or mount the storage that it should be on"
        )
    if not directory.is_dir():
        raise KvbenchError(f"{directory} is not a directory; give the directory under test with --dir")
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise KvbenchError(f"{directory} is on a read-only filesystem; mount it for writing")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise KvbenchError(f"{directory} cannot be written by this user; change its permissions or give another --dir")


def _rank_folder(rank: int) -> str:
    return f"rank-{rank}"


def marks(content: bytes, run_id: str) -> bool:
    """Whether `content` is that of a marker of run `run_id`."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("program") == "kvbench" and found.get("run_id") == run_id


def _others_in(top: Path) -> list[str]:
    """What a run's directory holds besides its marker, up to the first directory of a rank, which comes last.

    A rank that leaves while others are still there does not read the whole list: together they would read as many
    entries as the square of their number.
    """
    found: list[str] = []
    with os.scandir(top) as entries:
        for entry in entries:
            if RANK_FOLDER.fullmatch(entry.name):
                return [*sorted(found), entry.name]
            if entry.name != MARKER:
                found.append(entry.name)
    return sorted(found)


def _is_marked(directory: Path, run_id: str) -> bool:
    """Whether `directory` is one, and no link, and holds the marker of run `run_id`, a regular file.

    Raises OSError when the storage fails.
    """
    if directory.is_symlink():
        return False
    try:
        descriptor = os.open(directory / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _STORAGE_FAILED:
            raise
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and marks(os.read(descriptor, 4096), run_id)
    finally:
        os.close(descriptor)


def is_object(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file that a file tier makes, by its name; no link counts."""
    stem, suffix = os.path.splitext(entry.name)
    named = suffix in _OBJECT_SUFFIXES and len(stem) == 16 and set(stem) <= set("0123456789abcdef")
    return named and entry.is_file(follow_symlinks=False)


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST):
            raise
