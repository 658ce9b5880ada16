"""Storage with a known limit, for tests of the search: a kind of tier whose reads pass through one pipe.

Each read takes its turn on a pipe that carries `READS_PER_S` of them a second, all threads of the process together, and
ends when its turn is over. Nothing is kept: objects are only remembered. Writes take no time.
"""

import threading
import time

from kvbench.config.names import TIER_KINDS, TierKind
from kvbench.records.schema import Path
from kvbench.tiers.arena import Memory
from kvbench.tiers.contract import Tier
from kvbench.tiers.kinds import KINDS, Kind, register
from kvbench.tiers.transfer import WHOLE, Cell, Part

READS_PER_S = 50.0
"""Few enough that a busy machine is not what limits them."""


class Pipe:
    """One turn after the other, each as long as the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_s = 0.0

    def pass_through(self) -> None:
        """Wait for a turn, and until it is over."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + 1 / READS_PER_S
            until_s = self._free_s
        time.sleep(max(0.0, until_s - time.monotonic()))


class ThrottledTier(Tier):
    kind, storage, holds_bytes, in_parts = "throttled", True, False, False
    read_path, write_path = Path.NONE, Path.NONE

    def __init__(self) -> None:
        self._objects: set[int] = set()
        self._pipe = Pipe()

    def write(self, cell: Cell, key: int, part: Part, source: Memory, handle: int = -1) -> int:
        with cell.around_python(part):
            self._objects.add(key)
        return -1

    def read(self, cell: Cell, key: int, part: Part, target: Memory, handle: int = -1) -> tuple[int, Memory]:
        with cell.around_python(part):
            self._pipe.pass_through()
        return -1, target

    def delete(self, cell: Cell, key: int) -> None:
        with cell.around_python(WHOLE):
            self._objects.discard(key)

    def inspect(self, key: int, offset: int, target: Memory) -> None:
        """Nothing: there is nothing to look at."""


def plug() -> None:
    """Make kvbench know the kind of tier, in this process."""
    if "throttled" not in KINDS:
        register(
            "throttled",
            Kind(lambda area, settings: ThrottledTier()),
            TierKind(storage=True, has_target=False, keeps_bytes=False, shared=False),
        )


def unplug() -> None:
    """Make it forget it again."""
    for table in (KINDS, TIER_KINDS):
        table.pop("throttled", None)
