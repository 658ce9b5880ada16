"""A kind of tier, `slow`, that takes the time it is told to: for checks of what is predicted against what is true.

Objects lie in the memory of the process. A read sleeps for `DELAYS.device_s`, or until a shared line of
`DELAYS.bytes_per_s` has carried it (which is device time), and keeps a processor busy for `host_ns` and `copy_ns`.
"""

import threading
import time
from dataclasses import dataclass

from kvbench import timed_io
from kvbench.config.names import TierKind
from kvbench.records.schema import Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.kinds import Kind, register
from kvbench.tiers.transfer import Cell, Part


@dataclass
class Delays:
    """What a read takes."""

    device_s: float = 0.0
    bytes_per_s: float = 0.0
    """0: no limit."""
    host_ns: int = 0
    copy_ns: int = 0
    """Besides; accounted as a copy."""


DELAYS = Delays()
"""Of every read that begins."""


class Line:
    """Carries one object after the other."""

    def __init__(self) -> None:
        self._lock, self._free_s = threading.Lock(), 0.0

    def carry(self, nbytes: int) -> None:
        """Wait until `nbytes` have come, behind all that were asked for before."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + nbytes / DELAYS.bytes_per_s
            until_s = self._free_s
        time.sleep(max(0.0, until_s - time.monotonic()))


class SlowTier(Tier):
    kind, storage, read_path, write_path = "slow", True, Path.BUFFERED, Path.BUFFERED

    def __init__(self) -> None:
        self._objects: dict[int, bytearray] = {}
        self._line = Line()

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        with cell.around_python(part) as span:
            content = self._objects.setdefault(key, bytearray()) if part.offset else bytearray()
            for start, length in source.extents.tolist():
                content += source.buffer.data[start : start + length]
            self._objects[key] = content
            span.nbytes = int(source.extents[:, 1].sum())
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        with cell.around_python(part) as span:
            content, at = memoryview(self._objects[key]), part.offset
            for start, length in target.extents.tolist():
                target.buffer.data[start : start + length] = content[at : at + length]
                at += length
            span.nbytes = at - part.offset
            if DELAYS.device_s:
                time.sleep(DELAYS.device_s)
            if DELAYS.bytes_per_s:
                self._line.carry(span.nbytes)
            timed_io.spend_cpu(DELAYS.host_ns)
            span.copy_ns = timed_io.spend_cpu(DELAYS.copy_ns) if DELAYS.copy_ns else 0
        return -1, target

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python():
            del self._objects[key]


register(
    "slow",
    Kind(lambda area, settings: SlowTier()),
    TierKind(storage=True, has_target=False, keeps_bytes=True, shared=False),
)
