"""Standard output and error of a process, which may go to a full disk, be closed, or be read by nobody any more:
nothing of that ends what a command does.

A failure is remembered, and what is printed from then on is discarded. At its end the command says it where it can.
"""

import errno
import fcntl
import io
import os
import select
import stat
import sys
import termios
import time
from typing import Final, TextIO

_READ_WITHIN_S: Final = 2.0
_PASSED_ON_S: Final = 0.1


class _SteadyEnd(io.RawIOBase):
    """The writing end of a standard stream; `error` is the first failure."""

    def __init__(self, descriptor: int, name: str, was_closed: bool) -> None:
        super().__init__()
        self.name = name
        self.mode = "wb"
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._was_closed = was_closed

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # whatever holds bytes
        left = view
        if self._was_closed:
            self.error = OSError(errno.EBADF, "it is closed")
        while left and self.error is None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                # Another program that has the same terminal or pipe has set it to not wait.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.error = error
        return len(view)


class SteadyStreams:
    """This process's standard output and error, steady from now on. Closed ones go nowhere, so that no file that is
    opened later takes their place, and with it what is printed."""

    def __init__(self) -> None:
        closed = [_open_if_closed(number) for number in range(3)]
        if sys.stdin is None:
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
        self._out = _SteadyEnd(1, "<stdout>", closed[1])
        sys.stdout = _text(sys.stdout, self._out)
        sys.stderr = _text(sys.stderr, _SteadyEnd(2, "<stderr>", closed[2]))

    def exit_code(self, code: int, made: str) -> int:
        """What to end with instead of `code`: a command of which nothing is left when its output is lost has failed.
        `made` says what is left of it. A failure is told on standard error, unless it is that nobody reads on."""
        sys.stdout.flush()
        error = self._out.error
        if error is None:
            return code
        if error.errno != errno.EPIPE:
            rest = f"; {made}" if made else ""
            print(f"kvbench: cannot write to standard output: {error.strerror}{rest}", file=sys.stderr, flush=True)
        return code or (0 if made else 1)


def wait_until_passed_on(descriptor: int = 2) -> None:
    """Wait until what was written to `descriptor`, a launcher's pipe, has been read there (for 2 s at most), and a
    moment for the launcher to pass it on.

    An MPI library that is told to abort ends its launcher's daemons; Hydra's forget then what they have not read yet.
    """
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            until = time.monotonic() + _READ_WITHIN_S
            while int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder):
                if time.monotonic() > until:
                    break
                time.sleep(0.002)
    except OSError:
        return  # it is closed: nobody reads
    time.sleep(_PASSED_ON_S)


def _open_if_closed(number: int) -> bool:
    """Have descriptor `number` lead nowhere if it is closed; returns whether it was."""
    try:
        os.fstat(number)
    except OSError:
        # The lowest that is free: those below are open by now.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        return True
    return False


def _text(stream: TextIO | None, end: _SteadyEnd) -> TextIO:
    """A text stream that ends in `end`, and is else like `stream`."""
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(end), encoding="utf-8", errors="backslashreplace")
    buffer = end if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(end)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
