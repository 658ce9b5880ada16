"""One thread's agent of NIXL: the memory and the files that it knows, and transfers between them, one at a time.

NIXL tells only whether a whole transfer is done, has failed or goes on, and only when it is asked. What operations are
made of transfers, and what is timed: `nixl_transfers`.
"""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.tiers.file.nixl_library import load, uses_ring

_AT_ONCE_NS: Final = 10_000_000
"""For so long a transfer is looked at without a pause, as users of NIXL do; most are done by then."""
_PAUSE_SHARE: Final = 1 / 250
_LONGEST_PAUSE_S: Final = 250e-6
"""Between two looks from then on, of the time since the begin: with the kernel's slack of 50 us for a timer, a transfer
is seen to end at most 1 % late. POSIX hands the kernel what is left of a long transfer when it is looked at, so that
the kernel's queue must not run dry in a pause."""
_HANDED_OVER_AT_ONCE: Final = 64
"""Descriptors, by POSIX; of more, the others at the looks that follow."""
_CANCEL_NS: Final = 10**9
"""That a transfer may go on for when it is to be canceled, before it is given up."""

_names = itertools.count()

Descriptors = npt.NDArray[np.uint64]
"""Shape (n, 3): address or offset in the file, length in bytes, and the file's descriptor (0 for memory)."""


class TransferFailedError(Exception):
    """What NIXL said."""


class TransferCanceledError(Exception):
    """It was not done in time after it was to be canceled."""


class Agent:
    """Of the thread that makes it. After a transfer that did not end well it can only be closed: NIXL does not tell
    which of its requests still move bytes."""

    def __init__(self, backend: str, options: Mapping[str, str]) -> None:
        """Raises TransferFailedError, and OSError where there is no ring to tell the workers' time by."""
        self._library = load()
        self._backend = backend
        self._raised = self._library.errors
        self._memories: list[tuple[int, int, npt.NDArray[np.uint8]]] = []
        self._files: set[int] = set()
        self._ring: object = None
        try:
            self._agent: Any = self._library.agent(f"kvbench-{os.getpid()}-{next(_names)}")
            self._agent.create_backend(backend, dict(options))
        except self._raised as error:
            raise TransferFailedError(str(error)) from error
        if uses_ring(backend, options) and timed_io.TIMER == "extension":
            # A ring of our own, for what it knows: the workers that the kernel has for all rings of a thread.
            self._ring, _ = timed_io.open_ring(1, None)

    def hold_memory(self, memory: npt.NDArray[np.uint8]) -> int:
        """Have NIXL know all of `memory`, until the agent is closed; returns its address. Raises
        TransferFailedError."""
        address = int(memory.ctypes.data)
        if not any(first <= address and address + memory.nbytes <= end for first, end, _ in self._memories):
            self._register([(address, memory.nbytes, 0, "")], "DRAM")
            self._memories.append((address, address + memory.nbytes, memory))
        return address

    def hold_file(self, descriptor: int) -> None:
        """Have NIXL know an open file that stays open as long as the agent. Raises OSError and TransferFailedError."""
        if descriptor not in self._files:
            self._register([(0, os.lseek(descriptor, 0, os.SEEK_END), descriptor, "")], "FILE")
            self._files.add(descriptor)

    def know_files(self, files: Sequence[tuple[int, int]]) -> Any:
        """Have NIXL know open files, of so many bytes each, for one transfer; returns what `forget` takes. Raises
        TransferFailedError."""
        return self._register([(0, nbytes, descriptor, "") for descriptor, nbytes in files], "FILE")

    def forget(self, files: Any) -> None:
        """Raises TransferFailedError."""
        try:
            self._agent.deregister_memory(files, [self._backend])
        except self._raised as error:
            raise TransferFailedError(str(error)) from error

    def _register(self, what: list[tuple[int, int, int, str]], kind: str) -> Any:
        try:
            return self._agent.register_memory(what, kind, [self._backend])
        except self._raised as error:
            raise TransferFailedError(str(error)) from error

    def transfer(self, reads: bool, memory: Descriptors, files: Descriptors, stop: npt.NDArray[np.int32]) -> None:
        """Move `files` to `memory` (`reads`), or the other way, and wait until all has been moved. Raises
        TransferFailedError and, where `stop` is set and it does not end, TransferCanceledError."""
        agent = self._agent
        try:
            handle = agent.initialize_xfer(
                "READ" if reads else "WRITE",
                agent.get_xfer_descs(memory, "DRAM"),
                agent.get_xfer_descs(files, "FILE"),
                agent.name,
                backends=[self._backend],
            )
            try:
                self._wait(handle, -(-len(memory) // _HANDED_OVER_AT_ONCE), stop)
            except BaseException:
                with suppress(*self._raised):
                    handle.release()
                raise
            handle.release()
        except self._raised as error:
            raise TransferFailedError(str(error)) from error

    def _wait(self, handle: Any, looks_at_once: int, stop: npt.NDArray[np.int32]) -> None:
        """Begin a transfer and wait for it."""
        agent = self._agent
        began_ns = timed_io.now_ns()
        canceled_ns = 0
        state = agent.transfer(handle)
        while state == "PROC":
            now_ns = timed_io.now_ns()
            if stop[0]:
                canceled_ns = canceled_ns or now_ns
                if now_ns - canceled_ns > _CANCEL_NS:
                    raise TransferCanceledError
            if looks_at_once > 0:
                looks_at_once -= 1
            elif now_ns - began_ns > _AT_ONCE_NS:
                time.sleep(min((now_ns - began_ns) / 1e9 * _PAUSE_SHARE, _LONGEST_PAUSE_S))
                # POSIX says that all is done only at the look behind the one that finds the last request done.
                state = agent.check_xfer_state(handle)
            if state == "PROC":
                state = agent.check_xfer_state(handle)
        if state != "DONE":
            raise TransferFailedError(state)

    def workers_ns(self) -> int:
        """Processor time, since this was asked last, of threads that the kernel has for requests of this one; 0 where
        the backend has none of those."""
        return 0 if self._ring is None else timed_io.ring_workers_ns(self._ring)

    def close(self) -> None:
        """Give everything back. What still moves bytes does so until it is done: its memory must stay."""
        if self._ring is not None:
            timed_io.close_ring(self._ring)
            self._ring = None
        with suppress(AttributeError):
            del self._agent
        self._memories.clear()
        self._files.clear()
