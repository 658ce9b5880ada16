"""Many ranks on few processors: how crowded this node is, and waiting that leaves the processors to those who work.

Nothing travels here. Whoever waits for other ranks looks again and again, with pauses. One rank for each processor can
do that a thousand times a second. Where there are a hundred for each, the waiting ranks alone would fill the
processors, and keep them from the ranks that they wait for; so they pause longer, in proportion, up to 20 ms.

MPI waits in the same way while it starts and ends: Open MPI looks ten thousand times a second, which no setting
changes. The kernel can be told that a thread's pauses may be longer than asked (prctl PR_SET_TIMERSLACK): `long_naps`
does so, for these moments alone and on crowded nodes alone. Measured (256 ranks starting MPI on 2 processors): 168 s of
processor time without, 87 s with it.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

LONGEST_PAUSE_S: Final = 0.02
_NAP_NS: Final = 20_000_000
_PR_SET_TIMERSLACK: Final = 29  # include/uapi/linux/prctl.h
_LOCAL_SIZES: Final = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE")
"""Variables in which Open MPI, Hydra and MVAPICH say how many ranks they started on this node."""


def ranks_per_processor(environ: Mapping[str, str] = os.environ) -> float:
    """Ranks on this node for each processor that this one may use; 1 where there are no more, or nobody says."""
    sizes = [environ[name] for name in _LOCAL_SIZES if environ.get(name, "").isdecimal()]
    return max(1.0, int(sizes[0]) / len(os.sched_getaffinity(0))) if sizes else 1.0


CROWDING: Final = ranks_per_processor()


def pause_s(alone_s: float, longest_s: float = LONGEST_PAUSE_S) -> float:
    """How long to pause between two looks, where a rank with a processor to itself would pause `alone_s`; at most
    `longest_s`."""
    return max(alone_s, min(alone_s * CROWDING, longest_s))


@contextmanager
def long_naps() -> Iterator[None]:
    """While in this context on a crowded node, this thread (and those that it starts) may sleep longer than it asks."""
    nap_longer()
    try:
        yield
    finally:
        if CROWDING > 1:
            _set_slack(0)


def nap_longer() -> None:
    """As `long_naps`, from now on: for the end of a process."""
    if CROWDING > 1:
        _set_slack(_NAP_NS)


def _set_slack(slack_ns: int) -> None:
    """How much later than asked this thread may wake, in ns; 0 is the kernel's own choice again (50 us)."""
    # What comes of a refusal is what would be without it.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(slack_ns), 0, 0, 0)
