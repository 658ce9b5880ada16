"""The calls on rings without a compiler: there are none, and each says so."""

import errno
from typing import Any, NoReturn


def _refuse() -> NoReturn:
    raise OSError(errno.ENOSYS, "rings (io_uring) need the C extension; install a compiler, then kvbench again")


def open_ring(depth: int, memory: Any, /) -> tuple[object, int]:
    """Raises OSError."""
    _refuse()


def close_ring(ring: object, /) -> None:
    """Raises OSError."""
    _refuse()


def ring_workers_ns(ring: object, /) -> int:
    """Raises OSError."""
    _refuse()


def run_ring(*arguments: Any) -> tuple[int, int, int, int, tuple[int, int, int, int, int, int, int, int, int]]:
    """Raises OSError."""
    _refuse()
