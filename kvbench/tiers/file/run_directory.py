"""The directories of one run in the directory under test: made, marked, and removed again.

kvbench deletes only what carries its marker: `<directory>/kvbench-<run id>/rank-<r>/`, each level with a marker file
that names the run. Whatever else is found there is left alone, with the directories that hold it.

A rank that is alive holds a lock (flock) on its own marker, so that `clean` can tell what is in use. The kernel gives
it up when the process ends, in whatever way. NFS, GlusterFS, Lustre (mounted with `flock`) and other shared filesystems
make it known to all nodes; on one without locks, ranks go without.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.records.schema import PATHS
from kvbench.records.unfinished import lock
from kvbench.tiers.file.bucket import BucketTier
from kvbench.tiers.file.engines import overlapping_of, rings_of
from kvbench.tiers.file.filesystem import filesystem_of
from kvbench.tiers.file.marked import (
    delete_objects,
    is_marked,
    mark,
    opened,
    opened_if_there,
    remove_if_empty,
)
from kvbench.tiers.file.naming import SLAB_NAME
from kvbench.tiers.file.slab import SlabTier
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.marker import MARKER, RANK_FOLDER
from kvbench.tiers.target import Area, TierSettings

_PREFIX: Final = "kvbench-"


class RunDirectory(Area):
    """The directories of run `run_id` below `directory`, seen from rank `rank`."""

    def __init__(self, directory: Path, run_id: str, rank: int) -> None:
        self.directory = directory
        self.run_id = run_id
        self.top = directory / f"{_PREFIX}{run_id}"
        """The run's own directory, shared by its ranks on this filesystem."""
        self.objects = self.top / _rank_folder(rank)
        """This rank's own directory."""
        self._held: list[int] = []
        """Descriptor of the marker that is locked, if it is."""
        super().__init__(str(directory), str(self.objects))

    def open_tier(self, settings: TierSettings) -> FileTier | SlabTier | BucketTier:
        io = settings.io
        folder_of = other_rank if settings.shared else None
        read_path, write_path = PATHS[io.read_path], PATHS[io.write_path]
        layout, capacity = settings.section.layout, settings.capacity_bytes
        if layout.kind == "bucket":
            return BucketTier(
                self.objects,
                read_path,
                write_path,
                io.io_bytes,
                io.drop_page_cache,
                capacity,
                layout.bucket_bytes,
                layout.garbage,
                io.sync,
                rings_of(io),
            )
        if layout.kind == "slab":
            slab = self.objects / SLAB_NAME
            return SlabTier(
                slab,
                read_path,
                write_path,
                io.io_bytes,
                io.drop_page_cache,
                capacity,
                io.sync,
                overlapping=overlapping_of(io),
                in_memory=filesystem_of(self.directory).in_memory,
            )
        return FileTier(
            self.objects,
            read_path,
            write_path,
            io.io_bytes,
            io.drop_page_cache,
            folder_of,
            layout,
            io.sync,
            overlapping_of(io),
            filesystem_of(self.directory).in_memory,
        )

    def create(self) -> None:
        """Make both levels with their markers, and lock this rank's. Raises KvbenchError naming what is wrong."""
        check_directory(self.directory)
        try:
            self.top.mkdir(mode=0o700, exist_ok=True)
            with opened(self.top) as top:
                mark(top, self.run_id)
                os.mkdir(self.objects.name, 0o700, dir_fd=top)
                with opened(self.objects.name, top) as objects:
                    mark(objects, self.run_id)
            descriptor = os.open(self.objects / MARKER, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise KvbenchError(
                f"cannot make {self.objects}: {error.strerror}; give a directory that can be written with --dir"
            ) from error
        self._held.append(descriptor)
        if lock(descriptor) == "held":
            raise KvbenchError(f"{self.objects} is being cleaned by somebody else: start the run again")

    def remove(self) -> list[str]:
        """Remove this rank's objects and directory, then the run's directory if it is the last rank to leave it."""
        strangers: list[str] = []
        with opened_if_there(self.top) as top:
            if top is not None:
                strangers += self._remove_own(top)
            self._release()
            if top is not None and is_marked(top, self.run_id):
                # Two ranks may both find themselves the last; either may remove what the other looks at.
                with suppress(FileNotFoundError):
                    remaining = _others_in(top)
                    if not remaining:
                        os.unlink(MARKER, dir_fd=top)
                        remove_if_empty(self.top)
                    elif not RANK_FOLDER.fullmatch(remaining[-1]):
                        strangers += remaining
        return strangers

    def _remove_own(self, top: int) -> list[str]:
        with opened_if_there(self.objects.name, top) as objects:
            if objects is None or not is_marked(objects, self.run_id):
                return []
            strangers = delete_objects(objects)
            # Before the marker goes: NFS keeps a removed file that is open under another name, in this directory.
            self._release()
            if strangers:
                return strangers
            os.unlink(MARKER, dir_fd=objects)
        remove_if_empty(self.objects.name, top)
        return []

    def _release(self) -> None:
        while self._held:
            os.close(self._held.pop())


def other_rank(rank: int) -> str:
    """The directory of another rank of the run, from a rank's own directory."""
    return f"../{_rank_folder(rank)}"


def check_directory(directory: Path) -> None:
    """Raise KvbenchError when `directory` is missing, no directory, or cannot be written."""
    if not directory.exists():
        raise KvbenchError(
            f"the directory {directory} does not exist; make it, or mount the storage that it should be on"
        )
    if directory.is_block_device():
        raise KvbenchError(
            f"{directory} is a block device: give a directory, or set layout.kind=slab of the file tier, "
            "whose slots can lie there"
        )
    if not directory.is_dir():
        raise KvbenchError(f"{directory} is not a directory; give the directory under test with --dir")
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise KvbenchError(f"{directory} is on a read-only filesystem; mount it for writing")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise KvbenchError(f"{directory} cannot be written by this user; change its permissions or give another --dir")


def _rank_folder(rank: int) -> str:
    return f"rank-{rank}"


def _others_in(top: int) -> list[str]:
    """What a run's open directory holds besides its marker, up to the first directory of a rank, which comes last.

    A rank that leaves while others are still there does not read the whole list: together they would read as many
    entries as the square of their number.
    """
    found: list[str] = []
    with os.scandir(top) as entries:
        for entry in entries:
            if RANK_FOLDER.fullmatch(entry.name):
                return [*sorted(found), entry.name]
            if entry.name != MARKER:
                found.append(entry.name)
    return sorted(found)
