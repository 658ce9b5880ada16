"""A block device under test, of which one rank has all for the time of a run: objects lie in slots on the device.

It is written to only with a consent that names it, and only while nobody else has it: it is opened exclusively, which
the kernel refuses while it or a part of it is mounted, swapped to, or held by RAID, LVM, another rank or another run,
and while we have it, it refuses those. A device that holds anything known (`signatures`) is refused. The first and the
last MiB are left as they are, but for one sector with our marker, which is emptied at the end.
"""

import errno
import json
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.records.schema import PATHS
from kvbench.tiers.file.engines import overlapping_of
from kvbench.tiers.file.signatures import LOOKED_AT_BYTES, found_on
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.target import Area, Target, TierSettings, Volume
from kvbench.units import SECTOR_BYTES

_EDGE_BYTES: Final = LOOKED_AT_BYTES
"""At the beginning and at the end, where no object lies."""


def is_block_device(address: str) -> bool:
    """Whether there is one."""
    try:
        return stat.S_ISBLK(os.stat(address).st_mode)
    except OSError:
        return False


class DeviceTarget(Target):
    """One block device; `address` is its path. Each node has devices of its own."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._consented = False

    def consent(self, devices: Collection[str]) -> None:
        self._consented = self.address in devices
        if not self._consented:
            raise KvbenchError(
                f"{self.address} is a block device, and what is on it will be overwritten: say so with "
                f"--consent-device {self.address}"
            )

    def check(self) -> None:
        if not is_block_device(self.address):
            raise KvbenchError(f"{self.address} is no block device; give one, or a directory, with --dir")
        with self._claimed(os.O_RDONLY):
            pass

    @contextmanager
    def _claimed(self, flags: int) -> Iterator[int]:
        descriptor = claim(self.address, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def describe(self) -> Volume:
        descriptor = os.open(self.address, os.O_RDONLY | os.O_CLOEXEC)
        try:
            total = os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
        free = max(0, total - 2 * _EDGE_BYTES)
        return Volume("block device", self.address, "", self.address, total, free, reach="local")

    def area(self, run_id: str, rank: int) -> "DeviceArea":
        return DeviceArea(self.address, run_id, self._consented)

    def is_there(self) -> bool:
        return is_block_device(self.address)

    def is_same(self, other: Target) -> bool:
        return os.stat(self.address).st_rdev == os.stat(other.address).st_rdev

    def lowest_sign(self, run_id: str, numbers: Collection[int]) -> int | None:
        """None: what other nodes call so is another device."""
        return None


class DeviceArea(Area):
    """All of a device but its edges, for one rank of run `run_id`."""

    def __init__(self, address: str, run_id: str, consented: bool) -> None:
        super().__init__(address, address)
        self._run_id = run_id
        self._consented = consented
        self._held: list[int] = []
        """Descriptor of the device that is held exclusively, if it is."""

    def create(self) -> None:
        """Take the device, and mark it. Raises KvbenchError naming what is wrong."""
        if not self._consented:
            raise KvbenchError(f"{self.address} is a block device that nobody consented to overwrite")
        # Looked at again, as nobody else can have it from here on.
        descriptor = claim(self.address, os.O_RDWR)
        try:
            _put_marker(descriptor, self._run_id)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise KvbenchError(f"{self.address} cannot be written: {error.strerror}") from error
            raise
        self._held.append(descriptor)

    def open_tier(self, settings: TierSettings) -> SlabTier:
        io, path = settings.io, Path(self.address)
        room = max(0, os.lseek(self._held[0], 0, os.SEEK_END) - 2 * _EDGE_BYTES)
        return SlabTier(
            path,
            PATHS[io.read_path],
            PATHS[io.write_path],
            io.io_bytes,
            io.drop_page_cache,
            min(settings.capacity_bytes, room),
            io.sync,
            first_byte=_EDGE_BYTES,
            overlapping=overlapping_of(io),
        )

    def remove(self) -> Sequence[str]:
        """Empty the sector of the marker, if it is that of this run, and give the device back."""
        while self._held:
            descriptor = self._held[-1]
            try:
                if _marked_by(descriptor) == self._run_id:
                    os.pwrite(descriptor, bytes(SECTOR_BYTES), 0)
                    os.fsync(descriptor)
            finally:
                os.close(self._held.pop())
        return ()


def claim(address: str, flags: int) -> int:
    """The device, open with `flags` and for us alone. Raises KvbenchError where it is in use, or holds anything."""
    try:
        descriptor = os.open(address, flags | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        why = error.strerror
        if error.errno == errno.EBUSY:
            why = (
                "it, or a part of it, is mounted, swapped to, or held by RAID, LVM, another run or another rank (each "
                "rank needs a device of its own)"
            )
        raise KvbenchError(f"{address} cannot be used: {why}") from error
    try:
        nbytes = os.lseek(descriptor, 0, os.SEEK_END)
        holds = None if _marked_by(descriptor) else found_on(descriptor, nbytes)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise KvbenchError(f"{address} cannot be looked at: {error.strerror}") from error
        raise
    if holds is not None:
        os.close(descriptor)
        raise KvbenchError(
            f"{address} holds {holds}: kvbench writes to no device that holds anything known. If nobody needs it, "
            f"remove it yourself (`wipefs --all {address}`)"
        )
    return descriptor


def _put_marker(descriptor: int, run_id: str) -> None:
    content = json.dumps({"program": "kvbench", "run_id": run_id}).encode()
    os.pwrite(descriptor, content.ljust(SECTOR_BYTES, b"\0"), 0)
    os.fsync(descriptor)


def _marked_by(descriptor: int) -> str:
    """The run whose marker the device carries; "" for none. A run that was killed leaves it there."""
    try:
        found = json.loads(os.pread(descriptor, SECTOR_BYTES, 0).rstrip(b"\0"))
    except (ValueError, RecursionError):
        return ""
    return str(found.get("run_id", "")) if isinstance(found, dict) and found.get("program") == "kvbench" else ""
