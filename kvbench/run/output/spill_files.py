"""Where a rank's spill file lies, and what stands in it beside the rows: all that `recovery` needs for a run file.

Every function works for one rank alone. `records.spill` writes the file and `records.spill_reader` reads it; neither
knows what the header and the facts mean, which is told here.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.cluster.clock import ClockReading, CommonClock
from kvbench.cluster.gather import as_columns
from kvbench.cluster.node import Filesystem, filesystem_of
from kvbench.errors import KvbenchError
from kvbench.records.spill.writer import SpillWriter
from kvbench.run.sampler import SAMPLE_DTYPE

SUFFIX: Final = ".spill"
_USUAL_PLACES: Final = ("/var/tmp", tempfile.gettempdir, "/dev/shm")

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


@dataclass(frozen=True, slots=True)
class SpillOrder:
    """What the user asked for; `directory` None: a usual place."""

    wanted: bool = True
    directory: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """To travel with the plan."""
        return {"wanted": self.wanted, "directory": None if self.directory is None else str(self.directory.absolute())}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SpillOrder":
        """What `to_json` gave."""
        directory = content["directory"]
        return cls(content["wanted"], None if directory is None else Path(directory))


@dataclass(frozen=True, slots=True)
class SpillPlace:
    """The directory that a node's spill files are made in."""

    directory: Path
    filesystem: Filesystem


def find_place(order: SpillOrder, tested: Path | None) -> SpillPlace | None:
    """Where this node's spill files go: as ordered, or the first usual place that is not on the filesystem of `tested`
    (the directory under test, if there is one) and can be written. None: nowhere, or not wanted.

    Raises KvbenchError when the ordered directory is no good.
    """
    if not order.wanted:
        return None
    if order.directory is not None:
        return _ordered_place(order.directory, tested)
    for directory in _usual_places():
        if os.access(directory, os.W_OK | os.X_OK) and directory.is_dir():
            place = SpillPlace(directory, filesystem_of(directory))
            if not _same_filesystem(place, tested):
                return place
    return None


def _ordered_place(directory: Path, tested: Path | None) -> SpillPlace:
    if not directory.is_dir():
        raise KvbenchError(
            f"the directory {directory} for spill files does not exist; make it, or give another --spill"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise KvbenchError(f"the directory {directory} for spill files cannot be written; give another with --spill")
    place = SpillPlace(directory, filesystem_of(directory))
    if _same_filesystem(place, tested):
        raise KvbenchError(
            f"the directory {directory} for spill files is on the filesystem under test "
            f"({place.filesystem.kind} at {place.filesystem.mount_point}), which writing there would disturb: give one "
            "on another filesystem with --spill"
        )
    return place


def _usual_places() -> Iterable[Path]:
    for place in _USUAL_PLACES:
        yield Path(place if isinstance(place, str) else place())


def _same_filesystem(place: SpillPlace, tested: Path | None) -> bool:
    """The same device number, or (subvolumes have their own) the same block device or export."""
    if tested is None:
        return False
    if place.directory.stat().st_dev == tested.stat().st_dev:
        return True
    mine, other = place.filesystem.device, filesystem_of(tested).device
    return mine == other and (mine.startswith("/") or ":" in mine)


def spill_path(directory: Path, run_id: str, rank: int | str) -> Path:
    """The file of `rank`; `*` for those of all ranks."""
    return directory / f"kvbench-{run_id}-rank-{rank}{SUFFIX}"


def open_spill(place: SpillPlace, header: SpillHeader, pulse: Callable[[], Mapping[str, Any]]) -> SpillWriter:
    """Make this rank's spill file. Raises KvbenchError naming it and what is wrong."""
    path = spill_path(place.directory, header.run_id, header.rank)
    try:
        return SpillWriter(path, json.loads(header.model_dump_json()), SAMPLE_DTYPE, pulse)
    except OSError as error:
        raise KvbenchError(
            f"cannot make the spill file {path}: {error.strerror}; give another directory with --spill, or --no-spill"
        ) from error
