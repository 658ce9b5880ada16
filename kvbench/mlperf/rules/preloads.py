"""Libraries that a command puts before the C library (LD_PRELOAD), and what those that are known take away."""

import re
import shlex
from pathlib import PurePosixPath
from typing import Final

from kvbench.mlperf.tree.commands import read_command
from kvbench.mlperf.tree.parts import Run

NO_SYNC: Final = re.compile(r"(?:lib)?(?:eatmydata|nosync|nofsync)", re.ASCII)
NO_DROP: Final = re.compile(r"(?:lib)?(?:nofadvise|keepcache)", re.ASCII)
_VOIDS: Final = {NO_SYNC: "fsync does nothing", NO_DROP: "posix_fadvise does not drop the page cache"}
ALLOCATOR: Final = re.compile(r"(?:lib)?(?:tcmalloc|jemalloc|mimalloc|hoard|tbbmalloc)", re.ASCII)


def preloads(run: Run) -> dict[str, str]:
    """The libraries that commands or launcher parameters of another tool preload, each with where it is said."""
    found: dict[str, str] = {}
    for library, commands in run.metadata.preloaded().items():
        every = len(commands) == len(run.metadata.commands)
        found[library] = f"in {'each of ' if every else ''}{len(commands)} commands"
    for library in read_command(shlex.join(run.metadata.mpi_params)).preloaded:
        found.setdefault(library, "in args.mpi_params")
    return found


def voids(library: str) -> str | None:
    """What the library takes away of the rules' I/O; None for one that is not known to take anything."""
    name = PurePosixPath(library).name
    return next((effect for pattern, effect in _VOIDS.items() if pattern.match(name)), None)


def is_allocator(library: str) -> bool:
    """Whether it is known to be another allocator of memory, and nothing else."""
    return bool(ALLOCATOR.match(PurePosixPath(library).name))
