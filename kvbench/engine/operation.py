"""One operation that a worker carries out, and the request that it belongs to: plain state, no decisions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from kvbench.cache import Step
from kvbench.records.schema import Locality, Phase, RequestState
from kvbench.workload.request import Request


class Next(Enum):
    """What comes next of a request that is decided step by step."""

    STAGE = auto()
    """One more stage, which was decided now."""
    PLACE = auto()
    """Nothing before it has a place for the write of a new entry."""
    NOTHING = auto()
    """It has ended."""


@dataclass(slots=True, eq=False)
class Operation:
    """A step of the cache's decision, with what it still waits for before it may be carried out."""

    step: Step
    request: "ActiveRequest"
    tokens: int
    stage: int | None
    """The stage of the request that waits for this operation; None for moves and deletes that only make room."""
    waits_for: int = 0
    """Earlier operations on the key, room on the target tier, and the request's own stage: how many are missing."""
    followers: list["Operation"] = field(default_factory=list)
    """Operations on the same key that wait for this one."""
    done: bool = False
    ready_ns: int = 0
    """When it was wanted: the intended start of the request, or the end of the stage before."""
    inflight: int = 0
    writer: int | None = None
    """The other rank whose object is read; None where the object is this rank's own."""
    locality: Locality = Locality.OWN
    """Who wrote the object that is read."""
    ended_ns: int = 0
    """End of its timed span, once it was carried out."""
    retired: bool = False
    """A delete that other ranks have been told of."""
    alone: bool = False
    """A read that no other read of its object may overlap: it would find in the page cache what the other brings."""
    placed: bool = False
    """A write that got its place among those in flight when it was decided."""
    spoiled: bool = False
    """A read that did not give what was written, where that does not end the run."""


@dataclass(slots=True, eq=False)
class ActiveRequest:
    """A request whose operations have been decided and not all carried out."""

    request: Request
    phase: Phase
    intended_ns: int
    start_ns: int
    stages: list[list[Operation]] = field(default_factory=list)
    stage_delays_ns: list[int] = field(default_factory=list)
    """Simulated generation before each stage."""
    more: Iterator[Next] | None = None
    """Where a request is decided step by step: what comes of each step."""
    has_place: bool = False
    """It was given one of the places for writes of new entries, and has not decided on its write yet."""
    stage: int = -1
    left_in_stage: int = 0
    storage_ns: int = 0
    operations: int = 0
    hit_objects: int = 0
    miss_objects: int = 0
    hit_tokens: int = 0
    miss_tokens: int = 0
    state: RequestState = RequestState.DONE
