"""The contract of a tier: how the bytes of objects are moved, whatever holds them.

A tier decides nothing: which object lives where is the cache's business, and what the bytes are is the payload's.
Every call that moves bytes is timed into one row by the stopwatch; several calls on one object (parts) add up in it. A
batch of objects is one call with a row for each.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from kvbench.records.schema import MOVING_OPS, RESIDENT_UNKNOWN, Op, Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.transfer import WHOLE, Batch, Cell, Part


class NotAsWrittenError(OSError):
    """The file is there and can be read, and is not what was written."""


class ExplainedError(OSError):
    """Its text says more than its number: what went wrong, and what to do."""


class Addressable(Protocol):
    """Memory that the processor can address: what lies there is written to another tier from where it lies, and what
    comes up from another tier is read to where it is to lie."""

    def memory_of(self, key: int) -> Memory:
        """Where all bytes of object `key` lie, or will lie once it is allocated and written."""

    def release(self, key: int) -> None:
        """Take the memory of object `key` back: it was moved away, and nothing of that is timed."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that the layout of a tier makes necessary, and that no operation asked for."""

    where: str
    """What it is done to, for messages."""
    carry_out: Callable[[Cell], None]
    """Do it, timed into one row, which stays as it was where nothing was to be done; raises OSError. Whoever took the
    chore must call it."""


class Upkeep(Protocol):
    """What the layout of a tier makes necessary, beside its operations. Whoever works on the tier sees to it."""

    def reserve(self, sizes: Mapping[int, int]) -> bool:
        """Give each of the objects that are to be written (their bytes, by key) its place; False, and nothing is done,
        where that must wait for chores or for operations that are under way. Whoever has places goes on to write there.
        Raises OSError where there will be no room."""

    def wait(self, sizes: Mapping[int, int], seconds: float) -> bool:
        """Wait until more may be possible, but no longer than `seconds`; False where nothing will change."""

    def due(self) -> Chore | None:
        """Something to be done now, by the caller and nobody else. Raises OSError where that cannot begin."""


class Tier(ABC):
    """One level of the cache. Calls raise OSError; the row then holds its number and what was moved until then."""

    kind: ClassVar[str]
    storage: ClassVar[bool]
    """False: the tier is the memory of the node."""
    holds_bytes: ClassVar[bool] = True
    """False: it only remembers which objects it has; nothing is moved, and nothing that it gives can be verified."""
    read_path: Path
    write_path: Path
    moves_together: bool = False
    """True: `run` is one call for a whole batch, which prepares each read itself, right before it (`prepare_read`), and
    reads to where the objects are to lie."""
    looks_up_together: bool = False
    """True: `run` looks up a batch of objects, too."""
    most_bytes: int | None = None
    """The largest object that it takes; None: it is not of a size of its own."""
    overlapping_ops: ClassVar[Collection[Op]] = MOVING_OPS
    """Operations of a batch that are in flight together, where `io.depth` of them are."""
    syncs_batches: bool = False
    """True: what a batch wrote is made durable by `sync_batch`, and not before."""
    in_parts: bool = True
    """False: an object can only be read as a whole."""

    @abstractmethod
    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        """Write `part` of object `key` from `source`; the object is there, for good, when its last part was written.

        Parts come in order. `handle` is what the call for the part before returned, -1 for the first.
        """

    @abstractmethod
    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory | None]:
        """Read `part` of object `key`; returns the handle for the next part and where the bytes landed.

        They land in `target`, or in memory of the read path's own, or nowhere (None) where it only touches them.
        """

    @abstractmethod
    def delete(self, cell: Cell, key: int) -> None:
        """Remove object `key`."""

    def run(self, batch: Batch) -> None:
        """Carry out a batch. An OSError does not end the call but stands in `batch.errors`, and in the row.

        This way objects are moved one after the other, and nothing is begun behind one that fails. A tier that has one
        call for several objects replaces it, and may begin all of them, until it is too late (`Batch.until_ns`). Where
        it could not prepare a read (`moves_together`), that error is of the object behind those that were begun.
        """
        cell = Cell(batch.rows, batch.first_row, batch.stop)
        reads, writes = batch.does == Op.READ, batch.does == Op.WRITE
        for number, key in enumerate(batch.keys):
            if batch.is_too_late(number):
                return
            cell.row = batch.first_row + number
            try:
                if reads and self.moves_together:
                    cell.record["resident_pct"] = self.prepare_read(key)
            except OSError as error:
                batch.errors[number] = error
                return
            batch.begun += 1
            try:
                if reads:
                    batch.landed.append(self.read(cell, key, WHOLE, batch.memories[number])[1])
                elif writes:
                    self.write(cell, key, WHOLE, batch.memories[number])
                else:
                    self.delete(cell, key)
            except OSError as error:
                batch.errors[number] = error
                return

    def begin_thread(self, memory: npt.NDArray[np.uint8]) -> None:  # noqa: B027 - most need no preparation
        """Called once by each thread that is to run batches, before any clock starts; most of what batches move will
        lie in `memory`. Raises OSError."""

    def end_thread(self) -> None:  # noqa: B027 - see begin_thread
        """Called by each such thread when it runs no batch any more."""

    @property
    def unregistered_errno(self) -> int:
        """Why the memory that a thread began with is not registered with the kernel, where a tier asks for that; 0: it
        is, or was not asked for."""
        return 0

    def allocate(self, key: int, nbytes: int) -> None:  # noqa: B027 - storage allocates as it writes
        """Set memory aside for object `key`; called before its first part is written."""

    @property
    def addressable(self) -> Addressable | None:
        """The tier as memory that the processor can address; None: it is storage, or keeps no bytes."""
        return None

    def prepare_read(self, key: int) -> int:
        """Make the next read a cold one where that is asked for, untimed; returns per cent of the object still in the
        page cache, or RESIDENT_UNKNOWN."""
        return RESIDENT_UNKNOWN

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        """Read bytes from `offset` on into `target` without timing them, to verify what a touch did not hand over."""
        raise NotImplementedError(f"a {self.kind} tier hands over all it reads")

    def abandon(self, handle: int) -> None:  # noqa: B027 - most tiers keep nothing open between parts
        """Close what `handle` stands for: no further part will come, since the caller failed between two."""

    def look_up(self, cell: Cell, key: int) -> bool:
        """Ask the storage itself whether object `key` is there; that it is not is an answer like any other."""
        raise NotImplementedError(f"a {self.kind} tier knows by itself what it has")

    def sync(self, cell: Cell) -> None:
        """Make all that was written durable, as far as it is not yet."""
        raise NotImplementedError(f"nothing that is written to a {self.kind} tier becomes durable later")

    def sync_batch(self, cell: Cell, keys: Sequence[int]) -> None:
        """Make durable what was written of the objects `keys`, and as little else as can be; nothing is to be done for
        one that is not there any more."""
        raise NotImplementedError(f"nothing that is written to a {self.kind} tier becomes durable later")

    @property
    def upkeep(self) -> Upkeep | None:
        """What its layout makes necessary; None: nothing."""
        return None

    def of_rank(self, writer: int) -> "Tier":
        """The objects that another rank wrote to the same storage, to be read."""
        raise NotImplementedError(f"the objects of a {self.kind} tier are its own rank's")

    @property
    def retried_requests(self) -> int:
        """Of a tier that sends requests: how many were sent again, each as often as it was."""
        return 0

    def size_bytes(self, key: int) -> int | None:
        """Bytes of object `key` that are there now; None where that cannot be told."""
        return None

    def where(self, key: int) -> str:
        """Where object `key` is, for messages."""
        return f"object {key:#x} in the {self.kind} tier"

    def close(self) -> None:  # noqa: B027 - nothing to give back by default
        """Give back what the tier holds. Objects on storage are not removed."""
