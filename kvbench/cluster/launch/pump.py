"""Copies what mpirun and its ranks print to where this process prints, as it comes.

mpirun itself ends all ranks when it cannot write any more; here what nobody can read is discarded.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import IO, Final

_SILENT_S: Final = 2.0


class Pump:
    """A thread that gives each piece of `source` to `show`, and None at its end."""

    def __init__(self, source: IO[bytes], show: Callable[[bytes | None], object], name: str) -> None:
        self._source = source
        self._show = show
        self._waiting_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until all is shown; not for a process that outlives mpirun, holds its pipe open and says nothing."""
        while self._thread.is_alive():
            self._thread.join(timeout=0.1)
            since_s = self._waiting_since_s
            if since_s is not None and time.monotonic() - since_s > _SILENT_S:
                return

    def _run(self) -> None:
        piece = b" "
        while piece:
            self._waiting_since_s = time.monotonic()
            piece = os.read(self._source.fileno(), 65536)
            self._waiting_since_s = None
            # Who reads our output may be gone; the ranks must not block on it.
            with contextlib.suppress(OSError):
                self._show(piece or None)
