"""Which object lies in which bucket, what of each is garbage, and what is to be done about it. No I/O of its own.

Objects are appended to the open bucket until one does not fit; the next one is then opened. A deletion only marks.
A bucket that nothing is written to any more is compacted once more than the share `garbage` of it is of deleted
objects: what is live is appended to the open bucket, after which it is removed, as is one that holds nothing live.

**Room.** Buckets that are not to be compacted hold at most live / (1 - garbage) bytes, and the open one at most a
bucket. So writers have `capacity / (1 - garbage) + bucket`, and compaction, one bucket at a time, one bucket more. A
writer for whose objects there is no room waits until there is: nothing that it could wait for waits for it, as it takes
its places all at once, and whoever has places does not wait for others.
"""

import errno
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvbench.units import SECTOR_BYTES


def writers_bytes(capacity_bytes: int, bucket_bytes: int, garbage: float) -> int:
    """What `capacity_bytes` of live objects and their garbage take at most, without what compaction needs."""
    return math.ceil(capacity_bytes / (1 - garbage)) + bucket_bytes


def room_bytes(capacity_bytes: int, bucket_bytes: int, garbage: float) -> int:
    """What `capacity_bytes` of live objects take on the filesystem at most."""
    return writers_bytes(capacity_bytes, bucket_bytes, garbage) + bucket_bytes


def capacity_within(room: int, bucket_bytes: int, garbage: float) -> int:
    """How many bytes of live objects `room` bytes are enough for, in whole sectors; 0 where they are too few."""
    capacity = max(0, int((room - 2 * bucket_bytes) * (1 - garbage))) // SECTOR_BYTES * SECTOR_BYTES
    while capacity and room_bytes(capacity, bucket_bytes, garbage) > room:  # for what rounding adds
        capacity -= SECTOR_BYTES
    return capacity


@dataclass(slots=True, eq=False)
class Bucket:
    """A file that objects are appended to."""

    number: int
    descriptor: int
    """To write with; -1 once nothing is written any more."""
    used_bytes: int = 0
    live_bytes: int = 0
    pending: int = 0
    """Places in it that are being written, or will be."""
    users: int = 0
    """Who reads from it now."""
    sealed: bool = False
    """Nothing more is appended."""
    closing: bool = False
    """Its file is closed, or about to be."""
    busy: bool = False
    """It is being compacted or removed."""
    failed: bool = False
    """That went wrong, and is not tried again."""
    places: "dict[int, Place]" = field(default_factory=dict)
    """By key, of what is live."""


@dataclass(slots=True, eq=False)
class Place:
    """Where an object lies."""

    bucket: Bucket
    offset: int
    nbytes: int
    written: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """An object that is to leave a bucket, and the place that it is to have."""

    key: int
    old: Place
    new: Place


class Buckets:
    """Of one rank; any thread may call anything."""

    def __init__(
        self, capacity_bytes: int, bucket_bytes: int, garbage: float, make: Callable[[int], int], where: str = "buckets"
    ) -> None:
        """`make(number)` makes the file of a bucket and returns the descriptor to write with; it may raise OSError.
        `where`: for messages."""
        self._capacity_bytes = capacity_bytes
        self._bucket_bytes = bucket_bytes
        self._garbage = garbage
        self._writers_bytes = writers_bytes(capacity_bytes, bucket_bytes, garbage)
        self._room_bytes = room_bytes(capacity_bytes, bucket_bytes, garbage)
        self._make = make
        self._where = where
        self._changed = threading.Condition()
        self._places: dict[int, Place] = {}
        self._open: Bucket | None = None
        self._made = 0
        self._in_flight = 0
        """Places that are being written, readers, chores, and files to be closed."""
        self._moving = False
        self._empty: dict[Bucket, None] = {}
        self._garbage_due: dict[Bucket, None] = {}
        self._to_close: list[Bucket] = []
        self._with_descriptor: dict[Bucket, None] = {}
        self.used_bytes = 0
        """Of all buckets that were not removed."""
        self.live_bytes = 0

    # Writing

    def reserve(self, sizes: Mapping[int, int]) -> bool:
        """Give each object (its bytes, by key) a place, unless it has one that nothing was written to; False, and
        nothing is done, where there is no room now. Raises OSError where there never will be."""
        with self._changed:
            fresh = self._without_place(sizes)
            nbytes = sum(fresh.values())
            if not self._fits(nbytes):
                return False
            freed = sum(place.nbytes for place in map(self._places.get, fresh) if place is not None)
            largest = max(fresh.values(), default=0)
            if largest > self._bucket_bytes or self.live_bytes - freed + nbytes > self._capacity_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._where)
            for key, size in fresh.items():
                self._forget(key)
                place = self._append(size)
                place.bucket.live_bytes += size
                self.live_bytes += size
                self._places[key] = place.bucket.places[key] = place
            return True

    def wait(self, sizes: Mapping[int, int], seconds: float) -> bool:
        """Wait until something changes, but no longer than `seconds`; False where nothing will, and there is no
        room."""
        with self._changed:
            if self._fits(sum(self._without_place(sizes).values())) or self._has_due():
                return True
            if not self._in_flight:
                return False
            self._changed.wait(seconds)
            return True

    def _without_place(self, sizes: Mapping[int, int]) -> dict[int, int]:
        found = ((key, nbytes, self._places.get(key)) for key, nbytes in sizes.items())
        return {key: nbytes for key, nbytes, place in found if place is None or place.written or place.nbytes != nbytes}

    def _fits(self, nbytes: int) -> bool:
        return nbytes == 0 or self.used_bytes + nbytes <= self._writers_bytes

    def _append(self, nbytes: int) -> Place:
        bucket = self._open
        if bucket is None or bucket.used_bytes + nbytes > self._bucket_bytes:
            descriptor = self._make(self._made)
            if bucket is not None:
                bucket.sealed = True
                self._note(bucket)
            bucket = self._open = Bucket(self._made, descriptor)
            self._with_descriptor[bucket] = None
            self._made += 1
        place = Place(bucket, bucket.used_bytes, nbytes)
        bucket.used_bytes += nbytes
        self.used_bytes += nbytes
        bucket.pending += 1
        self._in_flight += 1
        return place

    def place_of(self, key: int) -> Place | None:
        """Where an object lies, or is to be written."""
        return self._places.get(key)

    def written(self, key: int) -> None:
        """All of an object was written."""
        with self._changed:
            place = self._places.get(key)
            if place is not None and not place.written:
                place.written = True
                self._end_writing(place.bucket)

    def delete(self, key: int) -> bool:
        """Mark an object as deleted; whether there was one."""
        with self._changed:
            return self._forget(key)

    def _forget(self, key: int) -> bool:
        place = self._places.pop(key, None)
        if place is None:
            return False
        bucket = place.bucket
        del bucket.places[key]
        bucket.live_bytes -= place.nbytes
        self.live_bytes -= place.nbytes
        if place.written:
            self._note(bucket)
        else:
            self._end_writing(bucket)
        return True

    def _end_writing(self, bucket: Bucket) -> None:
        bucket.pending -= 1
        self._in_flight -= 1
        self._note(bucket)

    def closing(self) -> list[Bucket]:
        """Buckets that nothing is written to any more, whose files the caller closes; `closed` is told when each is."""
        if not self._to_close:
            return []
        with self._changed:
            found, self._to_close = self._to_close, []
            return found

    def closed(self, bucket: Bucket) -> None:
        """Its file is closed, so that it can be removed: some filesystems keep one that is open under another name."""
        with self._changed:
            bucket.descriptor = -1
            del self._with_descriptor[bucket]
            self._in_flight -= 1
            self._note(bucket)

    def close(self) -> list[int]:
        """The descriptors of all that are not closed yet; nothing is done with the buckets any more."""
        with self._changed:
            found = [bucket.descriptor for bucket in self._with_descriptor]
            self._with_descriptor.clear()
            return found

    # Reading

    def pin(self, key: int) -> Place | None:
        """Where an object lies, in a bucket that stays until `unpin`; None where it is not there."""
        with self._changed:
            place = self._places.get(key)
            if place is not None:
                place.bucket.users += 1
                self._in_flight += 1
            return place

    def unpin(self, place: Place) -> None:
        """It was read."""
        with self._changed:
            place.bucket.users -= 1
            self._in_flight -= 1
            self._note(place.bucket)

    # Chores

    def _note(self, bucket: Bucket) -> None:
        """Something about `bucket` changed: what is to be done with it now?"""
        self._garbage_due.pop(bucket, None)
        if bucket.sealed and not bucket.pending and not bucket.closing:
            bucket.closing = True
            self._to_close.append(bucket)
            self._in_flight += 1
        if bucket.descriptor < 0 and not (bucket.busy or bucket.failed):
            dead_bytes = bucket.used_bytes - bucket.live_bytes
            if not bucket.live_bytes:
                if not bucket.users:
                    self._empty[bucket] = None
            elif dead_bytes > self._garbage * bucket.used_bytes:
                self._garbage_due[bucket] = None
        self._changed.notify_all()

    def _movable(self) -> Bucket | None:
        if self._moving:
            return None
        fitting = (each for each in self._garbage_due if self.used_bytes + each.live_bytes <= self._room_bytes)
        return next(fitting, None)

    def _has_due(self) -> bool:
        return bool(self._empty) or self._movable() is not None

    def take_empty(self) -> Bucket | None:
        """A bucket that is to be removed, by nobody else; `removed` is told when it was."""
        if not self._empty:
            return None
        with self._changed:
            bucket = next(iter(self._empty), None)
            if bucket is not None:
                del self._empty[bucket]
                bucket.busy = True
                self._in_flight += 1
            return bucket

    def removed(self, bucket: Bucket, done: bool = True) -> None:
        """It is gone, or could not be removed."""
        with self._changed:
            self._in_flight -= 1
            if done:
                self.used_bytes -= bucket.used_bytes
            else:
                bucket.failed = True
            self._changed.notify_all()

    def take_garbage(self) -> tuple[Bucket, list[Move]] | None:
        """A bucket that is to be compacted, by nobody else, and where what is live in it is to go, in the order in
        which it lies; `moved` is told when it was. One at a time. Raises OSError where no bucket can be made."""
        if not self._garbage_due:
            return None
        with self._changed:
            bucket = self._movable()
            if bucket is None:
                return None
            del self._garbage_due[bucket]
            moves: list[Move] = []
            bucket.busy = self._moving = True
            self._in_flight += 1
            try:
                for key, old in sorted(bucket.places.items(), key=lambda item: item[1].offset):
                    moves.append(Move(key, old, self._append(old.nbytes)))
            except OSError:
                self._settle(bucket, moves, done=False, again=False)
                raise
            return bucket, moves

    def moved(self, bucket: Bucket, moves: Sequence[Move], done: bool, again: bool = True) -> None:
        """Objects lie where they were to go, if `done`; else they stay where they were, to be tried `again` or not."""
        with self._changed:
            self._settle(bucket, moves, done, again)

    def _settle(self, bucket: Bucket, moves: Sequence[Move], done: bool, again: bool) -> None:
        bucket.busy = self._moving = False
        bucket.failed = not (done or again)
        self._in_flight -= 1
        for move in moves:
            # What was deleted or written anew meanwhile is garbage where it went, too.
            if done and self._places.get(move.key) is move.old:
                del bucket.places[move.key]
                bucket.live_bytes -= move.old.nbytes
                move.new.written = True
                move.new.bucket.live_bytes += move.new.nbytes
                self._places[move.key] = move.new.bucket.places[move.key] = move.new
            self._end_writing(move.new.bucket)
        self._note(bucket)
