"""The file that HDF5 writes into, which survives a full disk.

The HDF5 library can crash the process when a write fails while it closes a file. So its writes go through this object,
which remembers the first failure and tells HDF5 that all is well: HDF5 closes in good order, the writer reports it.
"""

import io
import os
from pathlib import Path
from typing import Any


class FailSafeFile(io.RawIOBase):
    """A new file for h5py's `fileobj` driver; `error` is the first failure, after which writes are discarded."""

    def __init__(self, path: Path) -> None:
        """Create `path`, which must not exist. Raises OSError."""
        super().__init__()
        self.error: OSError | None = None
        self._position = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._fd).st_size if base is None else base)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._fd, [memoryview(buffer).cast("B")], self._position)
        self._position += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while self.error is None and written < len(view):
                written += os.pwrite(self._fd, view[written:], self._position + written)
        except OSError as error:
            self.error = error
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        length = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._fd, length)
        except OSError as error:
            self.error = error
        return length

    def sync(self) -> None:
        """Bring what was written to the device; a failure goes to `error`."""
        try:
            if self.error is None:
                os.fsync(self._fd)
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Close the descriptor; a failure goes to `error` (network filesystems report a full disk here)."""
        if self.closed:
            return
        super().close()
        try:
            os.close(self._fd)
        except OSError as error:
            self.error = self.error or error
