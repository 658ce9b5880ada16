"""Whether a run had a part that was to seem faster or slower than it is: its times are then no plain measurements."""

import json
from dataclasses import dataclass
from typing import Final

from kvbench_analysis.tables.load import Run

from kvbench.records.reader import KvbenchError

ATTRIBUTE: Final = "virtual_speed_json"


@dataclass(frozen=True)
class Virtual:
    """What a run was told."""

    part: str
    factor: float
    """`part` was to seem so many times as fast."""
    stretch: float
    """All times of the run are so many times as long as what they stand for."""

    @property
    def text(self) -> str:
        """For people."""
        what = (
            "everything was delayed alike" if self.part == "nothing" else f"{self.part} {self.factor:g} times as fast"
        )
        return f"a run of `kvbench study whatif` ({what}), full of delays that were put in on purpose"


def virtual_speed(run: Run) -> Virtual | None:
    """None: an ordinary run. Raises KvbenchError: damaged file."""
    text = run.attributes.get(ATTRIBUTE)
    if text is None:
        return None
    try:
        content = json.loads(str(text))
        return Virtual(str(content["part"]), float(content["factor"]), float(content["stretch"]))
    except (ValueError, KeyError, TypeError) as error:
        raise KvbenchError(f"{run.path} is damaged: the attribute {ATTRIBUTE} does not say what was asked") from error
