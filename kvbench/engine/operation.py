"""What is decided, waits and is carried out: one operation, or many of a request that move equal objects the same way;
and the request that they belong to. Plain state, no decisions.

A `Bundle` is decided, waits and is finished as one: there is no Python object for each of its operations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache import Step
from kvbench.records.schema import Locality, Op, Phase, RequestState
from kvbench.workload.request import Request

_OWN: Final = Locality.OWN


class Next(Enum):
    """What comes next of a request that is decided step by step."""

    STAGE = auto()
    """One more stage, which was decided now."""
    PLACE = auto()
    """Nothing before it has a place for the write of a new entry."""
    NOTHING = auto()
    """It has ended."""


class Operation:
    """A step of the cache's decision, with what it still waits for before it may be carried out.

    There is one for every step, and most of what it could say is said of few: a plain class is made in half the time
    that a dataclass of as many fields takes.
    """

    __slots__ = (
        "alone",
        "done",
        "ended_ns",
        "followers",
        "ghosts",
        "inflight",
        "layer",
        "locality",
        "placed",
        "ready_ns",
        "request",
        "retired",
        "shadows",
        "spoiled",
        "stage",
        "step",
        "tokens",
        "waits_for",
        "wall_ns",
        "writer",
    )

    def __init__(self, step: Step, request: "ActiveRequest", tokens: int, stage: int | None) -> None:
        self.step = step
        self.request = request
        self.tokens = tokens
        self.stage = stage
        """The stage of the request that waits for this operation; None for moves and deletes that only make room."""
        self.layer = 0
        """Number of the group of layers that its object is of, from 1 on; 0: of all."""
        self.waits_for = 0
        """Earlier operations on the key, room on the target tier, and the request's own stage: how many are missing."""
        self.followers: list[Unit] | None = None
        """Operations on the same key that wait for this one."""
        self.shadows: Sequence[Unit] = ()
        """Of a read: those before it on its key that were not done when it was decided."""
        self.ghosts: list[Unit] | None = None
        """Reads that are done, and stand for this one among others until it is too."""
        self.done = False
        self.ready_ns = 0
        """When it was wanted: the intended start of the request, or the end of the stage before."""
        self.inflight = 0
        """Operations in flight on the rank when it began, itself included."""
        self.writer: int | None = None
        """The other rank whose object is read; None where the object is this rank's own."""
        self.locality = _OWN
        """Who wrote the object that is read."""
        self.wall_ns = 0
        """Its wall time, once it was carried out."""
        self.ended_ns = 0
        """End of its timed span, once it was carried out."""
        self.retired = False
        """A delete that other ranks have been told of."""
        self.alone = False
        """A read that no other read of its object may overlap: it would find in the page cache what the other
        brings."""
        self.placed = False
        """A write that got its place among those in flight when it was decided."""
        self.spoiled = False
        """A read that did not give what was written, where that does not end the run."""

    count = 1
    """Operations that it stands for (as a bundle does)."""

    @property
    def room_bytes(self) -> int:
        """What its object takes on its target."""
        return self.step.nbytes

    def goes_with(self, other: "Operation") -> bool:
        """Whether both may be of one batch, if neither waits for anything: what one stage moves the same way."""
        ours, theirs = self.step, other.step
        return (
            self.request is other.request
            and self.stage == other.stage
            and ours.op == theirs.op
            and ours.source == theirs.source
            and ours.target == theirs.target
            and self.writer == other.writer
        )


class Bundle:
    """What one stage of a request (or what makes room for it) moves from one place to another: objects of `nbytes` and
    `tokens` each, none of them twice. What it waits for, all of it waits for, as an `Operation` does."""

    __slots__ = (
        "done", "followers", "ghosts", "keys", "layers", "nbytes", "numbers", "op", "ready_ns", "request", "shadows",
        "source", "stage", "taken", "target", "tokens", "unfinished", "waits_for",
    )  # fmt: skip

    def __init__(
        self,
        op: Op,
        keys: Sequence[int],
        nbytes: int,
        tokens: int,
        places: tuple[int | None, int | None],
        request: "ActiveRequest",
        stage: int | None,
        layers: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """`places`: the tier that the objects leave or are read from, and the one that they come to. `layers`: of each
        object, as of an operation; None: 0."""
        self.op = op
        self.keys = keys
        self.numbers: npt.NDArray[np.uint64] = np.array(keys, np.uint64)
        self.layers = layers
        self.nbytes = nbytes
        self.tokens = tokens
        self.source, self.target = places
        self.request = request
        self.stage = stage
        self.waits_for = 0
        self.followers: list[Operation | Bundle] | None = None
        self.ghosts: list[Operation | Bundle] | None = None
        self.shadows: Sequence[Operation | Bundle] = ()
        self.done = False
        self.ready_ns = 0
        self.taken = 0
        """How many of the objects workers have taken, from the first."""
        self.unfinished = len(keys)
        """How many have not been carried out."""

    @property
    def count(self) -> int:
        """Operations that it stands for."""
        return len(self.keys)

    @property
    def left(self) -> int:
        """Those that no worker has taken."""
        return len(self.keys) - self.taken

    @property
    def room_bytes(self) -> int:
        """What all of it takes on its target."""
        return len(self.keys) * self.nbytes


@dataclass(slots=True, eq=False)
class ActiveRequest:
    """A request whose operations have been decided and not all carried out."""

    request: Request
    phase: Phase
    intended_ns: int
    start_ns: int
    stages: "list[list[Unit]]" = field(default_factory=list)
    stage_delays_ns: list[int] = field(default_factory=list)
    """Simulated generation before each stage."""
    more: Iterator[Next] | None = None
    """Where a request is decided step by step: what comes of each step."""
    computes_at: int = -1
    """The stage that is computed before, on a modelled GPU, and decoded beside; -1: none."""
    waits_at: int = -1
    """The stage after which it waits for the other ranks that serve it, each with its part; -1: for none."""
    prefill_ns: int = 0
    """Modelled: from when it was ready for the GPU until it was computed, its wait for the GPU included."""
    decode_ns: int = 0
    """Modelled."""
    looked_up_at: int = -1
    """The stage before which it is known what there is; -1: it is not served as an engine does it."""
    loaded_at: int = -1
    """The stage before which that has been loaded."""
    look_up_ns: int = -1
    """From its start; -1: it has not come so far."""
    load_ns: int = -1
    """From then on."""
    first_token_ns: int = 0
    """From its intended start, modelled compute included; 0: there is none."""
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

    def note_progress(self, now_ns: int) -> None:
        """Stage `stage` is about to begin: what lies before it is over."""
        if self.stage == self.looked_up_at:
            self.look_up_ns = now_ns - self.start_ns
        if self.stage == self.loaded_at:
            self.load_ns = now_ns - self.start_ns - self.look_up_ns

    def miss_after_all(self, tokens: int) -> None:
        """An object of so many tokens, which was found when it was looked up, is not there to be read."""
        self.hit_objects -= 1
        self.hit_tokens -= tokens
        self.miss_objects += 1
        self.miss_tokens += tokens


Unit = Operation | Bundle
"""What is decided, waits and becomes ready as one."""
