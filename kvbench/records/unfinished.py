"""A file that is being written: it has a temporary name beside its place until it is whole, and a mark that says so.

The first `MARK_BYTES` bytes of it are held back and written last. Until then a mark stands there, which names kvbench
and an id, and which no whole file begins with: so what a killed process has left can be told from everything else. The
file is locked (flock) for as long as it is being written. `leftovers` of the run's output finds and removes such files.

The HDF5 library can crash the process when a write fails while it closes a file. So a failure is remembered here, and
whoever writes is told that all is well: HDF5 closes in good order, and the failure is reported afterwards.
"""

import datetime
import fcntl
import io
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

SUFFIX: Final = ".partial"

MARK_BYTES: Final = 64
_COPY_BYTES: Final = 1024**2
_SAYS: Final = b"kvbench: unfinished, may be deleted\n"
_MARK: Final = re.compile(re.escape(_SAYS) + rb"(\d{8}-\d{6}-[0-9a-f]{6})\n {5}")

FOLDER_MARKER: Final = ".kvbench-unfinished"
"""The file with the mark in a folder that is there only for the time of a command."""


def mark_of(run_id: str) -> bytes:
    """The mark of an unfinished file with this id, which is formed like that of a run."""
    return (_SAYS + run_id.encode() + b"\n").ljust(MARK_BYTES)


def marked_by(head: bytes) -> str | None:
    """The id in the mark that `head`, the first bytes of a file, is; None where it is none."""
    found = _MARK.fullmatch(head[:MARK_BYTES])
    return None if found is None else found[1].decode()


def lock(descriptor: int) -> Literal["mine", "held", "none"]:
    """Lock an open file for as long as it stays open, without waiting: now `mine`, `held` by another process, or `none`
    where the filesystem has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "none"
    return "mine"


class UnfinishedFile(io.RawIOBase):
    """A new file for h5py's `fileobj` driver, or for anybody who writes; `error` is the first failure, after which
    writes are discarded."""

    def __init__(self, place: Path, run_id: str = "") -> None:
        """Make a file beside `place`, that will get its name. Raises OSError, whose `filename` it has."""
        super().__init__()
        self.error: OSError | None = None
        self._place = place
        self._head = bytearray(MARK_BYTES)
        self._position = self._size = 0
        self.temporary, self._fd = _make_beside(place)
        lock(self._fd)
        self._write_at(mark_of(run_id or _new_id()), 0)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (self._size if base is None else base)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._position)]
        from_head = self._head[self._position : self._position + len(view)]
        view[: len(from_head)] = from_head
        done = len(from_head)
        if done < len(view):
            done += os.preadv(self._fd, [view[done:]], self._position + done)
        self._position += done
        return done

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        in_head = max(0, min(len(view), MARK_BYTES - self._position))
        self._head[self._position : self._position + in_head] = view[:in_head]
        self._write_at(view[in_head:], self._position + in_head)
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        self._cut(max(self._size, MARK_BYTES))
        return self._size

    def complete(self, *, to_device: bool) -> None:
        """Write what was held back, in the place of the mark: the file is whole. A failure goes to `error`."""
        self._keep_name()
        self._write_at(self._head[: self._size], 0)
        if self._size < MARK_BYTES:
            self._cut(self._size)
        try:
            if self.error is None and to_device:
                os.fsync(self._fd)
        except OSError as error:
            self.error = error

    def open_again(self) -> int:
        """A descriptor of the same file for reading. Raises OSError."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the descriptor; a failure goes to `error` (network filesystems report a full disk here)."""
        if self.closed:
            return
        super().close()
        try:
            os.close(self._fd)
        except OSError as error:
            self.error = self.error or error

    def discard(self) -> None:
        """Close the file and remove it."""
        self.close()
        self.temporary.unlink(missing_ok=True)

    def _keep_name(self) -> None:
        """Write the file anew where somebody, such as a cleaner of temporary files, has deleted its name."""
        try:
            if self.error is not None or os.fstat(self._fd).st_nlink:
                return
            self.temporary, anew = _make_beside(self._place)
            lock(anew)
            copy_file(self._fd, anew)
            nameless, self._fd = self._fd, anew
            os.close(nameless)
        except OSError as error:
            self.error = error

    def _write_at(self, data: Any, offset: int) -> None:
        view, written = memoryview(data), 0
        try:
            while self.error is None and written < len(view):
                written += os.pwrite(self._fd, view[written:], offset + written)
        except OSError as error:
            self.error = error

    def _cut(self, size: int) -> None:
        try:
            if self.error is None:
                os.ftruncate(self._fd, size)
        except OSError as error:
            self.error = error


def copy_file(source: int, target: int) -> None:
    """Copy all of an open file, which need not have a name, into another, an empty one. Raises OSError."""
    left = os.fstat(source).st_size
    position = 0
    while left > 0:
        piece = os.pread(source, min(left, _COPY_BYTES), position)
        if not piece:
            return
        view = memoryview(piece)
        while view:
            written = os.pwrite(target, view, position)
            view, position = view[written:], position + written
        left -= len(piece)


@contextmanager
def unfinished_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, marked and locked as an unfinished file is, and removed with all that is in it. Raises
    OSError."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as made:
        folder = Path(made)
        descriptor = os.open(folder / FOLDER_MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            lock(descriptor)
            os.write(descriptor, mark_of(_new_id()))
            yield folder
        finally:
            os.close(descriptor)


def _make_beside(place: Path) -> tuple[Path, int]:
    for number in count():
        temporary = place.with_name(f"{place.stem}-{os.getpid()}-{number}{place.suffix}{SUFFIX}")
        try:
            return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
    raise AssertionError("unreachable: count() never ends")


def _new_id() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
