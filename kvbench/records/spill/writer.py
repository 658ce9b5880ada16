"""The file that a rank appends its rows to while it runs, so that a rank that is killed loses at most a second of them.

The format (`docs/recovery.md`): the eight bytes of `MAGIC`, then frames. A frame is a head of 32 bytes (`FRAME`) and
its payload. The checksum is xxh3 of head and payload, seeded with that of the first frame, so that no frame of another
file passes for one of this. A frame that was not written whole is thus found, and all before it is good. Numbers are
little-endian; text is JSON. `spill_reader` reads it.

What is written is brought to the device once a round, by the thread that calls `flush`: nothing is in a timed span.
"""

import errno
import json
import os
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.unfinished import copy_file

MAGIC: Final = b"KVSPILL\x01"
"""The last byte is the version: raised whenever a reader of the format before would misread the file."""

FRAME: Final = struct.Struct("<4sIQQQ")
"""FRAME_MAGIC, kind, number of the frame from 0, bytes of the payload, checksum."""
FRAME_MAGIC: Final = b"kvfr"
HASHED_BYTES: Final = 24
"""Of the head: all but the checksum."""

HEADER: Final = 1
"""The first frame: a JSON object that says of which run and rank this is (`header.SpillHeader`)."""
FACTS: Final = 2
"""A JSON object of what became known later; a later value replaces an earlier one (`header.SpillFacts`)."""
RECORDS: Final = 3
REQUESTS: Final = 4
SAMPLES: Final = 5
"""Rows, as they lie in memory; times are on the clock of the rank's node."""

MAX_PAYLOAD_BYTES: Final = 16 * 1024**2
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_BUFFER_ROWS: Final = 8192
"""Rows of one frame at most: as many wait in memory to be written."""


def checksum(head: bytes, payload: Any, seed: int) -> int:
    """The checksum of a frame: `head` without its last eight bytes, then the payload."""
    state = xxhash.xxh3_64(head, seed=seed)
    state.update(payload)
    return int(state.intdigest())


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A JSON object as it stands in a frame."""
    return json.dumps(content, separators=(",", ":")).encode()


def layout_of(dtype: np.dtype[Any]) -> list[list[str]]:
    """Names and types of a row's fields, as the header tells them."""
    return [[name, dtype[name].str] for name in dtype.names or ()]


class _Buffer:
    """Rows that wait to become one frame."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.rows = np.empty(_BUFFER_ROWS, dtype)
        self.filled = 0


class SpillWriter:
    """Writes one spill file; a `stream.Keeper`.

    `header` is the content of the first frame, to which the layouts of the rows are added. `pulse` gives facts that
    change, and is asked in each round. A file that cannot be written any more (a full filesystem) is cut back to the
    last whole round and left as it is: `error` says why, and `keeping` is False from then on. One that somebody deletes
    (a cleaner of temporary files) is written anew, or, where that fails, goes on without a name.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        sample_dtype: np.dtype[Any],
        pulse: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Make `path`, which must not exist. Raises OSError."""
        self.path = path
        self.error: OSError | None = None
        self._pulse = pulse
        self._buffers = {RECORDS: _Buffer(RECORD_DTYPE), REQUESTS: _Buffer(REQUEST_DTYPE)}
        self._pending: list[tuple[int, bytes]] = []
        self._pending_lock = threading.Lock()
        self._number = self._written = self._seed = 0
        self._kept = self._kept_number = 0
        self._taken_records = self._kept_records = 0
        self._named = False
        self._nameless = False
        self._fd = os.open(path, _NEW_FILE, 0o600)
        layouts = {"records": layout_of(RECORD_DTYPE), "requests": layout_of(REQUEST_DTYPE)}
        layouts["samples"] = layout_of(sample_dtype)
        try:
            self._write_all([MAGIC])
            self._seed = self._write_frame(HEADER, json_bytes({**header, "layouts": layouts}))
        except OSError:
            self.remove()
            raise
        self._kept, self._kept_number = self._written, self._number

    @property
    def keeping(self) -> bool:
        """Whether all rows of all rounds are in the file, on the device."""
        return self.error is None

    @property
    def kept_bytes(self) -> int:
        """Bytes of the file up to the last round that is on the device."""
        return self._kept

    @property
    def kept_records(self) -> int:
        """Records in that part of the file."""
        return self._kept_records

    @property
    def descriptor(self) -> int:
        """Of the file, for reading it back: its name may be gone."""
        return self._fd

    @property
    def is_there(self) -> bool:
        """Whether the file can be found under its name."""
        return self._fd >= 0 and self._stands_there(os.fstat(self._fd))

    def keep_name(self) -> None:
        """Write the file anew where somebody has deleted it. Tried once: where that fails it has no name any more, and
        `is_there` is False."""
        try:
            if self._fd < 0 or self._nameless or os.fstat(self._fd).st_nlink:
                return
            anew = os.open(self.path, _NEW_FILE, 0o600)
            try:
                copy_file(self._fd, anew)
            except OSError:
                self.path.unlink(missing_ok=True)
                os.close(anew)
                raise
        except OSError:
            # All is still in the file that is open; a rank that is killed takes it with it.
            self._nameless = True
            return
        nameless, self._fd, self._named = self._fd, anew, False
        os.close(nameless)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Facts for the next round, from any thread."""
        self._add(FACTS, json_bytes(facts))

    def add_samples(self, rows: NDArray[Any]) -> None:
        """Samples for the next round, from any thread."""
        self._add(SAMPLES, rows.tobytes())

    def take_records(self, rows: NDArray[Any]) -> None:
        """Append rows of RECORD_DTYPE."""
        self._taken_records += len(rows)
        self._take(RECORDS, rows)

    def take_requests(self, rows: NDArray[Any]) -> None:
        """Append rows of REQUEST_DTYPE."""
        self._take(REQUESTS, rows)

    def flush(self) -> None:
        """Bring the rows of this round to the device; one in which nothing came is not waited for."""
        if self.error is not None:
            return
        self.keep_name()
        try:
            self._write_pending()
            for kind in self._buffers:
                self._write_buffer(kind)
            has_news = self._written > self._kept
            self._write_frame(FACTS, json_bytes(self._pulse()))
            if has_news:
                self._sync()
        except OSError as error:
            self._give_up(error)
            return
        self._kept, self._kept_number = self._written, self._number
        self._kept_records = self._taken_records

    def close(self) -> None:
        """Leave the file as it is. Does nothing when it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Remove the file, unless another stands under its name by now. Raises OSError."""
        mine = os.fstat(self._fd) if self._fd >= 0 else None
        self.close()
        if mine is None:
            return
        if self._stands_there(mine):
            self.path.unlink(missing_ok=True)

    def _stands_there(self, mine: os.stat_result) -> bool:
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, mine)

    def _sync(self) -> None:
        """Bring the file to the device, and the first time its name as well."""
        os.fdatasync(self._fd)
        if not self._named and not self._nameless:
            _sync_directory(self.path.parent)
            self._named = True

    def _add(self, kind: int, payload: bytes) -> None:
        with self._pending_lock:
            self._pending.append((kind, payload))

    def _take(self, kind: int, rows: NDArray[Any]) -> None:
        buffer = self._buffers[kind]
        start = 0
        while start < len(rows) and self.error is None:
            count = min(len(rows) - start, _BUFFER_ROWS - buffer.filled)
            buffer.rows[buffer.filled : buffer.filled + count] = rows[start : start + count]
            buffer.filled += count
            start += count
            if buffer.filled == _BUFFER_ROWS:
                try:
                    self._write_pending()
                    self._write_buffer(kind)
                except OSError as error:
                    self._give_up(error)

    def _write_pending(self) -> None:
        with self._pending_lock:
            pending, self._pending = self._pending, []
        for kind, payload in pending:
            self._write_frame(kind, payload)

    def _write_buffer(self, kind: int) -> None:
        buffer = self._buffers[kind]
        if buffer.filled:
            self._write_frame(kind, buffer.rows[: buffer.filled].view(np.uint8).data)
            buffer.filled = 0

    def _write_frame(self, kind: int, payload: bytes | memoryview) -> int:
        head = FRAME.pack(FRAME_MAGIC, kind, self._number, len(payload), 0)[:HASHED_BYTES]
        digest = checksum(head, payload, self._seed)
        self._write_all([head + struct.pack("<Q", digest), payload])
        self._number += 1
        return digest

    def _write_all(self, parts: list[bytes | memoryview]) -> None:
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            count = os.pwritev(self._fd, left, self._written)
            if count == 0:
                raise OSError(errno.EIO, "nothing was written")
            self._written += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left and count:
                left[0] = left[0][count:]

    def _give_up(self, error: OSError) -> None:
        """Keep what is on the device, and say there that there is more in memory, if it will take so much."""
        self.error = error
        for buffer in self._buffers.values():
            buffer.filled = 0
        try:
            os.ftruncate(self._fd, self._kept)
            self._written = self._kept
            # Frames are numbered without a gap: those that were cut off do not count.
            self._number = self._kept_number
            self._write_frame(FACTS, json_bytes({"stopped": error.strerror or str(error)}))
            os.fdatasync(self._fd)
        except OSError:
            # The reason for giving up is in `error`; a file that cannot even take this is read as far as it is good.
            return


def _sync_directory(directory: Path) -> None:
    """Bring the names in `directory` to the device: a file without its name cannot be found after a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some filesystems have nothing to do there, and say it with an error.
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
