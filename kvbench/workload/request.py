"""What a user asks of the cache: the vocabulary between the workload and the engine. No storage, no time keeping."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

QOS_CLASSES = ("interactive", "responsive", "batch")
"""Priority falls from left to right; a request's `qos` is an index into this."""


class ObjectRef(NamedTuple):
    """One stored object: a whole entry, or one block of it."""

    key: int
    """64-bit unsigned; the same key is the same content on every rank."""
    tokens: int


class Chain(NamedTuple):
    """The blocks of a context, and of the answer where it is known what that says, as a serving engine names them."""

    keys: NDArray[np.uint64]
    """(n,) Each stands for all before it too: equal keys are equal contexts up to the end of the block. Those of the
    context, and then those of the answer; a block that is of both has a key as the context leaves it, and another."""
    block_tokens: int
    """Of every block; the last may hold fewer, and takes the room of a whole one."""
    lookup: int
    """The first so many are looked up: those of the context."""
    stored: int
    """Of the first so many, those that no tier holds are written: all, those of the context, or none."""
    time_ns: int
    """By the clock of the workload, however fast requests really follow each other."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one user.

    The engine reads what survives of `history`, then for each object of `context` reads it if it is cached (a prefix
    hit) and writes it otherwise, then reads `context` `decode_passes` times.
    """

    number: int
    """Unique in the rank, in schedule order; for a trace, the request's number in the whole trace."""
    user: int
    qos: int
    arrival_ns: int
    """Open loop: intended start after the start of the clock. Closed loop: think time before this request. As fast as
    possible: 0."""
    context_tokens: int
    output_tokens: int
    history: tuple[ObjectRef, ...]
    """Objects of earlier turns, read where they survive; one that does not is a miss and is not written again."""
    context: tuple[ObjectRef, ...]
    prefill: bool
    """Objects of `context` that are not cached are written (prefill). If False they are misses (decode only)."""
    decode_passes: int
    """How often the whole of `context` is read after it is there; 0 for prefill only."""
    generation_ns: int
    """Simulated generation time of the whole output, spent in equal parts after each decode pass (0: none)."""
    decode_elsewhere: bool = False
    """The decode passes are another rank's, which is told when this rank has done the rest."""
    handed_over: bool = False
    """Nothing but the decode passes: the rest was another rank's."""
    in_steps: bool = False
    """One operation after the other, each decided when it is its turn. What is still being written is not there yet,
    the context is not looked up before it is written, and one that is gone when it is first to be decoded is written
    again and not read. False: everything is decided when the request starts."""
    prompt_tokens: int = 0
    """With `in_steps`: tokens of a system prompt that is looked up first. Nobody ever writes it."""
    followers: Callable[[], "Sequence[Request]"] | None = field(default=None, compare=False)
    """Closed within a session: what follows in it, each with an `arrival_ns` that counts from the end of this request;
    nothing: the session is over. Called once, when this request has ended."""
    prefetch: bool = False
    """Nobody asks for anything: the blocks of `chain` are brought up for a turn that is expected. It has the number of
    the turn before."""
    chain: Chain | None = field(default=None, compare=False)
    """Where the request is served as an engine does it: it looks its context up as a chain, up to the first block that
    is missing, reads what was found once, and writes the others. `history` and `context` are then empty."""


class Schedule(Protocol):
    """A rank's requests. The same (configuration, seed, rank, size) gives the same requests on every machine."""

    @property
    def users(self) -> int:
        """Streams of requests; 1 where users are not told apart in time (open loop, as fast as possible)."""

    @property
    def closed_loop(self) -> bool:
        """True: one stream per user, a user's next request follows the end of the last by its think time."""

    def stream(self, user: int) -> Iterator[Request]:
        """Requests of one stream in order; may be endless. Calling it again starts again from the first."""

    def preconditioning(self) -> Iterator[ObjectRef]:
        """Objects to be written before the clock starts, in order (decode only; empty otherwise)."""

    def largest_object_tokens(self) -> int:
        """The most tokens that one object of this schedule can have."""
