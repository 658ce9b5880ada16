"""Tries every read and write path on a directory, with the same code that a run uses, on one small object each.

It says what works, not how fast: nothing here is a measurement.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath
from typing import Final

import numpy as np

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, Path, label
from kvbench.records.unfinished import unfinished_folder
from kvbench.tiers.arena import Memory, anonymous_memory
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.transfer import WHOLE, Cell
from kvbench.units import KIB

READ_PATHS: Final = (Path.DOUBLE_COPY, Path.NUMPY, Path.BUFFERED, Path.MMAP_TOUCH, Path.MMAP_COPY, Path.DIRECT)
WRITE_PATHS: Final = (Path.BUFFERED, Path.DIRECT)

_PROBE_BYTES: Final = 256 * KIB
_IO_BYTES: Final = 64 * KIB


def probe_paths(directory: FilePath) -> dict[str, str | None]:
    """`read buffered`, `write direct` and so on -> what is wrong with that path on `directory`, None where it works.

    Writes into a directory of its own there and removes it. Raises OSError where that cannot be made.
    """
    outcomes = {}
    with own_directory(directory) as own:
        for path in WRITE_PATHS:
            outcomes[f"write {label(path)}"] = _try(own, Path.BUFFERED, path)
        for path in READ_PATHS:
            outcomes[f"read {label(path)}"] = _try(own, path, Path.BUFFERED)
    return outcomes


def direct_alignment(directory: FilePath) -> int | None:
    """The least alignment in bytes, of 512 and 4096, that O_DIRECT reads on `directory` accept for offset, length and
    memory; None where neither works. Raises OSError where the directory cannot be written."""
    with own_directory(directory) as own:
        file = own / "alignment"
        file.write_bytes(bytes(16 * KIB))
        memory = mmap.mmap(-1, 16 * KIB)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            return None
        try:
            for alignment in (512, 4096):
                with suppress(OSError), memoryview(memory)[alignment : 2 * alignment] as target:
                    if os.preadv(descriptor, [target], alignment) == alignment:
                        return alignment
        finally:
            os.close(descriptor)
    return None


def resident_after_drop(directory: FilePath) -> int:
    """Per cent of a freshly written file that is still in the page cache after it was dropped from it. Raises OSError
    where the directory cannot be written."""
    with own_directory(directory) as own:
        descriptor = os.open(own / "dropped", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, bytes(_PROBE_BYTES))
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        dirfd = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return timed_io.page_cache(dirfd, "dropped", True)
        finally:
            os.close(dirfd)


@contextmanager
def own_directory(directory: FilePath) -> Iterator[FilePath]:
    """A new directory in `directory`, named and marked as ours, that is removed with what is in it."""
    with unfinished_folder(directory, "kvbench-doctor-") as own:
        yield own


def _try(directory: FilePath, read_path: Path, write_path: Path) -> str | None:
    """What goes wrong when one object is written, read back, compared and deleted; None for nothing."""
    cell = Cell(np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8), 0, np.zeros(1, dtype=np.int32))
    extents = np.array([[0, _PROBE_BYTES]], dtype=np.int64)
    source = Memory(np.frombuffer(anonymous_memory(_PROBE_BYTES), dtype=np.uint8), extents)
    source.buffer[:] = np.arange(_PROBE_BYTES, dtype=np.uint32).astype(np.uint8)
    target = Memory(np.frombuffer(anonymous_memory(_PROBE_BYTES), dtype=np.uint8), extents)
    tier = FileTier(directory, read_path, write_path, _IO_BYTES, drop_page_cache=True)
    try:
        tier.allocate(1, _PROBE_BYTES)
        tier.write(cell, 1, WHOLE, source)
        tier.prepare_read(1)
        _, landed = tier.read(cell, 1, WHOLE, target)
        if landed is None:  # the path only touches pages
            tier.inspect(1, 0, target)
            landed = target
        intact = np.array_equal(landed.buffer[:_PROBE_BYTES], source.buffer)
        tier.delete(cell, 1)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    finally:
        tier.close()
    return None if intact else "what was read is not what was written"
