"""The content of a trace file as a stream of plain bytes: of a file or a pipe, and of what gzip, bzip2, xz, zstd made.

A stream is read once, from its start to its end, so that a pipe will do. Knows no format.
"""

import importlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self, TypeVar

from kvbench.errors import KvbenchError
from kvbench.workload.traces.id_store import temporary_file, temporary_place, unkept

HEAD_BYTES: Final = 64 * 1024
"""How much of the content can be looked at before it is read."""

_COPY_BYTES: Final = 1024 * 1024

T = TypeVar("T")
_BOM: Final = b"\xef\xbb\xbf"


class _Unpacker(NamedTuple):
    module: str
    """It has a function `open`. Some builds of Python, and some machines, lack some of them."""
    damage: str
    """module:name of what it raises, besides EOFError and OSError, where the bytes are damaged."""


class _Packing(NamedTuple):
    name: str
    start: bytes
    unpackers: tuple[_Unpacker, ...]
    """The first that is there is taken."""
    command: str
    """What writes the content of a file to its output."""
    install: str = ""
    """What brings an unpacker."""


_PACKINGS: Final = (
    _Packing("gzip", b"\x1f\x8b", (_Unpacker("gzip", "zlib:error"),), "gzip -dc"),
    _Packing("bzip2", b"BZh", (_Unpacker("bz2", "builtins:EOFError"),), "bzip2 -dc"),
    _Packing("xz", b"\xfd7zXZ\0", (_Unpacker("lzma", "lzma:LZMAError"),), "xz -dc"),
    _Packing(
        "zstd",
        b"\x28\xb5\x2f\xfd",
        (
            _Unpacker("compression.zstd", "compression.zstd:ZstdError"),
            _Unpacker("kvbench.workload.traces.zstd", "kvbench.workload.traces.zstd:ZstdDamageError"),
        ),
        "zstd -dc",
        "pip install 'kvbench[zstd]', or ",
    ),
    _Packing("lz4", b"\x04\x22\x4d\x18", (), "lz4 -dc"),
    _Packing("zip", b"PK\x03\x04", (), "unzip -p"),
)


class TraceStream:
    """The content of the file at `path`. A context manager.

    Every method raises KvbenchError, naming the file, where it cannot be read or unpacked.
    """

    def __init__(self, path: str | Path, index: int = 0) -> None:
        """`index`: which of a trace's files it is, from 0."""
        if "\0" in str(path):
            raise _unreadable(Path(str(path).replace("\0", "?")), "no path has a null byte")
        self.path = Path(path)
        self.index = index
        self._seekable: IO[bytes] | None = None
        self._damage: tuple[type[Exception], ...] = ()
        self._packing = ""
        # A pipe is opened as any file: until somebody opens its other end, this waits.
        self._file = self._guarded(lambda: self.path.open("rb", buffering=0))
        try:
            self._refuse_device()
            self._begin(self._file)
            packing = next((packing for packing in _PACKINGS if self.head.startswith(packing.start)), None)
            if packing is not None:
                self._unpack(packing)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, file: IO[bytes]) -> None:
        """Read the head of `file`, which is then read from its start all the same."""
        self.head = self._guarded(lambda: _read_up_to(file, HEAD_BYTES))
        """The first HEAD_BYTES of the content, or all of it where it is shorter."""
        self._content: IO[bytes] = io.BufferedReader(_Rejoined(self.head, file), HEAD_BYTES)

    def _refuse_device(self) -> None:
        descriptor = self._file.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            device = os.path.realpath(f"/proc/self/fd/{descriptor}")
            raise KvbenchError(
                f"trace {self.path} is a device ({device}), no file and no pipe (ranks that mpirun starts have no "
                "standard input: give the path of a file, or of a pipe that mkfifo made)"
            )

    def _unpack(self, packing: _Packing) -> None:
        found = ((unpacker, _imported(unpacker.module)) for unpacker in packing.unpackers)
        there = [(unpacker, module) for unpacker, module in found if module is not None]
        if not there:
            raise KvbenchError(
                f"trace {self.path} is packed with {packing.name}, which is not unpacked here: {packing.install}unpack "
                f"it first (`{packing.command} FILE > TRACE`), or give a pipe that does (`<({packing.command} FILE)`)"
            )
        unpacker, module = there[0]
        self._packing = packing.name
        place, name = unpacker.damage.split(":")
        self._damage = (EOFError, getattr(importlib.import_module(place), name))
        self._begin(module.open(self._content, "rb"))

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, without line ends and byte-order mark, with their numbers from 1."""
        number = 0
        while line := self._guarded(self._content.readline):
            number += 1
            content = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if content:
                yield number, content

    def content(self) -> bytes:
        """All of it."""
        return self._guarded(self._content.read)

    def seekable(self) -> IO[bytes]:
        """All of it as a file that is read at any place, instead of being read from its start to its end: the file
        itself, or a temporary one of what a pipe gives or was packed. Asked for again, the same; closed with the
        stream."""
        if self._seekable is None:
            plain = not self._packing and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
            self._seekable = self._guarded(lambda: self.path.open("rb")) if plain else self._copied()
        return self._seekable

    def _copied(self) -> IO[bytes]:
        file: IO[bytes] = temporary_file(str(self.path)) or io.BytesIO()
        while piece := self._guarded(lambda: self._content.read(_COPY_BYTES)):
            try:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            except OSError as error:
                raise unkept(str(self.path), temporary_place(), error, file.tell()) from error
        file.seek(0)
        return file

    def _guarded(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except self._damage as error:
            raise _unreadable(self.path, f"damaged, or not whole, as {self._packing} ({error})") from error
        except OSError as error:
            reason = error.strerror or f"damaged, or not whole, as {self._packing} ({error})"
            raise _unreadable(self.path, reason) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if self._seekable is not None:
            self._seekable.close()


class _Rejoined(io.RawIOBase):
    """The bytes that were read from the start of a file already, then the rest of it."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._head[: len(target)] or self._rest.read(len(target))
        self._head = self._head[len(piece) :]
        target[: len(piece)] = piece
        return len(piece)


def _read_up_to(file: IO[bytes], most: int) -> bytes:
    """The first `most` bytes. A pipe gives at once only what is in it, which may be less than there will be."""
    found = bytearray()
    while len(found) < most and (piece := file.read(most - len(found))):
        found += piece
    return bytes(found)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _unreadable(path: Path, reason: str) -> KvbenchError:
    return KvbenchError(f"cannot read trace {path}: {reason} (give the path of a trace file)")
