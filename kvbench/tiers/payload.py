"""What is written into objects, and the check that it is what comes back. Never runs inside a timed span.

Each sector of 4 KiB begins with a stamp of run, key and sector number. The rest is, for `stamped`, a random body that
is made once; the stamp makes every sector different, which defeats exact deduplication and compression. For `unique`
it is an AES-128-CTR keystream keyed by the run, with the object's key and the position as the counter, which defeats
reduction by similarity too.
"""

import copy
import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench.tiers.arena import Memory, object_phase
from kvbench.tiers.transfer import Memories
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES

STAMP: Final = np.dtype([("run", "<u4"), ("sector", "<u4"), ("key", "<u8")])
"""The first 16 bytes of every sector."""

_STAMP_STRUCT: Final = struct.Struct("<IIQ")
_AES_BLOCK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first sector found that is not what was written; `offset` in bytes from the start of the object."""

    offset: int
    found: tuple[int, int, int]
    expected: tuple[int, int, int]

    def __str__(self) -> str:
        if self.found == self.expected:
            return f"the bytes behind the stamp at offset {self.offset} differ from what was written"
        return (
            f"at offset {self.offset} the stamp is run {self.found[0]:#x}, sector {self.found[1]}, key "
            f"{self.found[2]:#x}; written was run {self.expected[0]:#x}, sector {self.expected[1]}, key "
            f"{self.expected[2]:#x}"
        )


class Payload:
    """Makes and checks the content of objects of one run.

    `run` is 32 bits that tell this run's data from any other's; `seed` makes the body, the same on every rank.
    """

    def __init__(self, kind: Literal["stamped", "unique"], run: int, seed: int) -> None:
        self.run = run & 0xFFFFFFFF
        rng = np.random.Generator(np.random.PCG64(seed))
        self.body: npt.NDArray[np.uint8] = np.frombuffer(rng.bytes(SEGMENT_BYTES), dtype=np.uint8)
        self._unique = kind == "unique"
        self._cipher_key = rng.bytes(12) + self.run.to_bytes(4, "little")
        self._zeros = bytes(SEGMENT_BYTES) if self._unique else b""

    @property
    def is_stamped(self) -> bool:
        """Whether stamps are all that `make` has to write, and `make_each` can do it."""
        return not self._unique

    def make_each(self, memories: Memories, keys: npt.NDArray[np.uint64], nbytes: int) -> None:
        """Fill the memory of whole objects of `nbytes`, each in one extent, as `make` does; only for stamps
        (`is_stamped`)."""
        words, at = _words(memories, np.arange(nbytes // SECTOR_BYTES))
        words[at] = (np.arange(nbytes // SECTOR_BYTES, dtype=np.uint64) << np.uint64(32)) | np.uint64(self.run)
        words[at + 1] = keys[:, np.newaxis]

    def check_each_sampled(
        self, memories: Memories, keys: npt.NDArray[np.uint64], nbytes: int
    ) -> tuple[int, dict[int, Mismatch]]:
        """What `check_sampled` says of whole objects of `nbytes`, each in one extent: sectors checked, and the first
        mismatch of those that have one, by their number."""
        last = nbytes // SECTOR_BYTES - 1
        sectors = np.array(sorted({0, nbytes // 2 // SECTOR_BYTES, last}))
        words, at = _words(memories, sectors)
        expected = (sectors.astype(np.uint64) << np.uint64(32)) | np.uint64(self.run)
        right = (words[at] == expected) & (words[at + 1] == keys[:, np.newaxis])
        checked = right.size
        if right.all():
            return checked, {}
        wrong = np.flatnonzero(~right.all(axis=1)).tolist()
        found = {number: self.check_sampled(memories[number], int(keys[number]), 0)[1] for number in wrong}
        return checked, {number: mismatch for number, mismatch in found.items() if mismatch is not None}

    def written_by(self, run: int) -> "Payload":
        """The payload of another rank of the same run, whose `run` this is; it shares the body."""
        other = copy.copy(self)
        other.run = run & 0xFFFFFFFF
        other._cipher_key = self._cipher_key[:-4] + other.run.to_bytes(4, "little")
        return other

    def make(self, memory: Memory, key: int, offset: int) -> None:
        """Fill `memory` with the content of object `key` from byte `offset` (a multiple of the sector) on.

        For `stamped` the body must already lie there, as it does in an arena made with `body`; only stamps are written.
        """
        for start, length in memory.extents.tolist():
            if self._unique:
                # update_into asks for room for one block more than it writes.
                room = memory.buffer.data[start : start + length + _AES_BLOCK_BYTES]
                self._keystream(key, offset, length, room)
            stamps = _stamps(memory.buffer, start, length)
            first = offset // SECTOR_BYTES
            stamps["run"] = self.run
            stamps["key"] = key
            stamps["sector"] = np.arange(first, first + len(stamps), dtype=np.uint32)
            offset += length

    def check_sampled(self, memory: Memory, key: int, offset: int) -> tuple[int, Mismatch | None]:
        """Compare the stamps of the first, the last and some sectors between; returns sectors checked and the first
        mismatch. `memory` holds the object's bytes from `offset` on."""
        extents = memory.extents.tolist()
        ends = list(accumulate(length for _, length in extents))
        checked = 0
        for index in {0, len(extents) // 2, len(extents) - 1}:
            start, length = extents[index]
            base = offset + ends[index] - length
            for within in {0, (length // 2) // SECTOR_BYTES * SECTOR_BYTES, length - SECTOR_BYTES}:
                found = _STAMP_STRUCT.unpack_from(memory.buffer.data, start + within)
                expected = (self.run, (base + within) // SECTOR_BYTES, key)
                checked += 1
                if found != expected:
                    return checked, Mismatch(base + within, found, expected)
        return checked, None

    def check_stamps(self, memory: Memory, key: int, offset: int) -> tuple[int, Mismatch | None]:
        """Compare the stamp of every sector, likewise."""
        checked = 0
        for start, length in memory.extents.tolist():
            stamps, wrong = self._wrong_stamps(memory.buffer, start, length, key, offset)
            checked += len(stamps)
            if wrong.any():
                sector = int(np.argmax(wrong))
                found = _STAMP_STRUCT.unpack_from(memory.buffer.data, start + sector * SECTOR_BYTES)
                at = offset + sector * SECTOR_BYTES
                return checked, Mismatch(at, found, (self.run, at // SECTOR_BYTES, key))
            offset += length
        return checked, None

    def check_full(self, memory: Memory, key: int, object_bytes: int, offset: int) -> tuple[int, Mismatch | None]:
        """Compare every byte; returns sectors checked and the first mismatch."""
        checked = 0
        for start, length in memory.extents.tolist():
            for done in range(0, length, SEGMENT_BYTES):
                part = min(SEGMENT_BYTES, length - done)
                mismatch = self._check_part(memory.buffer, start + done, part, key, object_bytes, offset + done)
                checked += part // SECTOR_BYTES
                if mismatch:
                    return checked, mismatch
            offset += length
        return checked, None

    def _check_part(
        self, buffer: npt.NDArray[np.uint8], start: int, length: int, key: int, object_bytes: int, offset: int
    ) -> Mismatch | None:
        first = offset // SECTOR_BYTES
        _, wrong = self._wrong_stamps(buffer, start, length, key, offset)
        sectors = buffer[start : start + length].reshape(-1, SECTOR_BYTES)
        body = self._body(key, object_bytes, offset, length).reshape(-1, SECTOR_BYTES)
        wrong |= (sectors[:, STAMP.itemsize :] != body[:, STAMP.itemsize :]).any(axis=1)
        if not wrong.any():
            return None
        sector = int(np.argmax(wrong))
        found = _STAMP_STRUCT.unpack_from(buffer.data, start + sector * SECTOR_BYTES)
        return Mismatch(offset + sector * SECTOR_BYTES, found, (self.run, first + sector, key))

    def _wrong_stamps(
        self, buffer: npt.NDArray[np.uint8], start: int, length: int, key: int, offset: int
    ) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
        """The stamps of the sectors there, and which of them are not those of object `key` from `offset` on."""
        stamps = _stamps(buffer, start, length)
        first = offset // SECTOR_BYTES
        numbers = np.arange(first, first + len(stamps), dtype=np.uint32)
        return stamps, (stamps["run"] != self.run) | (stamps["key"] != np.uint64(key)) | (stamps["sector"] != numbers)

    def _body(self, key: int, object_bytes: int, offset: int, length: int) -> npt.NDArray[np.uint8]:
        if self._unique:
            room = np.empty(length + _AES_BLOCK_BYTES, dtype=np.uint8)
            self._keystream(key, offset, length, room.data)
            return room[:length]
        position = (object_phase(key, object_bytes) + offset) % SEGMENT_BYTES
        return np.concatenate([self.body[position:], self.body[:position]])[:length]

    def _keystream(self, key: int, offset: int, length: int, room: memoryview) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415 - few runs need it

        counter = key.to_bytes(8, "big") + (offset // _AES_BLOCK_BYTES).to_bytes(8, "big")
        encryptor = Cipher(algorithms.AES(self._cipher_key), modes.CTR(counter)).encryptor()
        encryptor.update_into(memoryview(self._zeros)[:length], room)


class Blank(Payload):
    """Writes and checks nothing: for runs in which a tier keeps no bytes, so that nothing read can be verified."""

    def __init__(self, run: int, seed: int) -> None:
        super().__init__("stamped", run, seed)

    def make(self, memory: Memory, key: int, offset: int) -> None:
        """Leave `memory` as it is."""

    def check_sampled(self, memory: Memory, key: int, offset: int) -> tuple[int, Mismatch | None]:
        """Check no sector."""
        return 0, None

    def check_stamps(self, memory: Memory, key: int, offset: int) -> tuple[int, Mismatch | None]:
        """Check no sector."""
        return 0, None

    def check_full(self, memory: Memory, key: int, object_bytes: int, offset: int) -> tuple[int, Mismatch | None]:
        """Check no sector."""
        return 0, None


def _words(memories: Memories, sectors: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The buffer in words of 8 bytes, two of which are a stamp, and where `sectors` of each object begin in it: (n, k)
    for n objects and k sectors."""
    words = memories.buffer[: len(memories.buffer) // 8 * 8].view(np.uint64)
    starts = memories.extents[:, 0] // 8
    return words, starts[:, np.newaxis] + sectors * (SECTOR_BYTES // 8)


def _stamps(buffer: npt.NDArray[np.uint8], start: int, length: int) -> npt.NDArray[np.void]:
    count = length // SECTOR_BYTES
    return np.ndarray((count,), dtype=STAMP, buffer=buffer.data, offset=start, strides=(SECTOR_BYTES,))
