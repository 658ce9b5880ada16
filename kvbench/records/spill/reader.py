"""Reading a spill file, whoever made it: every frame is checked before it is believed, and nothing in it is executed.

A rank that was killed leaves a file that ends in the middle of a frame. So a file is read up to the first frame that is
not whole, or whose checksum is wrong; `Ending` says where that was and why. `spill` writes these files.
"""

import json
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.records.schema import CODES, RECORD_DTYPE, REQUEST_DTYPE, without_later
from kvbench.records.spill.writer import (
    FACTS,
    FRAME,
    FRAME_MAGIC,
    HASHED_BYTES,
    HEADER,
    MAGIC,
    MAX_PAYLOAD_BYTES,
    RECORDS,
    REQUESTS,
    SAMPLES,
    checksum,
    layout_of,
)

_CUT_OFF: Final = "the file ends in the middle of a frame"


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame: `rows` of a frame of rows (read-only, of the file's own memory), `facts` of one of facts."""

    kind: int
    rows: NDArray[Any]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Raw:
    """A whole frame whose checksum is right."""

    kind: int
    digest: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Bad:
    """Why there is no frame."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ending:
    """Where the good part of a file ends, and what follows."""

    good_bytes: int
    left_bytes: int
    """Bytes after the good part."""
    reason: str
    """Why they are no frame; "" where there are none."""


class SpillFile:
    """A spill file that is open for reading; a context manager. Not more than one frame of it is in memory.

    What is wrong with it before the end of its first frame is a KvbenchError; so is what an intact file must not hold.
    """

    def __init__(self, path: str | os.PathLike[str], sample_dtype: np.dtype[Any], descriptor: int = -1) -> None:
        """Open `path` and check its first frame. Raises KvbenchError naming the file and what is wrong.

        `descriptor`: of the file, where it is open already and may have lost its name; it stays the caller's.
        """
        self.path = Path(path)
        self._dtypes = {RECORDS: RECORD_DTYPE, REQUESTS: REQUEST_DTYPE, SAMPLES: sample_dtype}
        self._early: dict[int, np.dtype[Any]] = {}
        """Of kinds of rows that were written before they had later columns."""
        self._seed = 0
        self.ending: Ending | None = None
        """Known once `frames` came to it."""
        try:
            # Not to hang at a pipe, nor to wait for a device.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.dup(descriptor) if descriptor >= 0 else os.open(self.path, flags)
        except OSError as error:
            raise KvbenchError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            self.header = self._first()
        except OSError as error:
            self.close()
            raise KvbenchError(f"cannot read {self.path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def frames(self, upto: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Frame]:
        """The frames after the first, in order, up to the first that is damaged or not whole, or to byte `upto`.

        All are checked, and those of other `kinds` are then passed over.
        """
        size = self._size()
        if upto is not None:
            size = min(size, upto)
        position, number = self._start, 1
        while position < size:
            frame = self._frame(position, number, size)
            if isinstance(frame, _Bad):
                self.ending = Ending(position, size - position, frame.reason)
                return
            if kinds is None or frame.kind in kinds:
                yield self._content(frame, position)
            position += FRAME.size + len(frame.payload)
            number += 1
        self.ending = Ending(position, 0, "")

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _first(self) -> dict[str, Any]:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise KvbenchError(f"{self.path} is not a regular file")
        size = self._size()
        magic = self._read(0, len(MAGIC))
        if magic[:-1] != MAGIC[:-1]:
            raise self._refuse("it does not begin like one")
        if magic != MAGIC:
            raise KvbenchError(
                f"{self.path} is a spill file of version {magic[-1]}, and this kvbench reads version {MAGIC[-1]}: "
                "recover it with the kvbench that wrote it"
            )
        first = self._frame(len(MAGIC), 0, size)
        if isinstance(first, _Bad):
            raise self._refuse(f"its first frame is no good: {first.reason}")
        if first.kind != HEADER:
            raise self._refuse("it does not begin with a header")
        header = self._json(first.payload, len(MAGIC))
        layouts = {RECORDS: "records", REQUESTS: "requests", SAMPLES: "samples"}
        told = header.pop("layouts", None)
        if not isinstance(told, dict) or not all(self._takes_layout(k, told.get(n)) for k, n in layouts.items()):
            raise KvbenchError(
                f"{self.path} has rows of another layout than those of this kvbench: recover it with the kvbench that "
                "wrote it"
            )
        self._seed = first.digest
        self._start = len(MAGIC) + FRAME.size + len(first.payload)
        return header

    def _takes_layout(self, kind: int, told: object) -> bool:
        """Whether rows of a kind are as this kvbench writes them, or as it did before later columns came behind."""
        dtype = self._dtypes[kind]
        early = without_later(dtype)
        if told == layout_of(early):
            self._early[kind] = early
            return True
        return bool(told == layout_of(dtype))

    def _frame(self, position: int, number: int, size: int) -> _Raw | _Bad:
        """The frame at `position`, or why there is none."""
        try:
            head = self._read(position, min(FRAME.size, size - position))
            if len(head) < FRAME.size:
                return _Bad(_CUT_OFF)
            magic, kind, its_number, length, digest = FRAME.unpack(head)
            if magic != FRAME_MAGIC or its_number != number or length > MAX_PAYLOAD_BYTES:
                return _Bad("the head of the frame is damaged")
            payload = self._read(position + FRAME.size, min(length, size - position - FRAME.size))
        except OSError as error:
            return _Bad(f"it cannot be read: {error.strerror}")
        if len(payload) < length:
            return _Bad(_CUT_OFF)
        if checksum(head[:HASHED_BYTES], payload, self._seed) != digest:
            return _Bad("the checksum of the frame is wrong")
        return _Raw(kind, digest, payload)

    def _content(self, frame: _Raw, position: int) -> Frame:
        if frame.kind == FACTS:
            return Frame(frame.kind, np.empty(0), self._json(frame.payload, position))
        dtype = self._dtypes.get(frame.kind)
        if dtype is None:
            raise self._refuse(f"the frame at byte {position} is of the unknown kind {frame.kind}")
        stored = self._early.get(frame.kind, dtype)
        if len(frame.payload) % stored.itemsize:
            raise self._refuse(f"the frame at byte {position} does not hold whole rows")
        rows = np.frombuffer(frame.payload, stored)
        if stored != dtype:
            early, rows = rows, np.zeros(len(rows), dtype)
            for name in set(stored.names or ()) & set(dtype.names or ()):
                rows[name] = early[name]
        return Frame(frame.kind, rows, {})

    def _json(self, payload: bytes, position: int) -> dict[str, Any]:
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise self._refuse(f"the frame at byte {position} is not JSON") from error
        if not isinstance(content, dict):
            raise self._refuse(f"the frame at byte {position} is not a JSON object")
        return content

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _read(self, position: int, length: int) -> bytes:
        """Up to `length` bytes; fewer at the end of the file. Raises OSError."""
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, position)
            if not part:
                break
            parts.append(part)
            position += len(part)
            length -= len(part)
        return b"".join(parts)

    def _refuse(self, reason: str) -> KvbenchError:
        return KvbenchError(f"{self.path} is no kvbench spill file, or is damaged: {reason}")


def check_rows(path: Path, rows: NDArray[Any], rank: int, tiers: int) -> None:
    """Raise KvbenchError where `rows` (of RECORD_DTYPE or REQUEST_DTYPE) cannot be of `rank` and a run with `tiers`."""
    names = rows.dtype.names or ()
    limits = {name: len(codes) for name, codes in CODES.items() if name in names}
    if "tier" in names:
        limits["tier"] = tiers
    for name, limit in limits.items():
        if len(rows) and int(rows[name].max()) >= limit:
            raise KvbenchError(
                f"{path} is damaged: it holds the {name} {rows[name].max()}, and {limit - 1} is the highest"
            )
    if (rows["rank"] != rank).any():
        raise KvbenchError(f"{path} is damaged: it is of rank {rank} and holds rows of another")
