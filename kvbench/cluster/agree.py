"""Agreement: either a phase worked on every rank, or every rank leaves it together and rank 0 says what went wrong.

What travels: after each phase one sum of one integer over all ranks. Only when something failed, each rank passes one
bounded report (at most 16 different problems) up a binary tree to rank 0. At 10 000 ranks: the sum takes about
14 rounds, well under a millisecond on a cluster's network plus the waiting ranks' pause of a millisecond; the reports
take 14 rounds and rank 0 receives 14 of them, a few tens of KB each at most.

A phase's function must be local, or must itself make sure that all ranks leave its communication together
(`gather_rows` does). A failure anywhere else ends the job with `abort`.
"""

import errno
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Final, NoReturn, TypeVar

import numpy as np

from kvbench.cluster.comm import Communicator, FailedElsewhere, wait_quietly
from kvbench.cluster.problems import MAX_TEXT, Report
from kvbench.cluster.signals import Interrupt, Interrupted
from kvbench.errors import KvbenchError
from kvbench.streams import wait_until_passed_on

__all__ = ["Agreement", "FailedElsewhere", "RanksFailed", "RunInterrupted", "abort", "collect", "together"]

T = TypeVar("T")
_TAG: Final = 7101
_ASKED: Final = 1 << 32
"""Of the sum over all ranks: below it those that failed, from it on those that were asked to end."""


class RanksFailed(KvbenchError):
    """What the ranks reported, as one message; raised on rank 0."""


class RunInterrupted(RanksFailed):
    """The ranks were asked to end, and have agreed on it."""


class Agreement:
    """Runs phases that end for all ranks of `comm` in the same way."""

    def __init__(self, comm: Communicator, interrupt: Interrupt | None = None) -> None:
        self._comm = comm
        self._host = socket.gethostname()
        self.interrupt = Interrupt() if interrupt is None else interrupt
        """Whether this rank is asked to end; any that is ends the phase for all."""

    def run(self, phase: str, function: Callable[[], T], computes: bool = False) -> T:
        """Call `function` and return its result once it worked on every rank. Collective.

        `phase` names it in the message ("check", "gather"). When it raised on any rank, rank 0 raises RanksFailed (a
        KvbenchError) with everybody's problems, and every other rank raises FailedElsewhere. So it is where a rank was
        asked to end while nothing has to be kept. Where the function only computes, and makes nothing that would be
        left behind, a signal ends it where it is.
        """
        return self._run(phase, function, computes)

    def on_first(self, phase: str, function: Callable[[], T], computes: bool = False) -> T | None:
        """As `run`, where rank 0 alone works, for all: what it cannot do is a problem of the job, such as a wrong
        configuration, and its message names no rank. Returns its result on rank 0, None elsewhere. Collective."""
        return self._run(phase, function if self._comm.rank == 0 else lambda: None, computes, for_all=True)

    def _run(self, phase: str, function: Callable[[], T], computes: bool, for_all: bool = False) -> T:
        result, error = None, None
        self.interrupt.phase = phase
        try:
            with self.interrupt.raising() if computes else nullcontext():
                result = function()
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - whatever it is, the other ranks must hear of it
            error = raised
        if isinstance(error, OSError) and error.errno == errno.ECANCELED and self.interrupt.stops:
            error = Interrupted()
        asked = self.interrupt.stops or isinstance(error, Interrupted)
        ended = np.zeros(1, np.int64)
        # It has a name until the end: a request does not keep alive what it sends.
        mine = np.array([(error is not None) + asked * _ASKED], np.int64)
        wait_quietly(self._comm.Iallreduce(mine, ended))
        if not ended[0]:
            return result  # type: ignore[return-value]  # T, as nothing was raised
        report = collect(self._comm, Report.of(self._comm.rank, self._host, _explain(error)))
        if self._comm.rank != 0:
            raise FailedElsewhere from error
        if isinstance(error, RanksFailed):
            # An agreement inside this one has reported already; its message names ranks and hosts.
            raise error
        if ended[0] >= _ASKED and not report.problems:
            raise RunInterrupted(f"interrupted during {phase}") from error
        raise RanksFailed(report.message(phase, 1 if for_all else self._comm.size)) from error


def collect(comm: Communicator, report: Report) -> Report:
    """The reports of all ranks, merged, on rank 0 (elsewhere a part of it). Collective.

    They go up a binomial tree whose subtrees are ranges of ranks.
    """
    rank, size, step = comm.rank, comm.size, 1
    while step < size:
        if rank & step:
            comm.send(report, dest=rank - step, tag=_TAG)
            break
        if rank + step < size:
            report = report.merged_with(comm.recv(source=rank + step, tag=_TAG))
        step *= 2
    return report


def abort(comm: Communicator, message: str) -> NoReturn:
    """Print `message` with rank and host, and end all ranks at once: for failures outside an agreement.

    Travels: nothing; the launcher kills the other ranks, wherever they wait.
    """
    print(f"kvbench: rank {comm.rank} on {socket.gethostname()}: {message}", file=sys.stderr, flush=True)
    wait_until_passed_on()
    comm.Abort(1)


@contextmanager
def together(comm: Communicator) -> Iterator[None]:
    """A context whose end all ranks of `comm` reach, or none: an error that was not agreed on ends the whole job.

    The other ranks wait somewhere for this one, which will not come, so they cannot be told in any other way. With one
    rank the error passes unchanged.
    """
    try:
        yield
    except (RanksFailed, FailedElsewhere):
        raise
    except BaseException as error:
        if comm.size == 1:
            raise
        abort(comm, _explain(error))


def _explain(error: BaseException | None) -> str:
    """What a user reads of `error`; empty when there is nothing to say here."""
    if error is None or isinstance(error, FailedElsewhere | Interrupted):
        return ""
    if isinstance(error, KvbenchError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f": {error.filename}"
        text = f"{error.strerror}{name}"
    elif isinstance(error, OSError):
        text = str(error) or type(error).__name__
    elif isinstance(error, MemoryError):
        text = f"out of memory ({error})" if str(error) else "out of memory"
    elif isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    else:
        # The end of a traceback says most: the innermost frames and the error itself.
        text = "internal error, please report it:\n" + "".join(traceback.format_exception(error)).rstrip()[-MAX_TEXT:]
    return text or type(error).__name__
