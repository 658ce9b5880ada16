"""Batches as transfers of NIXL: one agent for each thread and tier, one transfer for each batch.

A transfer is timed as one, and NIXL says of it only that it is done or has failed: see docs/measurement-method.md.
"""

import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.records.batches import BatchSplit
from kvbench.records.schema import RECORD_DTYPE, Op, TimedBy
from kvbench.tiers.failures import LibraryError
from kvbench.tiers.file.descriptors import Pieces, bytes_of_objects, pieces_of
from kvbench.tiers.file.naming import TEMPORARY, Naming
from kvbench.tiers.file.nixl_agent import Agent, Descriptors, TransferCanceledError, TransferFailedError
from kvbench.tiers.file.overlapping import Names
from kvbench.tiers.transfer import Batch, beside


@dataclass
class _Asked:
    """A batch of reads or writes, as far as it is to be moved."""

    batch: Batch
    descriptor: int
    """Of the directory, or of the one file."""
    names: Sequence[str]
    """Of the objects' files there; none where they lie in one file."""
    places: npt.NDArray[np.int64] | None
    sizes: npt.NDArray[np.int64]
    flags: int
    count: int
    """Objects that are moved, from the first."""
    begun: int
    """And those that were begun, the last of which may have failed before it was moved."""
    errors: dict[int, OSError] = field(default_factory=dict)
    sync_ns: int = 0

    @property
    def reads(self) -> bool:
        return self.batch.does == Op.READ

    def fail_at(self, at: int, error: OSError) -> None:
        """Object `at` cannot be moved, and nothing behind it is."""
        self.count, self.begun = at, at + 1
        self.errors[at] = error

    def fail(self, error: OSError) -> None:
        """All that were to be moved went wrong, nobody knows which."""
        for at in range(self.count):
            self.errors.setdefault(at, error)


class NixlTransfers:
    """Of one tier, by `backend` of NIXL, which is made with `options` for each thread."""

    unregistered_errno = 0

    def __init__(self, backend: str, options: Mapping[str, str]) -> None:
        self._backend = backend
        self._options = dict(options)
        self._own = threading.local()
        self._all: list[Agent] = []
        self._lock = threading.Lock()

    def open(self, memory: npt.NDArray[np.uint8] | None) -> None:
        """Make the calling thread's agent, if it has none, which then knows `memory`. Raises OSError."""
        try:
            agent = self._agent()
            if memory is not None:
                agent.hold_memory(memory)
        except TransferFailedError as error:
            raise self._error(error) from error

    def _agent(self) -> Agent:
        agent: Agent | None = getattr(self._own, "agent", None)
        if agent is None:
            self._own.agent = agent = Agent(self._backend, self._options)
            with self._lock:
                self._all.append(agent)
        return agent

    def _error(self, error: TransferFailedError) -> OSError:
        return LibraryError(errno.EIO, f"NIXL's backend {self._backend} said {error}")

    def close_own(self) -> None:
        """Give back the calling thread's agent, if it has one; also after a transfer that did not end well."""
        agent: Agent | None = getattr(self._own, "agent", None)
        if agent is not None:
            self._own.agent = None
            with self._lock:
                self._all.remove(agent)
            agent.close()

    def run(
        self,
        batch: Batch,
        descriptor: int,
        names: Names,
        io_bytes: int,
        flags: int,
        where: Callable[[int], str],
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """See `Overlapping`."""
        self.open(None)
        memories = beside(batch.memories)
        naming = Naming(names.suffix, names.levels, names.width)
        called = [] if places is not None else [names.prefix + naming.name(key) for key in batch.keys]
        count = 1 if batch.is_too_late(1) else len(batch.keys)
        asked = _Asked(batch, descriptor, called, places, bytes_of_objects(memories), flags, count, count)
        unprepared = _look(asked) if asked.reads else None
        if batch.stop[0] and asked.begun:
            asked.fail_at(0, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
        if asked.begun:
            self._run_timed(asked, memories.buffer, pieces_of(memories, io_bytes))
        for at, error in asked.errors.items():
            # One error of a whole transfer names its first object.
            error.filename = error.filename or where(batch.keys[at])
            batch.errors[at] = error
        if unprepared is not None and not batch.errors:
            unprepared.filename = where(batch.keys[asked.begun])
            batch.errors[asked.begun] = unprepared

    def _run_timed(self, asked: _Asked, buffer: npt.NDArray[np.uint8], pieces: Pieces) -> None:
        """Move what is asked for, and fill the rows."""
        agent = self._agent()
        row = np.zeros(RECORD_DTYPE.itemsize, np.uint8)
        with suppress(TransferFailedError):
            agent.hold_memory(buffer)
            if asked.places is not None:
                agent.hold_file(asked.descriptor)
        agent.workers_ns()
        timed_io.begin(row, 0)
        try:
            if asked.places is None:
                self._move_files(agent, asked, buffer, pieces)
            else:
                self._move_in_place(agent, asked, buffer, pieces)
        except TransferCanceledError:
            self.close_own()
            asked.fail(OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
        except TransferFailedError as error:
            self.close_own()
            asked.fail(self._error(error))
        nbytes = _bytes_moved(asked)
        timed_io.end(row, 0, 0, 0, int(nbytes.sum()))
        helper_ns = agent.workers_ns()
        whole = row.view(RECORD_DTYPE)[0]
        _fill_rows(asked, whole, nbytes)
        asked.batch.begun = asked.begun
        asked.batch.overlapped(TimedBy.NIXL, _split_of(whole, helper_ns, asked.count))
        if asked.errors:
            _say_if_full(asked)

    def _move_files(self, agent: Agent, asked: _Asked, buffer: npt.NDArray[np.uint8], pieces: Pieces) -> None:
        """Each object a file of its own, which is open for the time of the batch."""
        opened: list[int] = []
        try:
            for at in range(asked.count):
                try:
                    opened.append(_open(asked, at))
                except OSError as error:
                    asked.fail_at(at, error)
                    break
            if not opened:
                return
            pieces = pieces.of_first(len(opened))
            descriptors = np.array(opened, np.uint64)[pieces.objects]
            known = agent.know_files(list(zip(opened, asked.sizes.tolist(), strict=False)))
            memory, files = _descriptors(buffer, pieces, pieces.offsets, descriptors)
            agent.transfer(asked.reads, memory, files, asked.batch.stop)
            agent.forget(known)
            if not asked.reads:
                _finish_writes(asked, opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        if asked.flags & timed_io.RENAME and not asked.reads:
            _rename(asked)

    def _move_in_place(self, agent: Agent, asked: _Asked, buffer: npt.NDArray[np.uint8], pieces: Pieces) -> None:
        """All objects in one file that stays open."""
        assert asked.places is not None
        if not asked.count:
            return
        pieces = pieces.of_first(asked.count)
        offsets = asked.places[pieces.objects] + pieces.offsets
        descriptors = np.full(len(offsets), asked.descriptor, np.uint64)
        memory, files = _descriptors(buffer, pieces, offsets, descriptors)
        agent.transfer(asked.reads, memory, files, asked.batch.stop)
        if not asked.reads and not asked.flags & timed_io.NO_SYNC:
            began_ns = timed_io.now_ns()
            try:
                os.fdatasync(asked.descriptor)
            except OSError as error:
                asked.fail(error)
            asked.sync_ns = timed_io.now_ns() - began_ns

    def close(self) -> None:
        """Give back the agents of all threads, none of which uses its own any more."""
        while self._all:
            self._all.pop().close()


def _look(asked: _Asked) -> OSError | None:
    """Before the clock starts: what of each object is in the page cache, which is dropped where that is asked for, and
    whether the object is as long as it was written: NIXL does not tell which of a transfer it was that came short.
    Returns why object `begun` cannot be looked at."""
    resident = asked.batch.rows.view(RECORD_DTYPE)["resident_pct"]
    drop = bool(asked.flags & timed_io.DROP)
    end = 0 if asked.places is None else os.lseek(asked.descriptor, 0, os.SEEK_END)
    for at in range(asked.count):
        try:
            nbytes = int(asked.sizes[at])
            if asked.places is None:
                directory, name, place, length = asked.descriptor, asked.names[at], 0, 0
                there = os.stat(name, dir_fd=directory).st_size
            else:
                directory, name, place, length = -1, f"/proc/self/fd/{asked.descriptor}", int(asked.places[at]), nbytes
                there = end - place
            if asked.flags & timed_io.LOOK:
                resident[asked.batch.first_row + at] = timed_io.page_cache(directory, name, drop, place, length)
        except OSError as error:
            asked.count = asked.begun = at
            return OSError(error.errno, error.strerror)
        if there < nbytes:
            asked.fail_at(at, OSError(errno.EIO, os.strerror(errno.EIO)))
            return None
    return None


def _open(asked: _Asked, at: int) -> int:
    direct = os.O_DIRECT if asked.flags & timed_io.DIRECT else 0
    name = asked.names[at]
    if asked.reads:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | direct, dir_fd=asked.descriptor)
    if asked.flags & timed_io.RENAME:
        name += TEMPORARY
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | direct
    try:
        return os.open(name, flags, 0o600, dir_fd=asked.descriptor)
    except FileNotFoundError:
        if not asked.flags & timed_io.FOLDERS:
            raise
    folders = name.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        with suppress(FileExistsError):
            os.mkdir("/".join(folders[:depth]), 0o700, dir_fd=asked.descriptor)
    return os.open(name, flags, 0o600, dir_fd=asked.descriptor)


def _descriptors(
    buffer: npt.NDArray[np.uint8],
    pieces: Pieces,
    offsets: npt.NDArray[np.int64],
    descriptors: npt.NDArray[np.uint64],
) -> tuple[Descriptors, Descriptors]:
    """In memory, and in files."""
    memory, files = np.zeros((len(offsets), 3), np.uint64), np.empty((len(offsets), 3), np.uint64)
    memory[:, 0] = pieces.starts + buffer.ctypes.data
    memory[:, 1] = files[:, 1] = pieces.lengths
    files[:, 0], files[:, 2] = offsets, descriptors
    return memory, files


def _finish_writes(asked: _Asked, opened: Sequence[int]) -> None:
    """Look whether all was written, as not every backend of NIXL is known to tell a short write, and sync each file."""
    began_ns = timed_io.now_ns()
    for at, descriptor in enumerate(opened):
        try:
            if os.fstat(descriptor).st_size < asked.sizes[at]:
                raise LibraryError(errno.EIO, "the file is shorter than what NIXL reported as written")
            if not asked.flags & timed_io.NO_SYNC:
                os.fdatasync(descriptor)
        except OSError as error:
            asked.errors[at] = error
    if not asked.flags & timed_io.NO_SYNC:
        asked.sync_ns = timed_io.now_ns() - began_ns


def _rename(asked: _Asked) -> None:
    """What was written well gets its name."""
    for at in range(asked.count):
        if at not in asked.errors:
            name = asked.names[at]
            try:
                os.rename(name + TEMPORARY, name, src_dir_fd=asked.descriptor, dst_dir_fd=asked.descriptor)
            except OSError as error:
                asked.errors[at] = error


def _bytes_moved(asked: _Asked) -> npt.NDArray[np.int64]:
    """Of each object that was begun, what is known to have been moved."""
    nbytes = asked.sizes[: asked.begun].copy()
    nbytes[list(asked.errors)] = 0
    return nbytes


def _fill_rows(asked: _Asked, whole: np.void, nbytes: npt.NDArray[np.int64]) -> None:
    """Each row has the times of the transfer."""
    first = asked.batch.first_row
    rows = asked.batch.rows.view(RECORD_DTYPE)[first : first + asked.begun]
    rows["queue_ns"] = whole["t_start_ns"] - rows["queue_ns"]
    rows["t_start_ns"], rows["wall_ns"] = whole["t_start_ns"], whole["wall_ns"]
    rows["span_ns"] = whole["wall_ns"] if asked.reads else asked.sync_ns
    for column in ("host_ns", "runq_ns", "device_ns", "copy_ns", "minor_faults", "major_faults", "errno"):
        rows[column] = 0
    rows["nbytes"] = nbytes
    for at, error in asked.errors.items():
        rows["errno"][at] = error.errno or errno.EIO


def _split_of(whole: np.void, helper_ns: int, operations: int) -> BatchSplit:
    return BatchSplit(
        start_ns=int(whole["t_start_ns"]),
        wall_ns=int(whole["wall_ns"]),
        host_ns=int(whole["host_ns"]),
        runq_ns=int(whole["runq_ns"]),
        device_ns=int(whole["device_ns"]),
        copy_ns=0,
        nbytes=int(whole["nbytes"]),
        helper_ns=helper_ns,
        depth=max(1, operations),
    )


def _say_if_full(asked: _Asked) -> None:
    """NIXL does not say why it failed. Where the filesystem has no room for what was to be written, that is why."""
    if asked.reads or asked.places is not None:
        return
    space = os.fstatvfs(asked.descriptor)
    if space.f_bavail * space.f_frsize >= int(asked.sizes.sum()):
        return
    rows = asked.batch.rows.view(RECORD_DTYPE)[asked.batch.first_row :]
    for at, error in asked.errors.items():
        if isinstance(error, LibraryError):
            asked.errors[at] = LibraryError(errno.ENOSPC, error.strerror)
            rows["errno"][at] = errno.ENOSPC
