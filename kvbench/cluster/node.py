"""Facts of this node that a measurement depends on: processors, caches, memory, clock and filesystems.

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


@dataclass(frozen=True, slots=True)
class Filesystem:
    """The filesystem that a path is on."""

    kind: str
    """As in the mount table: `ext4`, `tmpfs`, `nfs4`, `fuse.glusterfs`."""
    mount_point: str
    options: str
    """Options of the mount and then of the filesystem, comma-separated."""
    device: str
    """What is mounted: a block device, `server:/export`, or the kind again."""
    total_bytes: int
    free_bytes: int
    """What a user without privileges can still write."""

    @property
    def tells_space(self) -> bool:
        """Whether it says how much it can hold; ramfs and some filesystems in user space say 0 bytes."""
        return self.total_bytes > 0

    @property
    def in_memory(self) -> bool:
        """Whether its files are the node's memory and no device takes part."""
        return self.kind in {"tmpfs", "ramfs"}


NO_FILESYSTEM: Final = Filesystem("none", "none", "", "none", 0, 0)
"""Stands for that of a run that keeps no files."""


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
        clock_source=_read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource") or UNKNOWN,
        schedstat=schedstat_works(root),
        governors=governors(root),
    )


def network_links(root: Path = Path("/")) -> list[str]:
    """The network interfaces with hardware of their own that are up, and what InfiniBand ports carry, for people:
    `eth0 25000 Mb/s, MTU 9000`, `mlx5_0 port 1 200 Gb/sec (4X HDR)`."""
    links = []
    for place in sorted((root / "sys/class/net").glob("*/device")):
        interface = place.parent
        if _read(interface / "operstate") == "down":
            continue
        speed = _read(interface / "speed")
        rate = f"{speed} Mb/s" if speed.isdecimal() else "of unknown speed"
        links.append(f"{interface.name} {rate}, MTU {_read(interface / 'mtu') or UNKNOWN}")
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        if rate := _read(port / "rate"):
            links.append(f"{port.parent.parent.name} port {port.name} {rate}")
    return links


def peak_resident_bytes() -> int:
    """The largest resident memory that this process has had.

    Not ru_maxrss where it can be avoided: that begins with the peak of the process which started this one.
    """
    found = re.search(r"^VmHWM:\s*(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def filesystem_of(path: Path) -> Filesystem:
    """The filesystem that `path` (a directory or file that exists) is on. Raises OSError where it cannot be reached.

    The kernel itself names the mount of an open file (`mnt_id` in /proc/self/fdinfo): right also for mounts on top of
    each other, bind mounts and btrfs subvolumes, where comparing paths or device numbers goes wrong.
    """
    # The trailing "/." has an automount point mounted rather than opened.
    descriptor = os.open(f"{path}/." if path.is_dir() else path, os.O_PATH)
    try:
        fdinfo = _read(Path(f"/proc/self/fdinfo/{descriptor}"))
    finally:
        os.close(descriptor)
    mount = re.search(r"^mnt_id:\s*(\d+)", fdinfo, re.MULTILINE)
    space = psutil.disk_usage(str(path))
    for mount_id, _, kind, mount_point, options, device in _mounts(_read(Path("/proc/self/mountinfo"))):
        if mount and mount_id == mount[1]:
            return Filesystem(kind, mount_point, options, device, space.total, space.free)
    return Filesystem(UNKNOWN, UNKNOWN, "", UNKNOWN, space.total, space.free)


def same_filesystem(left: Path, right: Path, left_facts: Filesystem, right_facts: Filesystem) -> bool:
    """Whether two directories of this node lie on one filesystem: the same device number, or the same device or server
    in two mounts (subvolumes, bind mounts, two mounts of one export)."""
    if os.stat(left).st_dev == os.stat(right).st_dev:
        return True
    named = left_facts.device.startswith("/") or ":" in left_facts.device
    return named and left_facts.device == right_facts.device


def memory_limits(root: Path = Path("/")) -> tuple[int | None, int | None]:
    """(limit, available) in bytes of the memory control groups of this process, versions 1 and 2, with their parents;
    None where nothing is limited. Page cache counts as available."""
    limits, available = [], []
    for folder, limit_name, usage_name, prefix in _memory_groups(root):
        limit_text, usage_text = _read(folder / limit_name), _read(folder / usage_name)
        # Version 1 says "no limit" as the largest multiple of a page in 63 bits.
        if not limit_text.isdecimal() or int(limit_text) >= 2**60 or not usage_text.isdecimal():
            continue
        stat = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
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
            level, size = _read(index / "level"), _read(index / "size")
            if level.isdecimal() and size and _read(index / "type") != "Instruction":
                levels[int(level)] = (_read(index / "shared_cpu_list"), parse_bytes(size.replace("K", "KiB")))
        if levels:
            shared, nbytes = levels[max(levels)]
            sizes[max(levels), shared] = nbytes
    return sum(sizes.values())


def huge_pages(root: Path = Path("/")) -> str:
    """The setting of transparent huge pages."""
    chosen = re.search(r"\[(\w+)\]", _read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    return chosen[1] if chosen else UNKNOWN


def schedstat_works(root: Path = Path("/")) -> bool:
    """Whether schedstat counts: where accounting is off the file is missing or holds zeros, though we have run."""
    fields = _read(root / "proc/self/schedstat").split()
    return len(fields) == 3 and fields[2] != "0"


def governors(root: Path = Path("/")) -> tuple[str, ...]:
    """The frequency governors that the processors use, each once."""
    found = {_read(path) for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return tuple(sorted(found - {""}))


def _cpu_model(root: Path) -> str:
    model = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    return model[1].strip() if model else os.uname().machine


def _memory_groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folders of the memory control groups of this process, innermost first, with the names of their files."""
    groups = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        groups["cgroup2" if controllers == "" else controllers] = path
    for _, mount_root, kind, mount_point, options, _ in _mounts(_read(root / "proc/self/mountinfo")):
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


def _mounts(mountinfo: str) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(id, root, kind, mount point, options, device) of each mount (proc_pid_mountinfo(5))."""
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        number, _, _, mount_root, mount_point, options, *_ = mount.split(" ")
        kind, device, super_options = filesystem.split(" ", 2)
        # dict.fromkeys: options of both kinds, each once, in order.
        every = ",".join(dict.fromkeys([*options.split(","), *super_options.split(",")]))
        yield number, _unescape(mount_root), kind, _unescape(mount_point), every, _unescape(device)


def _unescape(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), text)


def _read(path: Path) -> str:
    """The text of a file of the kernel, "" where it has none: every fact here is optional on some machine."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
