"""What a user reads when an object cannot be moved or is not what was written: which one, where it is, what to do."""

import errno
import os
from typing import Final

from kvbench.tiers.contract import ExplainedError
from kvbench.tiers.payload import Mismatch

_CLIENT_GONE: Final = (errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN)
"""What FUSE says of a client's process that is not there any more, and CephFS of a client that was evicted."""


class LibraryError(OSError):
    """A library that moves bytes failed: `strerror` is what it said, and `errno` what that comes to."""


class VerificationError(Exception):
    """What was read is not what was written."""

    def __init__(self, where: str, mismatch: Mismatch) -> None:
        super().__init__(f"{where}: the data is not what was written: {mismatch}")
        self.mismatch = mismatch


class SyncFailedError(OSError):
    """What a batch wrote could not be made durable."""


def why_failed(operation: str, where: str, error: OSError) -> str:
    """`operation` (`read`) on the object that is at `where` (`Tier.where`) ended with `error`."""
    if isinstance(error, ExplainedError):
        return f"{operation} of {where} failed: {error.strerror}"
    advice = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "; free space there, or set a smaller capacity_bytes for the file tier"
    elif error.errno == errno.EIO:
        advice = " (the drive or the server failed, or the file was shortened: see the kernel's log)"
    elif error.errno in _CLIENT_GONE:
        advice = " (this node's client of the filesystem has ended, or its server has given it up: mount it again)"
    elif error.errno in (errno.EACCES, errno.EPERM):
        advice = " (by its rights, or because it is full: CephFS refuses new files with these words then)"
    said = f" ({error.strerror})" if isinstance(error, LibraryError) else ""
    return f"{operation} of {where} failed: {os.strerror(error.errno or errno.EIO)}{said}{advice}"
