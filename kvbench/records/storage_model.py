"""A storage in a file: how long its operations take, as they depend on what is done, on the size, and on how much is in
flight; with the range that was measured and where it was.

What a file says is a server whose speed depends on its load. All operations in flight advance at the same time.
Where n are in flight, one of a kind and size advances at 1 / seconds(n) of its work a second; its work is drawn from a
distribution whose mean is 1. So `seconds(n)` is how long one takes on average that has n - 1 others beside it from its
start to its end. (Processor sharing with a load-dependent rate: Cohen, The multiple phase service network with
generalized processor sharing, Acta Informatica 12, 1979.)

The file is JSON, of one line, that begins with its mark and the version of its format. Here are the file and what it
says between the points that were measured; `kvbench_analysis.storage_model` makes one from run files.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvbench.records.outputs import Kind
from kvbench.records.reader import KvbenchError

FORMAT: Final = 1
_MARK: Final = "kvbench_storage_model"
STORAGE_MODEL: Final = Kind("a storage model", (f'{{"{_MARK}":'.encode(),))
_MOST_BYTES: Final = 256 * 2**20

PROBABILITIES: Final = (
    0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
    0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 0.9975, 0.999, 1.0,
)  # fmt: skip
"""Of the quantiles of works."""

STATIONS: Final = ("storage", "memory", "client")
"""Where operations take time: on the tier that was measured; on a tier of memory above it, if there was one; and in
kvbench itself, between operations, where those of one rank wait for each other (the interpreter runs one at a time)."""

HAND_IN: Final = "hand-in"
NEXT: Final = "next"
WAKE: Final = "wake"
BETWEEN: Final = "between"
PARTS: Final = (HAND_IN, NEXT, WAKE, BETWEEN)
"""What a worker does at the station `client`: hand in a batch after its last operation; begin the next, or one after it
had waited for work; and what lies between two operations of a batch. Their kind is `STATION OP PART`."""

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Service(_Section):
    """One kind of operation at one size."""

    station: str
    kind: str
    """An operation's name (`read`), or what a worker does between operations."""
    nbytes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """The mean size; 0: it moves nothing."""
    operations: Annotated[int, Field(ge=1)]
    """From which this comes."""
    levels: tuple[_Positive, ...]
    """Rising: the load, operations in flight, itself included; the mean of what stands for each point."""
    most: Annotated[int, Field(ge=1)]
    """The highest number in flight that was measured."""
    seconds: tuple[tuple[_Positive, ...], ...]
    """For each level the mean time; first as it is estimated, then from resamples of what was measured."""
    works: tuple[tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...], ...]
    """For each level, of operations that began there: quantiles of the work, at PROBABILITIES."""
    shares: dict[str, _Share]
    """Of the time, what was `device`, `host` and `runq`; empty where that was not measured of single operations."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        count = len(self.levels)
        if self.station not in STATIONS:
            raise ValueError(f"station {self.station!r} is none of {', '.join(STATIONS)}")
        if not count or any(low >= high for low, high in pairwise(self.levels)):
            raise ValueError("levels do not rise")
        if not self.seconds or any(len(row) != count for row in self.seconds) or len(self.works) != count:
            raise ValueError("seconds and works do not fit the levels")
        for row in self.works:
            if len(row) != len(PROBABILITIES) or any(low > high for low, high in pairwise(row)):
                raise ValueError("works are no quantiles")
        return self


class Source(_Section):
    """A run file that a model comes from."""

    file: str
    run_id: str
    fingerprint: str
    started_at: str
    kvbench_version: str
    name: str
    """Of its configuration."""
    hosts: tuple[str, ...]
    filesystem: str
    mount_options: str
    device: str
    layout: str
    engine: str
    twin: str
    read_path: str
    write_path: str
    sync: str
    ranks: int
    threads: int
    operations: int
    """On the tier, that were used."""


class StorageModel(_Section):
    """All that a file says."""

    kvbench_storage_model: int
    kvbench_version: str
    tier: str
    tier_kind: str
    sources: tuple[Source, ...]
    services: tuple[Service, ...]

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len({len(service.seconds) for service in self.services}) != 1:
            raise ValueError("services have no equal number of resamples")
        keys = [(service.station, service.kind, service.nbytes) for service in self.services]
        if len(set(keys)) < len(keys):
            raise ValueError("a kind of operation stands there twice")
        return self

    @property
    def resamples(self) -> int:
        """How many resamples each time was estimated from, beside the estimate itself."""
        return len(self.services[0].seconds) - 1

    def of(self, station: str, kind: str) -> tuple[Service, ...]:
        """That kind by rising size; none: it was not measured."""
        found = [service for service in self.services if (service.station, service.kind) == (station, kind)]
        return tuple(sorted(found, key=lambda service: service.nbytes))

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode() + b"\n"


def read_storage_model(path: str | Path) -> StorageModel:
    """The model in the file at `path`. Raises KvbenchError: it is another file, of another version, or damaged."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise KvbenchError(f"cannot read {path}: {error.strerror}") from error
    if not STORAGE_MODEL.begins(content[:64]):
        what = "a run file (fit one from it: kvbench model fit)" if content.startswith(b"\x89HDF") else "another file"
        raise KvbenchError(f"{path} is no storage model but {what}: give what `kvbench model fit` has written")
    try:
        if len(content) > _MOST_BYTES:
            raise ValueError("it is too long")
        facts: Any = json.loads(content)
        version = facts[_MARK]
    except (ValueError, RecursionError) as error:
        raise KvbenchError(f"{path} is damaged: {error}; fit it again, or copy it again") from error
    if version != FORMAT:
        raise KvbenchError(
            f"{path} is a storage model of format {version!r}, and this kvbench reads format {FORMAT}: use the version "
            "of kvbench that wrote it, or fit it again from the run files"
        )
    try:
        return StorageModel.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = f"{where + ': ' if where else ''}{first['msg']}"
        raise KvbenchError(f"{path} is damaged: {reason}; fit it again, or copy it again") from error


@dataclass(frozen=True)
class Times:
    """What a model says of one kind of operation at one size, for every number in flight."""

    seconds: NDArray[np.float64]
    """(draws, n) Mean time where 1 to n are in flight."""
    works: NDArray[np.float64]
    """(n, quantiles) Of those that begin then."""
    most: int
    """The highest number in flight that was measured; behind it each gets its part of what all got there."""


def times_at(services: Sequence[Service], nbytes: float, most: int) -> Times:
    """Of `services` (one kind, by rising size, at least one) at a size, for up to `most` in flight.

    Between two sizes the logarithm of the time is linear in the logarithm of the size, and works are mixed likewise.
    Between two levels the logarithm of the time is linear in that of the level; below the lowest it is as there. Beyond
    the sizes that were measured the line through the last two goes on, or, where there is but one, time is in
    proportion to size for what moves bytes. Whether that is wanted is for others to say.
    """
    if len(services) == 1:
        only = services[0]
        scale = max(1.0, nbytes) / only.nbytes if only.nbytes else 1.0
        beyond = scale if abs(math.log(scale)) > math.log(SAME_SIZE) else 1.0
        return Times(_by_level(only, most) * beyond, _works_by_level(only, most), only.most)
    sizes = np.array([max(1.0, service.nbytes) for service in services])
    at = int(np.clip(np.searchsorted(sizes, nbytes) - 1, 0, len(sizes) - 2))
    low, high = services[at], services[at + 1]
    share = math.log(max(1.0, nbytes) / sizes[at]) / math.log(sizes[at + 1] / sizes[at])
    seconds = np.exp((1 - share) * np.log(_by_level(low, most)) + share * np.log(_by_level(high, most)))
    inside = min(1.0, max(0.0, share))
    works = (1 - inside) * _works_by_level(low, most) + inside * _works_by_level(high, most)
    return Times(seconds, works, max(low.most, high.most))


SAME_SIZE: Final = 1.1
"""Sizes that differ by less than this factor count as one."""


def sizes_within(services: Iterable[Service], nbytes: float) -> bool:
    """Whether a size lies in the range that was measured."""
    sizes = [service.nbytes for service in services]
    return min(sizes) / SAME_SIZE <= nbytes <= max(sizes) * SAME_SIZE


def _by_level(service: Service, most: int) -> NDArray[np.float64]:
    """(draws, most) Mean times."""
    numbers = np.arange(1, most + 1, dtype=np.float64)
    known, times = np.log(service.levels), np.log(service.seconds)
    inside = np.array([np.interp(np.log(numbers), known, row) for row in times])
    return np.asarray(np.exp(inside) * np.maximum(1.0, numbers / service.levels[-1]), np.float64)


def _works_by_level(service: Service, most: int) -> NDArray[np.float64]:
    numbers = np.arange(1, most + 1, dtype=np.float64)
    nearest = np.abs(np.log(numbers)[:, None] - np.log(service.levels)[None, :]).argmin(axis=1)
    works: NDArray[np.float64] = np.array(service.works, np.float64)[nearest]
    return works
