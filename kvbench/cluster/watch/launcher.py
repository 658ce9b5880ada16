"""The process that started this rank, its parent: mpirun, or its daemon on this node. Nothing travels."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

_OPEN_MPI: Final = ("prterun", "prted", "mpirun", "mpiexec", "orterun", "orted")


def launcher_descriptor(parent: int) -> int | None:
    """A descriptor that becomes readable when process `parent`, this one's parent, ends; None where there is none
    (Linux before 5.3, or the parent has ended already)."""
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:
        return None
    if os.getppid() != parent:
        os.close(descriptor)
        return None
    return descriptor


def end_launcher(parent: int) -> None:
    """Kill process `parent`, this one's parent, where it is Open MPI's.

    Open MPI, told of a rank's end while a node does not answer, waits for that node's daemon until TCP gives up, which
    takes a quarter of an hour. It ends at once when it loses another of its processes before: this one.
    """
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip()
        if name in _OPEN_MPI and os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
