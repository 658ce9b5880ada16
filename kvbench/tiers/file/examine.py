"""A close look at a directory under test: its filesystem, its space, every read and write path, and its page cache.

It changes nothing but a directory of its own in it, which it removes.
"""

from collections.abc import Iterator
from pathlib import Path

from kvbench.config.run_config import Calibration
from kvbench.errors import KvbenchError
from kvbench.records.caching_clients import CACHING_CLIENTS
from kvbench.tiers.file.filesystem import filesystem_of
from kvbench.tiers.file.probe import direct_alignment, probe_paths, resident_after_drop
from kvbench.tiers.file.run_directory import check_directory
from kvbench.tiers.target import Finding, Volume
from kvbench.units import GIB, format_bytes


def examine(directory: Path) -> Iterator[Finding]:
    """Whether a directory can hold a run, and what would spoil its figures."""
    try:
        check_directory(directory)
        filesystem = filesystem_of(directory)
        paths, alignment = probe_paths(directory), direct_alignment(directory)
        resident_pct = resident_after_drop(directory)
    except KvbenchError as error:
        yield Finding("directory", "fail", str(error))
        return
    except OSError as error:
        yield Finding("directory", "fail", f"{directory} cannot be used: {error.strerror or error}")
        return
    yield Finding("directory", "ok", str(directory.resolve()))
    yield from judge(filesystem)
    for name, problem in paths.items():
        if problem is None:
            yield Finding(name, "ok", "works")
        else:
            # Every configuration that does not say otherwise uses the buffered paths.
            yield Finding(name, "fail" if name.endswith("buffered") else "warn", f"does not work here: {problem}")
    if alignment is None:
        yield Finding("O_DIRECT alignment", "warn", "no direct I/O here with 512 or 4096 bytes")
    else:
        yield Finding("O_DIRECT alignment", "ok", f"{alignment} bytes")
    if resident_pct == 0 and filesystem.kind in CACHING_CLIENTS:
        text = "a file can be dropped from it, but not from the memory of this filesystem's client: read direct"
        yield Finding("page cache", "warn", text)
    elif resident_pct == 0:
        yield Finding("page cache", "ok", "a file can be dropped from it, so that reads are cold")
    else:
        text = f"{resident_pct} % of a file stays in it after it was dropped: reads will not be cold"
        yield Finding("page cache", "warn", text)


def judge(filesystem: Volume) -> Iterator[Finding]:
    """What its kind and its free space mean for a run."""
    text = f"{filesystem.kind} at {filesystem.mount_point} from {filesystem.device} ({filesystem.options})"
    if filesystem.in_memory:
        yield Finding("filesystem", "warn", f"{text}; it is memory: there is no device to measure")
    elif filesystem.kind == "overlay":
        yield Finding("filesystem", "warn", f"{text}; it is a container's own layer: mount the storage to be measured")
    else:
        yield Finding("filesystem", "ok", text)
    free = f"{format_bytes(filesystem.free_bytes)} of {format_bytes(filesystem.total_bytes)} free"
    least = Calibration().bytes
    if not filesystem.tells_space:
        yield Finding("free space", "warn", "not told by the filesystem: set capacity_bytes of the file tier")
    elif filesystem.free_bytes < least:
        yield Finding("free space", "fail", f"{free}; calibration alone needs {format_bytes(least)} per rank")
    elif filesystem.free_bytes < GIB:
        yield Finding("free space", "warn", f"{free}; most configurations need more")
    else:
        yield Finding("free space", "ok", free)
