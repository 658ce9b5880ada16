"""What a block device already holds, by the marks that filesystems, partition tables and volume managers put at known
places: looked for by libblkid where the machine has it, and by a list of our own in any case. Only reads.

Data without such a mark cannot be told from none.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Final

from kvbench.units import KIB, MIB

_MARKS: Final[Sequence[tuple[int, bytes, str]]] = (
    (0, b"XFSB", "XFS"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"hsqs", "squashfs"),
    (0, b"bluestore block device", "Ceph BlueStore"),
    (0, b"BTRFS", "Btrfs"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (510, b"\x55\xaa", "a partition table, or FAT"),
    (512, b"EFI PART", "a GPT partition table"),
    (4 * KIB, b"EFI PART", "a GPT partition table"),
    *((sector * 512, b"LABELONE", "an LVM volume") for sector in range(4)),
    (1024 + 56, b"\x53\xef", "ext2, ext3, ext4 or Lustre"),
    (1024, b"\x10\x20\xf5\xf2", "F2FS"),
    (1024, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (1024, b"H+", "HFS+"),
    (1024 + 6, b"\x34\x34", "NILFS"),
    (0, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (4 * KIB, b"\xfc\x4e\x2b\xa9", "Linux RAID"),
    (4 * KIB - 10, b"SWAPSPACE2", "swap"),
    (64 * KIB - 10, b"SWAPSPACE2", "swap"),
    (4 * KIB + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache"),
    (64 * KIB, b"\x01\x16\x19\x70", "GFS2"),
    (32 * KIB, b"JFS1", "JFS"),
    (32 * KIB + 1, b"CD001", "ISO 9660"),
    (64 * KIB + 52, b"ReIsEr", "ReiserFS"),
    (64 * KIB + 64, b"_BHRfS_M", "Btrfs"),
    (128 * KIB, b"\x0c\xb1\xba\x00", "ZFS"),
    (128 * KIB, b"\x00\x00\x00\x00\x00\xba\xb1\x0c", "ZFS"),
)
"""Offset from the beginning, bytes that stand there, and what they are of."""

_RAID: Final = (b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc")

LOOKED_AT_BYTES: Final = MIB
"""What is read at the beginning, and at the end."""


def found_on(descriptor: int, nbytes: int) -> str | None:
    """What an open block device of `nbytes` holds, in words; None: nothing that is known. Raises OSError."""
    head = os.pread(descriptor, min(LOOKED_AT_BYTES, nbytes), 0)
    for offset, mark, what in _MARKS:
        if head[offset : offset + len(mark)] == mark:
            return what
    tail_at = max(0, nbytes - LOOKED_AT_BYTES)
    tail = os.pread(descriptor, nbytes - tail_at, tail_at)
    # Where versions 0.90 and 1.0 have their superblock.
    for place in (nbytes // (64 * KIB) * 64 * KIB - 64 * KIB, (nbytes - 8 * KIB) // (4 * KIB) * 4 * KIB):
        if place >= tail_at and tail[place - tail_at : place - tail_at + 4] in _RAID:
            return "Linux RAID"
    if tail[-512:][:8] == b"EFI PART":
        return "the copy of a GPT partition table"
    return _found_by_libblkid(descriptor)


def _found_by_libblkid(descriptor: int) -> str | None:
    """As `blkid -p` says; None also where there is no such library."""
    try:
        library = ctypes.CDLL("libblkid.so.1", use_errno=True)
    except OSError:
        return None
    library.blkid_new_probe.restype = ctypes.c_void_p
    probe = ctypes.c_void_p(library.blkid_new_probe())
    if not probe:
        raise OSError(ctypes.get_errno(), "libblkid cannot look at the device")
    try:
        library.blkid_probe_set_device.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if library.blkid_probe_set_device(probe, descriptor, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "libblkid cannot look at the device")
        library.blkid_probe_enable_partitions(probe, 1)
        outcome = library.blkid_do_safeprobe(probe)
        if outcome == 1:
            return None
        value = ctypes.c_char_p()
        for name in (b"TYPE", b"PTTYPE"):
            if outcome == 0 and library.blkid_probe_lookup_value(probe, name, ctypes.byref(value), None) == 0:
                return (value.value or b"").decode(errors="replace")
        return "something that libblkid cannot name" if outcome in (0, -2) else _refuse(outcome)
    finally:
        library.blkid_free_probe(probe)


def _refuse(outcome: int) -> str:
    raise OSError(ctypes.get_errno(), f"libblkid cannot look at the device ({outcome})")
