"""Unpacking zstd with the package zstandard, for a Python whose library cannot: whole frames, or an error.

Imported only where a trace is packed so: without the package, that fails.
"""

import io
from typing import IO, Any, Final

import zstandard

_PIECE_BYTES: Final = 256 * 1024


class ZstdDamageError(Exception):
    """The bytes are not, or not all, of zstd."""


class _Unpacked(io.RawIOBase):
    """The content of `packed`, of one frame or several; that of the package takes one that is cut off for whole."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame: Any = None
        self._held = b""
        """Packed bytes behind the end of a frame."""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._unpack():
            pass
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpack(self) -> bool:
        """Take some more packed bytes. Whether there were any."""
        piece = self._held or self._packed.read(_PIECE_BYTES)
        self._held = b""
        if not piece:
            if self._frame is not None:
                raise EOFError("it ends within a frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(piece))
        except zstandard.ZstdError as error:
            raise ZstdDamageError(str(error)) from error
        if self._frame.eof:
            self._held, self._frame = self._frame.unused_data, None
        return True


def open(packed: IO[bytes], mode: str) -> IO[bytes]:
    """The unpacked content of `packed`; `mode` is rb."""
    return io.BufferedReader(_Unpacked(packed), _PIECE_BYTES)
