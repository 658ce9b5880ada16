"""What the programs have in common that drive a real package's storage code: blocks, keys, and marks in the trace.

They run in a virtual environment of their own, with the package and without kvbench. `python PROGRAM DIR BLOCK_BYTES
BLOCKS` looks the blocks up, stores them, looks them up again and loads them, and checks what it has read.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MARK = "/kvbench-twins/"
"""Of paths that are asked for to say in the trace which phase begins; nothing lies there."""


@contextmanager
def phase(name: str) -> Iterator[None]:
    """What runs in it stands between two marks of the trace."""
    mark(name)
    yield
    mark("other")


def mark(name: str) -> None:
    with suppress(OSError):
        os.stat(MARK + name)


def asked() -> tuple[str, int, int]:
    """Directory, bytes of a block, and how many blocks."""
    directory, block_bytes, blocks = sys.argv[1:]
    return directory, int(block_bytes), int(blocks)


def content(number: int, block_bytes: int) -> bytes:
    """Of a block."""
    return bytes([number % 251 + 1]) * block_bytes


def check(number: int, found: object, block_bytes: int) -> None:
    """Raises ValueError where a block is not what was stored."""
    if bytes(memoryview(found).cast("B")) != content(number, block_bytes):  # type: ignore[arg-type]
        raise ValueError(f"block {number} is not what was stored")
