"""The communicator: MPI's world where there is one, else one rank without any MPI library.

Nothing travels here but what MPI itself exchanges when it starts. At 10 000 ranks that start is the launcher's and the
MPI library's cost; this module adds none. It does not decide what is sent: see the other modules of this package.

All MPI calls are made by the main thread of a rank (MPI is started with thread level FUNNELED); worker threads never
call it.
"""

import atexit
import gc
import os
import socket
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Protocol, cast

import numpy as np
import numpy.typing as npt

from kvbench.cluster.oversubscription import long_naps, nap_longer, pause_s
from kvbench.cluster.signals import at_once
from kvbench.errors import KvbenchError

Buffer = npt.NDArray[Any]
"""What travels: a contiguous array of a plain number type (structured rows travel as their bytes)."""


class FailedElsewhere(Exception):
    """Another rank reports the failure and gives the job its exit code; this one ends quietly."""


class Pending(Protocol):
    """A transfer under way, which MPI calls a request."""

    def Test(self) -> bool: ...
    def Wait(self) -> bool: ...


class Communicator(Protocol):
    """The methods of `mpi4py.MPI.Intracomm` that kvbench uses. A reduction without an operation is a sum."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def Barrier(self) -> None: ...
    def Bcast(self, buf: Buffer, root: int = 0) -> None: ...
    def Gather(self, sendbuf: Buffer, recvbuf: Buffer | None, root: int = 0) -> None: ...
    def Gatherv(self, sendbuf: Buffer, recvbuf: tuple[Buffer, list[int]] | None, root: int = 0) -> None: ...
    def Allgather(self, sendbuf: Buffer, recvbuf: Buffer) -> None: ...
    def Iallgather(self, sendbuf: Buffer, recvbuf: Buffer) -> Pending: ...
    def Iallgatherv(self, sendbuf: Buffer, recvbuf: tuple[Buffer, list[int]]) -> Pending: ...
    def Iallreduce(self, sendbuf: Buffer, recvbuf: Buffer) -> Pending: ...
    def Ireduce(self, sendbuf: Buffer, recvbuf: Buffer | None, op: Any, root: int = 0) -> Pending: ...
    def Ibarrier(self) -> Pending: ...
    def Ibcast(self, buf: Buffer, root: int = 0) -> Pending: ...
    def Send(self, buf: Buffer, dest: int, tag: int = 0) -> None: ...
    def Isend(self, buf: Buffer, dest: int, tag: int = 0) -> Pending: ...
    def Recv(self, buf: Buffer, source: int, tag: int = 0) -> None: ...
    def Irecv(self, buf: Buffer, source: int, tag: int = 0) -> Pending: ...
    def send(self, obj: Any, dest: int, tag: int = 0) -> None: ...
    def recv(self, *, source: int, tag: int = 0) -> Any: ...
    def Dup(self) -> "Communicator": ...
    def Split(self, color: int = 0, key: int = 0) -> "Communicator": ...
    def Free(self) -> None: ...
    def Abort(self, errorcode: int = 0) -> NoReturn: ...


class _Done:
    """The request of a transfer that is complete when it starts."""

    def Test(self) -> bool:
        return True

    def Wait(self) -> bool:
        return True


class SerialComm:
    """One rank and no MPI library: collectives copy the rank's own contribution."""

    rank: Final = 0
    size: Final = 1

    def Barrier(self) -> None:
        """Wait for nobody."""

    def Bcast(self, buf: Buffer, root: int = 0) -> None:
        """`buf` is what the only rank has."""

    def Gather(self, sendbuf: Buffer, recvbuf: Buffer | None, root: int = 0) -> None:
        """Copy `sendbuf` into the first row of `recvbuf`."""
        if recvbuf is not None:
            recvbuf.reshape(-1)[...] = sendbuf.reshape(-1)

    def Gatherv(self, sendbuf: Buffer, recvbuf: tuple[Buffer, list[int]] | None, root: int = 0) -> None:
        """Copy `sendbuf` into the first buffer of `recvbuf`."""
        if recvbuf is not None:
            recvbuf[0].reshape(-1)[...] = sendbuf.reshape(-1)

    def Allgather(self, sendbuf: Buffer, recvbuf: Buffer) -> None:
        """Copy `sendbuf` into the first row of `recvbuf`."""
        self.Gather(sendbuf, recvbuf)

    def Iallgather(self, sendbuf: Buffer, recvbuf: Buffer) -> Pending:
        """Copy `sendbuf` into the first row of `recvbuf`."""
        self.Gather(sendbuf, recvbuf)
        return _Done()

    def Iallgatherv(self, sendbuf: Buffer, recvbuf: tuple[Buffer, list[int]]) -> Pending:
        """Copy `sendbuf` into the first buffer of `recvbuf`."""
        self.Gatherv(sendbuf, recvbuf)
        return _Done()

    def Iallreduce(self, sendbuf: Buffer, recvbuf: Buffer) -> Pending:
        """The sum over one rank."""
        recvbuf[...] = sendbuf
        return _Done()

    def Ireduce(self, sendbuf: Buffer, recvbuf: Buffer | None, op: Any, root: int = 0) -> Pending:
        """The sum, least or most over one rank."""
        if recvbuf is not None:
            recvbuf[...] = sendbuf
        return _Done()

    def Ibarrier(self) -> Pending:
        """Wait for nobody."""
        return _Done()

    def Ibcast(self, buf: Buffer, root: int = 0) -> Pending:
        """`buf` is what the only rank has."""
        return _Done()

    def Send(self, buf: Buffer, dest: int, tag: int = 0) -> NoReturn:
        """Nobody to send to: RuntimeError."""
        raise RuntimeError("a single rank has nobody to send to or receive from")

    Isend = Send

    def Recv(self, buf: Buffer, source: int, tag: int = 0) -> NoReturn:
        """Nobody to receive from: RuntimeError."""
        raise RuntimeError("a single rank has nobody to send to or receive from")

    Irecv = Recv

    def send(self, obj: Any, dest: int, tag: int = 0) -> NoReturn:
        """Nobody to send to: RuntimeError."""
        raise RuntimeError("a single rank has nobody to send to or receive from")

    def recv(self, *, source: int, tag: int = 0) -> NoReturn:
        """Nobody to receive from: RuntimeError."""
        raise RuntimeError("a single rank has nobody to send to or receive from")

    def Dup(self) -> "SerialComm":
        """Another communicator of one rank."""
        return SerialComm()

    def Split(self, color: int = 0, key: int = 0) -> "SerialComm":
        """The one rank is its own group."""
        return SerialComm()

    def Free(self) -> None:
        """Nothing to free."""

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End the process with `errorcode`."""
        raise SystemExit(errorcode)


@dataclass(frozen=True)
class Launcher:
    """The MPI launcher that started this process, as its environment variables tell."""

    name: str
    size: int | None
    """Ranks it started; None where it does not say."""
    rank: int


_LAUNCHERS: Final = (
    ("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("an MPICH-like launcher", "PMI_SIZE", "PMI_RANK"),
    ("MVAPICH's launcher", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    # Last, as a launcher that srun started shows through to its ranks. Not SLURM_NTASKS, which a batch script has too.
    ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)


def detect_launcher(environ: Mapping[str, str] = os.environ) -> Launcher | None:
    """The launcher that started this process, or None when it was started by hand (or from a batch script)."""
    for name, size, rank in _LAUNCHERS:
        if environ.get(size, "").isdecimal():
            place = environ.get(rank, "")
            return Launcher(name, int(environ[size]), int(place) if place.isdecimal() else 0)
    if environ.get("PMIX_RANK", "").isdecimal():
        return Launcher("a PMIx launcher", None, int(environ["PMIX_RANK"]))
    return None


def launcher_size(environ: Mapping[str, str] = os.environ) -> int | None:
    """Ranks that the launcher of this process started; None without a launcher, or where it does not say."""
    launcher = detect_launcher(environ)
    return None if launcher is None else launcher.size


def get_world() -> Communicator:
    """All ranks of the job: MPI's COMM_WORLD, or one rank where no MPI library loads and no launcher is seen.

    Starts MPI at the first call. Raises KvbenchError (on the launcher's rank 0; FailedElsewhere on the others) when a
    launcher started several ranks but the MPI library that mpi4py loads is missing or sees only one.
    """
    launcher = detect_launcher()
    mpi, problem = _load_mpi()
    if launcher is not None and launcher.size != 1:
        size = 0 if mpi is None else mpi.COMM_WORLD.size
        if size == 0 or (size == 1 and launcher.size is not None):
            if launcher.rank != 0:
                raise FailedElsewhere
            count = "several ranks" if launcher.size is None else f"{launcher.size} ranks"
            seen = f"mpi4py cannot load an MPI library ({problem})" if size == 0 else f"{mpi_version()} sees only one"
            raise KvbenchError(
                f"the launcher and mpi4py's MPI do not match: {launcher.name} started {count} on "
                f"{socket.gethostname()}, but {seen}; use the mpirun that belongs to the MPI library of this Python "
                f"({sys.executable}), or set MPI4PY_LIBMPI to the launcher's libmpi.so"
            )
    return SerialComm() if mpi is None else cast(Communicator, mpi.COMM_WORLD)


def mpi_version() -> str:
    """The MPI library and its standard, such as `Open MPI v5.0.11 (MPI 3.1)`, or why there is none. Starts MPI."""
    mpi, problem = _load_mpi()
    if mpi is None:
        return f"none ({problem})"
    library = " ".join(mpi.Get_library_version().splitlines()[0].split(",")[0].split())
    return f"{library} (MPI {'.'.join(map(str, mpi.Get_version()))})"


def _load_mpi() -> tuple[Any, str]:
    """The module mpi4py.MPI, which starts MPI when first imported, or None with the reason."""
    try:
        import mpi4py  # noqa: PLC0415 - importing it must not be a condition for running as one rank

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc.thread_level = "funneled"
            # Within the interpreter's own handlers, which run before mpi4py ends MPI.
            atexit.register(nap_longer)
            # What a process that ends still holds need not be searched for circles: 75 ms of each rank.
            atexit.register(gc.freeze)
        with warnings.catch_warnings(), long_naps(), at_once():
            # mpi4py's warning about a foreign launcher: get_world says it once, with what to do.
            warnings.filterwarnings("ignore", "suspicious MPI", RuntimeWarning)
            from mpi4py import MPI  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        return None, " ".join(str(error).split())
    return MPI, ""


def split_by_node(comm: Communicator) -> Communicator:
    """The ranks of `comm` that share this rank's memory, in the order of their ranks."""
    if isinstance(comm, SerialComm):
        return comm.Split()
    mpi, _ = _load_mpi()
    return cast(Communicator, cast(Any, comm).Split_type(mpi.COMM_TYPE_SHARED, key=comm.rank))


def split_some(comm: Communicator, member: bool) -> Communicator | None:
    """A communicator of the ranks that are a `member`, in the order of their ranks; None on the others."""
    if isinstance(comm, SerialComm):
        return comm.Split() if member else None
    mpi, _ = _load_mpi()
    part = comm.Split(0 if member else mpi.UNDEFINED, comm.rank)
    return part if member else None


def reduce_to_root(comm: Communicator, values: Buffer, how: Literal["sum", "min", "max"] = "sum") -> Buffer | None:
    """The element-wise sum, least or most of all ranks' `values` (contiguous, one shape) on rank 0; None elsewhere.

    Collective. Travels: MPI's reduction, a tree: each rank sends its values once, and none holds more than two copies.
    """
    mpi = None if isinstance(comm, SerialComm) else _load_mpi()[0]
    result = np.empty_like(values) if comm.rank == 0 else None
    wait_quietly(comm.Ireduce(values, result, None if mpi is None else getattr(mpi, how.upper())), 1e-4)
    return result


LONGEST_PAUSE_S: Final = pause_s(1e-3)


def wait_quietly(request: Pending, longest_pause_s: float = LONGEST_PAUSE_S) -> None:
    """Wait for `request` without keeping a CPU busy: MPI's own waiting spins, beside the ranks that still work.

    Pauses grow to `longest_pause_s`, which is the delay it can add: a millisecond, or more where ranks are many and
    processors few. Python's signal handlers run in the pauses.
    """
    pause = 2e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, longest_pause_s)


def quiet_barrier(comm: Communicator) -> None:
    """A barrier whose early ranks sleep; for phases that one rank measures while the others wait.

    Travels: MPI's empty messages, about log2(ranks) rounds (14 at 10 000 ranks), each delayed by a pause at most.
    """
    wait_quietly(comm.Ibarrier())


def quiet_bcast(comm: Communicator, buf: Buffer) -> None:
    """Rank 0's `buf` to every rank, as MPI's broadcast does, while ranks that wait for it sleep."""
    wait_quietly(comm.Ibcast(buf))


def flatten(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of the contiguous 1-D array `rows`, without a copy."""
    return rows.view(np.uint8).reshape(-1) if rows.size else np.empty(0, np.uint8)
