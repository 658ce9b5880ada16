"""What NVMe drives under test say of themselves around a load: bytes that hosts wrote, and that went to the flash.

Read by nvme-cli (`nvme get-log`), which needs root; by one rank of each node, before the load and after it. A drive
that says nothing, or no program to ask it with, leaves no row. Hosts' bytes are Data Units Written of the SMART log
(NVM Express Base Specification, log 02h: thousands of 512 bytes), those of the flash Physical Media Units Written of
the extended one (OCP Datacenter NVMe SSD Specification, log C0h: bytes), which drives for desktops do not have.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.tables import DRIVE_DTYPE

_BYTES: Final = 512
"""Of either log."""
_SMART: Final = 0x02
_EXTENDED: Final = 0xC0
_UNIT_BYTES: Final = 512_000
_EXTENDED_MARK: Final = bytes.fromhex("c5af1028eabff2a49c4f6f7cc914d5af")
"""The last 16 bytes of the extended log, by which it is told from what makers have under the same number."""
_PATIENCE_S: Final = 10
_NAMESPACE: Final = re.compile(r"nvme\d+n\d+")
_BLOCK: Final = Path("/sys/class/block")


@dataclass(frozen=True, slots=True)
class _Reading:
    t_ns: int
    host_bytes: int
    media_bytes: int | None
    used_pct: int


class DriveCounters:
    """From here to `rows`; `disks` are names of block devices (`nvme0n1p1`, `md0`), whose drives are looked up."""

    def __init__(self, node: int, disks: Iterable[str]) -> None:
        self._node = node
        self._before = {drive: reading for drive in sorted(drives_of(disks)) if (reading := _read(drive)) is not None}

    def rows(self) -> npt.NDArray[np.void]:
        """What each drive counted since then (DRIVE_DTYPE)."""
        rows = []
        for drive, before in self._before.items():
            after = _read(drive)
            if after is not None:
                known = before.media_bytes is not None and after.media_bytes is not None
                media = (after.media_bytes or 0) - (before.media_bytes or 0) if known else -1
                hosts = after.host_bytes - before.host_bytes
                rows.append((self._node, drive, before.t_ns, after.t_ns, hosts, media, after.used_pct))
        return np.array(rows, DRIVE_DTYPE)


def drives_of(disks: Iterable[str]) -> set[str]:
    """The NVMe namespaces (`nvme0n1`) that block devices lie on: themselves, of partitions the whole, of what is made
    of several devices (LVM, RAID, encryption) all of those."""
    return {drive for disk in disks for drive in _below(disk)}


def _below(disk: str) -> Iterator[str]:
    place = _BLOCK / disk
    if (place / "partition").exists():
        disk = place.resolve().parent.name
    if _NAMESPACE.fullmatch(disk):
        yield disk
        return
    for part in (_BLOCK / disk / "slaves").glob("*"):
        yield from _below(part.name)


def _read(drive: str) -> _Reading | None:
    smart = _log(drive, _SMART)
    if smart is None:
        return None
    extended = _log(drive, _EXTENDED)
    media = None
    if extended is not None and extended.endswith(_EXTENDED_MARK):
        media = int.from_bytes(extended[:16], "little")
    return _Reading(timed_io.now_ns(), int.from_bytes(smart[48:64], "little") * _UNIT_BYTES, media, smart[5])


def _log(drive: str, number: int) -> bytes | None:
    """The first 512 bytes of a log; None where it is not to be had."""
    command = ["nvme", "get-log", f"/dev/{drive}", f"--log-id={number}", f"--log-len={_BYTES}", "--raw-binary"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 and len(answer.stdout) == _BYTES else None
