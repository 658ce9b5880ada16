"""Where a command may write: every file that any command leaves is asked for here first, and written through here.

Refused is what would destroy something: a file that the command reads, a file of another kind, a folder, a device. A
regular file gets its content under a temporary name beside it and is renamed when it is whole (`unfinished`); links are
followed, so that what they lead to is replaced, and the link stays. Nothing else is ever replaced by a regular file:
pipes and the like are written through where the output allows it.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kvbench.errors import KvbenchError
from kvbench.records.unfinished import UnfinishedFile, lock

_HEAD_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, told by how it begins."""

    name: str
    starts: tuple[bytes, ...]

    def begins(self, head: bytes) -> bool:
        """Whether a file whose first bytes are `head` is of this kind; letters' case and blanks before it are none of
        its concern."""
        plain = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        return plain.startswith(tuple(start.lower() for start in self.starts))


HDF5: Final = Kind("an HDF5 file", (b"\x89HDF\r\n\x1a\n",))
PAGE: Final = Kind("an HTML page", (b"<!DOCTYPE html", b"<html"))
JSON: Final = Kind("a JSON file", (b"{", b"["))
PARQUET: Final = Kind("a Parquet file", (b"PAR1",))
FIO_JOB: Final = Kind("a job of fio", (b"#", b"[", b";"))
FIO_LOG: Final = Kind("a log of fio", (b"fio version",))
PICTURES: Final = {
    ".png": Kind("a PNG picture", (b"\x89PNG\r\n\x1a\n",)),
    ".svg": Kind("an SVG picture", (b"<?xml", b"<svg")),
    ".pdf": Kind("a PDF file", (b"%PDF-",)),
}


@dataclass(frozen=True, slots=True)
class Output:
    """A place that may be written, as it was looked at."""

    path: Path
    """As the user gave it."""
    file: Path | None
    """The regular file that is made or replaced, which a link may lead to; None: what is there is written through."""


class Written:
    """A file that this process has written, open for reading: under its name there may be another's by now. A context
    manager that closes it."""

    def __init__(self, path: Path, descriptor: int = -1) -> None:
        """`descriptor`, which becomes this object's; -1 where another process has written the file."""
        self.path = path
        self._descriptor = descriptor

    @property
    def source(self) -> Path:
        """What the file itself is opened by."""
        return self.path if self._descriptor < 0 else Path(f"/proc/self/fd/{self._descriptor}")

    @property
    def replaced(self) -> bool:
        """Whether `path` does not lead to this file any more."""
        return self._descriptor >= 0 and not _is_same(self.path, os.fstat(self._descriptor))

    def close(self) -> None:
        """Close the file; only its name is left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def picture_kind(path: Path) -> Kind:
    """What a picture of this name is. Raises KvbenchError where its ending says none."""
    kind = PICTURES.get(path.suffix.lower())
    if kind is None:
        raise KvbenchError(f"{path}: expected a name that ends in {', '.join(PICTURES)}, for a picture")
    return kind


def check_output(
    path: str | os.PathLike[str],
    kind: Kind | None,
    *,
    replace: bool = True,
    inputs: Iterable[str | os.PathLike[str]] = (),
    stream: bool = False,
) -> Output:
    """Look whether a command may write `path`, a file of `kind` (None: of any), and reads none of `inputs` from there.

    An empty file is of every kind. `replace`: an existing file may be replaced. `stream`: the content may also go to a
    pipe or a character device. Nothing is changed. Raises KvbenchError that says why not, and what to do.
    """
    given = Path(path)
    try:
        status = os.stat(given)
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except (OSError, ValueError) as error:
        raise _refusal(given, getattr(error, "strerror", None) or str(error)) from error
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise _refusal(given, "it is a directory; give the name of a file")
    name_file(os.fspath(path))
    if status is None:
        return _new(given, replace)
    for source in inputs:
        if _is_same(source, status):
            named = "" if os.fspath(source) == os.fspath(given) else f", as {os.fspath(source)}"
            raise _refusal(given, f"this command reads it{named}; give another name")
    if not stat.S_ISREG(status.st_mode):
        if stream and (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode)):
            return Output(given, None)
        raise _refusal(given, f"it is {_kind_of_special(status.st_mode)}; give the name of a file")
    if not replace:
        raise _exists(given)
    real = Path(os.path.realpath(given)) if given.is_symlink() else given
    if not _is_same(real, status):
        raise _refusal(given, "the file that it leads to has no name any more; give the name of a file")
    _check_kind(given, kind)
    return Output(given, real)


def name_file(given: str) -> Path:
    """`given` as a path of a file. Raises KvbenchError where it can only name a directory: `folder/`."""
    if os.path.basename(given) in ("", ".", ".."):
        raise KvbenchError(f"cannot write {given!r}: that names a directory; give the name of a file")
    return Path(given)


def check_folder(path: Path) -> None:
    """Look whether files can be put into `path`, which may not be there yet. Raises KvbenchError."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise KvbenchError(f"cannot write into {path}: {error.strerror}") from error
    raise KvbenchError(f"cannot write into {path}: it is not a directory; give another")


def make_folder(path: Path, what: str, advice: str) -> None:
    """Make the directory `path` and those above it, for `what`. Raises KvbenchError that ends in `advice`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KvbenchError(f"cannot make {path} for {what}: {error.strerror}; {advice}") from error


@contextmanager
def alone_in(folder: Path, advice: str) -> Iterator[None]:
    """A context in which no other process has `folder` for its own, as far as the filesystem has locks. Raises
    KvbenchError, which ends in `advice`, where one has."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KvbenchError(f"cannot look into {folder}: {error.strerror}") from error
    try:
        if lock(descriptor) == "held":
            raise KvbenchError(f"another kvbench is at work in {folder}: {advice}")
        yield
    finally:
        os.close(descriptor)


def write_output(output: Output, content: bytes | Iterable[bytes], kind: Kind | None) -> None:
    """Write all of `content`, or one piece of it after the other, whose folder is made, so that the file is there whole
    or not at all. Raises KvbenchError naming it."""
    if isinstance(content, bytes):
        content = [content]
    if output.file is None:
        _write_through(output.path, b"".join(content))
        return
    make_folder(output.path.parent, output.path.name, "choose another")
    try:
        unfinished = UnfinishedFile(output.file)
    except OSError as error:
        raise _refusal(output.path, error.strerror) from error
    try:
        for piece in content:
            unfinished.write(piece)
            if unfinished.error is not None:
                break
        unfinished.complete(to_device=False)
        unfinished.close()
        if unfinished.error is not None:
            raise _refusal(output.path, unfinished.error.strerror) from unfinished.error
        # What is there may have become something else meanwhile.
        check_output(output.file, kind)
        unfinished.temporary.replace(output.file)
    except OSError as error:
        raise _refusal(output.path, error.strerror) from error
    finally:
        unfinished.discard()


def _new(given: Path, replace: bool) -> Output:
    """Nothing can be found there: `given` is free, or a link that leads nowhere."""
    if not given.is_symlink():
        return Output(given, given)
    if not replace:
        raise _exists(given)
    target = Path(os.path.realpath(given))
    if not target.parent.is_dir():
        # It may be on a filesystem that is not mounted: its folder is not for us to make.
        raise _refusal(given, f"it is a link to {target}, and the directory of that does not exist")
    return Output(given, target)


def _check_kind(given: Path, kind: Kind | None) -> None:
    if kind is None:
        return
    try:
        # Not to wait, should it have become a pipe since it was looked at.
        descriptor = os.open(given, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            head = os.read(descriptor, _HEAD_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = f"what is there cannot be read, so it is not replaced: {error.strerror}"
        raise _refusal(given, reason) from error
    if head and not kind.begins(head):
        raise _refusal(given, f"what is there is not {kind.name}, and stays; give another name, or move it away")


def _write_through(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refusal(path, "it has become a regular file")
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refusal(path, error.strerror) from error


def _is_same(path: str | os.PathLike[str], status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except (OSError, ValueError):
        return False


def _kind_of_special(mode: int) -> str:
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _exists(given: Path) -> KvbenchError:
    return KvbenchError(f"{given} exists: give another name, or --overwrite to replace it")


def _refusal(given: Path, reason: str | None) -> KvbenchError:
    return KvbenchError(f"cannot write {given}: {reason}")
