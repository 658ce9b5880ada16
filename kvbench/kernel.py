"""What the kernel tells in files of its own: text that may not be there, and the table of mounts."""

import re
from collections.abc import Iterator
from pathlib import Path


def told(path: Path) -> str:
    """The text of a file of the kernel, "" where it has none: every fact is optional on some machine."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def mounts(mountinfo: str) -> Iterator[tuple[str, str, str, str, str, str]]:
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
