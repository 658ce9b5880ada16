"""Facts of this node that a measurement depends on: processors, caches, memory and clock.

It only reads what the kernel tells, and judges nothing (`doctor` does). `root` is the root of the file tree that the
facts are read from, so that they can be read from another machine's.
"""

import os
import re
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from kvbench.kernel import mounts, told
from kvbench.units import parse_bytes, storable

UNKNOWN: Final = "unknown"
"""A fact that the kernel does not tell."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine that ranks run on."""

    host: str
    cpus: int
    """Logical processors that are online."""
    cpu_model: str
    memory_bytes: int
    """Installed, or what the control group of this process may use if that is less."""
    memory_available_bytes: int
    """What can be used without swapping, page cache given up, within the control group's limit."""
    llc_bytes: int
    """Sum of all last-level caches; 0 where the kernel does not tell."""
    huge_pages: str
    """Transparent huge pages: `always`, `madvise`, `never` or `unknown`."""
    kernel: str
    clock_source: str
    schedstat: bool
    """Whether the kernel accounts the time that a thread waits for a processor."""
    governors: tuple[str, ...]
    """Frequency governors in use, () where the node does not show them (virtual machines)."""


def describe_node(root: Path = Path("/")) -> Node:
    """The facts of this node, as the calling process sees them."""
    memory = psutil.virtual_memory()
    limit, available = memory_limits(root)
    return Node(
        host=storable(socket.gethostname()),
        cpus=psutil.cpu_count() or 1,
        cpu_model=_cpu_model(root),
        memory_bytes=min(memory.total, limit) if limit is not None else memory.total,
        memory_available_bytes=min(memory.available, available) if available is not None else memory.available,
        llc_bytes=llc_bytes(root),
        huge_pages=huge_pages(root),
        kernel=os.uname().release,
        clock_source=told(root / "sys/devices/system/clocksource/clocksource0/current_clocksource") or UNKNOWN,
        schedstat=schedstat_works(root),
        governors=governors(root),
    )


def network_links(root: Path = Path("/")) -> list[str]:
    """The network interfaces with hardware of their own that are up, and what InfiniBand ports carry, for people:
    `eth0 25000 Mb/s, MTU 9000`, `mlx5_0 port 1 200 Gb/sec (4X HDR)`."""
    links = []
    for place in sorted((root / "sys/class/net").glob("*/device")):
        interface = place.parent
        if told(interface / "operstate") == "down":
            continue
        speed = told(interface / "speed")
        rate = f"{speed} Mb/s" if speed.isdecimal() else "of unknown speed"
        links.append(f"{interface.name} {rate}, MTU {told(interface / 'mtu') or UNKNOWN}")
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        if rate := told(port / "rate"):
            links.append(f"{port.parent.parent.name} port {port.name} {rate}")
    return links


def peak_resident_bytes() -> int:
    """The largest resident memory that this process has had.

    Not ru_maxrss where it can be avoided: that begins with the peak of the process which started this one.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB", told(Path("/proc/self/status")), re.MULTILINE)
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def memory_limits(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """(limit, available) in bytes of the memory control groups of this process, versions 1 and 2, with their parents;
    None where nothing is limited. Page cache counts as available."""
    limits, available = [], []
    for folder, limit_name, usage_name, prefix in _memory_groups(root):
        limit_text, usage_text = told(folder / limit_name), told(folder / usage_name)
        # Version 1 says "no limit" as the largest multiple of a page in 63 bits.
        if not limit_text.isdecimal() or int(limit_text) >= 2**60 or not usage_text.isdecimal():
            continue
        stat = dict(line.split(maxsplit=1) for line in told(folder / "memory.stat").splitlines() if " " in line)
        page_cache = sum(int(stat.get(f"{prefix}{name}", 0)) for name in ("inactive_file", "active_file"))
        limits.append(int(limit_text))
        available.append(max(0, int(limit_text) - int(usage_text) + page_cache))
    return (min(limits), min(available)) if limits else (None, None)


def llc_bytes(root: Path = Path("/")) -> int:
    """Bytes of all last-level caches of the node together, each counted once however many processors share it."""
    sizes: dict[tuple[int, str], int] = {}
    for cpu in sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache")):
        levels = {}
        for index in cpu.glob("index*"):
            level, size = told(index / "level"), told(index / "size")
            if level.isdecimal() and size and told(index / "type") != "Instruction":
                levels[int(level)] = (told(index / "shared_cpu_list"), parse_bytes(size.replace("K", "KiB")))
        if levels:
            shared, nbytes = levels[max(levels)]
            sizes[max(levels), shared] = nbytes
    return sum(sizes.values())


def huge_pages(root: Path = Path("/")) -> str:
    """The setting of transparent huge pages."""
    chosen = re.search(r"\[(\w+)\]", told(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return chosen[1] if chosen else UNKNOWN


def schedstat_works(root: Path = Path("/")) -> bool:
    """Whether schedstat counts: where accounting is off the file is missing or holds zeros, though we have run."""
    fields = told(root / "proc/self/schedstat").split()
    return len(fields) == 3 and fields[2] != "0"


def governors(root: Path = Path("/")) -> tuple[str, ...]:
    """The frequency governors that the processors use, each once."""
    found = {told(path) for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return tuple(sorted(found - {""}))


def _cpu_model(root: Path) -> str:
    model = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", told(root / "proc/cpuinfo"), re.MULTILINE)
    return model[1].strip() if model else os.uname().machine


def _memory_groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the memory control groups of this process, innermost first, with the names of their files."""
    groups = {}
    for line in told(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        groups["cgroup2" if controllers == "" else controllers] = path
    for _, mount_root, kind, mount_point, options, _ in mounts(told(root / "proc/self/mountinfo")):
        if kind == "cgroup2" and "cgroup2" in groups:
            path, names = groups["cgroup2"], ("memory.max", "memory.current", "")
        elif kind == "cgroup" and "memory" in options.split(","):
            memory = [path for controllers, path in groups.items() if "memory" in controllers.split(",")]
            if not memory:
                continue
            path, names = memory[0], ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        # In a container the mount shows only the container's part of the tree, whose root `mount_root` names.
        inner = Path(path)
        shown = inner.is_relative_to(mount_root) and ".." not in inner.parts
        inside = inner.relative_to(mount_root) if shown else Path()
        top = root / mount_point.lstrip("/")
        for folder in (inside, *inside.parents):
            yield top / folder, *names
