"""A filesystem that fails on demand: `failing_fs.py BACKING MOUNT_POINT ORDERS` (FUSE, in the foreground).

It passes everything on to the directory BACKING, and looks into the directory ORDERS at each operation: a file named
`read-EIO` there has every read fail with EIO, `write-ENOSPC` every write with ENOSPC, and so on for `fsync` and
`unlink`. In place of a device-mapper target, for which not every kernel is built.
"""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import mfusepy


class FailingFilesystem(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """Every file is one of the same name in `backing`."""

    use_ns = True

    def __init__(self, backing: Path, orders: Path) -> None:
        self._backing = backing
        self._orders = orders

    def _at(self, path: str) -> str:
        return f"{self._backing}{path}"

    def _obey(self, operation: str) -> None:
        for name in os.listdir(self._orders):
            ordered, _, error = name.partition("-")
            if ordered == operation:
                raise mfusepy.FuseOSError(getattr(errno, error))

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_ino")
        times = {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}
        return {name: getattr(status, name) for name in names} | times

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def statfs(self, path: str) -> dict[str, int]:
        space = os.statvfs(self._at(path))
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_namemax")
        return {name: getattr(space, name) for name in names}

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        self._obey("unlink")
        os.unlink(self._at(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_DIRECT)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._obey("read")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._obey("write")
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._obey("fsync")
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        if times is None:
            os.utime(self._at(path))
        else:
            os.utime(self._at(path), ns=times)
        return 0


if __name__ == "__main__":
    backing, mount_point, orders = map(Path, sys.argv[1:])
    mfusepy.FUSE(FailingFilesystem(backing, orders), str(mount_point), foreground=True, fsname="failing-fs")
