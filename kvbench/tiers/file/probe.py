"""Tries every read and write path on a directory, with the same code that a run uses, on one small object each.

It says what works, not how fast: nothing here is a measurement.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as FilePath
from typing import Final

from kvbench import timed_io
from kvbench.records.schema import READ_PATHS, WRITE_PATHS, Path, label
from kvbench.records.unfinished import unfinished_folder
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.trial import TRIAL_BYTES, try_out
from kvbench.units import KIB

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
            os.write(descriptor, bytes(TRIAL_BYTES))
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
    tier = FileTier(directory, read_path, write_path, _IO_BYTES, drop_page_cache=True)
    try:
        trouble = try_out(tier)
    finally:
        tier.close()
    return None if trouble is None else trouble.reason
