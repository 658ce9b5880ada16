"""What stands in a spill file beside the rows: all that makes a run file of them, checked before it is believed."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.errors import KvbenchError
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.tables import as_columns

SUFFIX: Final = ".spill"


Int = Annotated[int, Field(ge=-(2**61), le=2**61)]


Count = Annotated[int, Field(ge=0, le=2**61)]


Text = Annotated[str, Field(max_length=65536)]


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


Reading = Annotated[list[Int], Field(min_length=4, max_length=4)]


Table = dict[Name, Int | Text]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class SpillHeader(_Checked):
    """What is known of a run and a rank before it starts: the first frame."""

    run_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]
    rank: Count
    ranks: Annotated[int, Field(ge=1, le=2**31)]
    node: Count
    host: Text
    started_at: Text
    attributes: dict[Name, Int | float | Annotated[str, Field(max_length=16 * 1024**2)]]
    """Of the run file."""
    node_row: Table
    """This node's row of /nodes."""
    rank_row: Table
    """What this rank's row of /ranks holds of what does not depend on the load."""
    directory_row: Table = {}
    """This rank's row of /directories, where ranks have some of their own."""


class Calibration(_Checked):
    """A row of /calibration."""

    rank: Count
    node: Count
    kind: Text
    mode: Text
    gib_per_s: float


class SpillFacts(_Checked):
    """What became known while the run went on; None or empty: not yet. Times are on the clock of the rank's node."""

    clock_before: Reading | None = None
    clock_after: Reading | None = None
    """A `ClockReading`, as a list."""
    measure_start_ns: Int | None = None
    calibration: Annotated[list[Calibration], Field(max_length=1000)] = []
    t_ns: Int = 0
    """When the rank was last seen alive."""
    verified_sectors: Count = 0
    too_large_objects: Count = 0
    retried_requests: Count = 0
    peak_rss_bytes: Count = 0
    ended: Text = ""
    """`complete`, `interrupted` or `failed`: the load had ended on this rank, so that no row is missing."""
    failures: Annotated[list[Text], Field(max_length=1000)] = []
    stopped: Text = ""
    """Why the file could not be written any more: rows that came later were in memory alone."""

    def clock(self) -> CommonClock | None:
        """The line from the node's clock to rank 0's; without a reading after the run it has no drift."""
        if self.clock_before is None:
            return None
        before = ClockReading(*self.clock_before)
        return CommonClock(before, before if self.clock_after is None else ClockReading(*self.clock_after))


def reading_as_list(reading: ClockReading) -> list[int]:
    """How a reading stands among the facts."""
    return list(asdict(reading).values())


def calibration_as_list(rows: npt.NDArray[np.void]) -> list[dict[str, Any]]:
    """How rows of CALIBRATION_DTYPE stand among the facts."""
    columns = as_columns(rows)
    lists = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def checked_header(path: Path, content: Mapping[str, Any]) -> SpillHeader:
    """`content` of the first frame of `path`. Raises KvbenchError naming what is wrong with it."""
    try:
        header = SpillHeader.model_validate(content)
    except ValidationError as error:
        raise KvbenchError(f"{path} is damaged: its header is none of kvbench's: {_first(error)}") from error
    if header.rank >= header.ranks:
        raise KvbenchError(f"{path} is damaged: it is of rank {header.rank} of {header.ranks}")
    return header


def checked_facts(path: Path, content: Mapping[str, Any]) -> SpillFacts:
    """The facts that frames of `path` gave together. Raises KvbenchError naming what is wrong with them."""
    try:
        return SpillFacts.model_validate(content)
    except ValidationError as error:
        raise KvbenchError(f"{path} is damaged: it holds facts that are none of kvbench's: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))[:100]}: {problem['msg'][:200]}"


def spill_path(directory: Path, run_id: str, rank: int | str) -> Path:
    """The file of `rank`; `*` for those of all ranks."""
    return directory / f"kvbench-{run_id}-rank-{rank}{SUFFIX}"
