"""What is asked of a run whose parts are to seem faster or slower than they are: one part, and how many times.

No part of a configuration: the same work is done, and the fingerprint is the same. How it is carried out is in
`engine.delays`.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

from kvbench.errors import KvbenchError

Part = Literal["device", "host", "copies", "cores", "nothing"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
MOST: Final = 10.0
"""Times faster, or slower: a run takes so many times as long, and what is not delayed grows in the same measure."""


@dataclass(frozen=True, slots=True)
class VirtualSpeed:
    """`part` is to seem `factor` times as fast (below 1: slower).

    Nothing can be made faster. So where `factor` is above 1 all else is made `factor` times slower, the times at which
    requests come too, and the times of the run are divided by `stretch` (time dilation: D. Gupta et al., DieCast, NSDI
    2008; delays in place of speed: C. Curtsinger and E. Berger, Coz, SOSP 2015). Where it is below 1 the part itself is
    delayed. `nothing`: all is delayed alike, which shows what delays do by themselves.
    """

    part: Part
    factor: float

    def __post_init__(self) -> None:
        """Raises KvbenchError: a factor that is none."""
        if not (1 / MOST <= self.factor <= MOST) or self.factor == 1:
            raise KvbenchError(
                f"{self.part}={self.factor:g}: expected how many times as fast, from {1 / MOST:g} to {MOST:g} and not 1"
            )
        if self.factor < 1 and self.part in ("cores", "nothing"):
            raise KvbenchError(
                f"{self.part}={self.factor:g}: fewer cores need no delays; give the run fewer (taskset -c)"
                if self.part == "cores"
                else f"{self.part}={self.factor:g}: expected more than 1"
            )

    @property
    def stretch(self) -> float:
        """So many times as long as they stand for do all times of the run take, those of `part` included."""
        return max(1.0, self.factor)

    @property
    def device(self) -> float:
        """Of device time, the share that is added to it, off the processor."""
        return self._added("device")

    @property
    def host(self) -> float:
        """Of processor time but for copies, the share that is added to it, on a processor."""
        return 0.0 if self.part == "cores" else self._added("host")

    @property
    def copies(self) -> float:
        """Of copies, likewise."""
        if self.part == "cores" or (self.part == "host" and self.factor > 1):
            return 0.0
        return 1 / self.factor - 1 if self.part == "host" else self._added("copies")

    @property
    def idle(self) -> float:
        """Of processor time, the share that is added to it off the processor: it takes longer, and leaves the
        processor to others as more of them would."""
        return self.factor - 1 if self.part == "cores" else 0.0

    def _added(self, part: Part) -> float:
        if self.factor > 1:
            return 0.0 if part == self.part else self.factor - 1
        return 1 / self.factor - 1 if part == self.part else 0.0

    def to_json(self) -> str:
        """As the run file has it."""
        return json.dumps(asdict(self) | {"stretch": self.stretch})
