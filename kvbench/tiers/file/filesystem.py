"""The filesystem that a directory is on: what it is, whether several machines have it, and what else is on it."""

import os
import re
from pathlib import Path
from typing import Final

import psutil

from kvbench.kernel import mounts, told
from kvbench.tiers.target import Reach, Volume

_UNKNOWN: Final = "unknown"

_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))

_LOCAL: Final = frozenset((
    "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "ntfs3", "overlay", "ramfs", "tmpfs", "vfat", "xfs",
    "zfs",
))  # fmt: skip
"""Filesystems that one machine alone has mounted at a time, whatever the device lies on."""

_NETWORK: Final = frozenset((
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.ceph-fuse", "fuse.dfuse", "fuse.glusterfs", "fuse.juicefs",
    "fuse.s3fs", "fuse.sshfs", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3",
    "wekafs",
))  # fmt: skip
"""Filesystems that are there for being mounted by several machines."""


def filesystem_of(path: Path) -> Volume:
    """The filesystem that `path` (a directory or file that exists) is on. Raises OSError where it cannot be reached.

    The kernel itself names the mount of an open file (`mnt_id` in /proc/self/fdinfo): right also for mounts on top of
    each other, bind mounts and btrfs subvolumes, where comparing paths or device numbers goes wrong.
    """
    # The trailing "/." has an automount point mounted rather than opened.
    descriptor = os.open(f"{path}/." if path.is_dir() else path, os.O_PATH)
    try:
        fdinfo = told(Path(f"/proc/self/fdinfo/{descriptor}"))
    finally:
        os.close(descriptor)
    mount = re.search(r"^mnt_id:\s*(\d+)", fdinfo, re.MULTILINE)
    space = psutil.disk_usage(str(path))
    for mount_id, _, kind, mount_point, options, device in mounts(told(Path("/proc/self/mountinfo"))):
        if mount and mount_id == mount[1]:
            return Volume(
                kind, mount_point, options, device, space.total, space.free, kind in _IN_MEMORY, reach_of(kind)
            )
    return Volume(_UNKNOWN, _UNKNOWN, "", _UNKNOWN, space.total, space.free)


def reach_of(kind: str) -> Reach:
    """Who has a filesystem of `kind` mounted."""
    return "local" if kind in _LOCAL else "network" if kind in _NETWORK else "unknown"


def on_one_filesystem(left: Path, right: Path) -> bool:
    """Whether two directories that exist lie on one filesystem: the same device number, or the same device or server in
    two mounts (subvolumes, bind mounts, two mounts of one export). Raises OSError."""
    if left.stat().st_dev == right.stat().st_dev:
        return True
    device = filesystem_of(left).device
    return (device.startswith("/") or ":" in device) and device == filesystem_of(right).device
