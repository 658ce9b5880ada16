"""Simulated users: think times, contexts and multi-turn conversations, drawn anew and alike on every machine.

Figures are the defaults of the reference workload (mlcommons/storage kv_cache_benchmark). Each user draws from a stream
of its own, seeded by (seed + rank, user), so that a user's requests depend neither on the other users nor on timing nor
on the pacing. This module does not wait, and knows nothing of where objects are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from typing import Final, Literal

from kvbench.config.run_config import PersonaWorkload, RunConfig
from kvbench.workload.demand import phases, piece_tokens, qos_class
from kvbench.workload.draws import UNIT, Draws, stream_generator
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.request import ObjectRef, Request

PersonaName = Literal["chatbot", "coding", "document"]


@dataclass(frozen=True, slots=True)
class Persona:
    """Ranges of one kind of user, both ends included."""

    name: PersonaName
    length_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    think_ns: tuple[int, int]


PERSONAS: Final = (
    Persona("chatbot", (512, 4096), (50, 200), (100_000_000, 500_000_000)),
    Persona("coding", (4096, 25_000), (100, 500), (200_000_000, 1_000_000_000)),
    Persona("document", (4096, 16_384), (200, 800), (300_000_000, 1_500_000_000)),
)


@dataclass(frozen=True, slots=True)
class User:
    """What stays the same about a user for the whole run."""

    persona: Persona
    length_tokens: int
    """Contexts are drawn from a quarter of this to the whole."""
    qos: int


def users_per_persona(workload: PersonaWorkload) -> dict[PersonaName, int]:
    """A rank's users of each persona: shares of `mix` by largest remainder, ties in the order of `PERSONAS`."""
    weights = {persona.name: Fraction(workload.mix.get(persona.name, 0.0)) for persona in PERSONAS}
    total = sum(weights.values())
    quotas = {name: weight * workload.users / total for name, weight in weights.items()}
    users = {name: int(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: users[name] - quotas[name])
    for name in by_remainder[: workload.users - sum(users.values())]:
        users[name] += 1
    return users


class PersonaSchedule:
    """The requests of one rank's users (implements `request.Schedule`); every stream is endless.

    Closed loop: one stream per user. Open loop and as fast as possible: one stream, users taken in turn; a user makes
    the same requests in either. A request's number is (requests of this user before it) x users + user in all of them.
    """

    def __init__(self, config: RunConfig, rank: int) -> None:
        """`config.workload` must be a PersonaWorkload. The number of ranks changes nothing for the users of one."""
        if not isinstance(config.workload, PersonaWorkload):
            raise TypeError("PersonaSchedule needs a configuration whose workload is personas")
        self._config = config
        self._workload = config.workload
        self._rank = rank
        self._block_tokens = config.cache.block_tokens if config.cache.layout == "block" else None
        shares = users_per_persona(config.workload)
        self._personas = [persona for persona in PERSONAS for _ in range(shares[persona.name])]

    @property
    def users(self) -> int:
        """The rank's users in closed loop, otherwise 1."""
        return len(self._personas) if self.closed_loop else 1

    @property
    def user_count(self) -> int:
        """The rank's users, in any pacing. User of a request: its number modulo this."""
        return len(self._personas)

    @property
    def closed_loop(self) -> bool:
        """Whether requests wait for the one before (pacing `closed`)."""
        return self._config.pacing.mode == "closed"

    def stream(self, user: int) -> Iterator[Request]:
        """The endless stream of one user (closed loop), or of all users in turn (`user` 0). Raises IndexError."""
        if not 0 <= user < self.users:
            raise IndexError(f"no stream {user}: there are {self.users}")
        return self.requests_of(user) if self.closed_loop else self._merged()

    def preconditioning(self) -> Iterator[ObjectRef]:
        """Mode `decode`: the objects of every user's entries, user by user. Otherwise nothing."""
        if self._workload.mode != "decode":
            return
        for user in range(len(self._personas)):
            draws, profile = self._begin(user)
            for _, entry in self._entries(draws, profile, user):
                yield from entry

    def largest_object_tokens(self) -> int:
        """The length of the longest user, or a block if that is less: no object is larger."""
        longest = max(self.user(user).length_tokens for user in range(len(self._personas)))
        return longest if self._block_tokens is None else min(longest, self._block_tokens)

    def user(self, user: int) -> User:
        """What stays the same about user number `user` of this rank."""
        return self._begin(user)[1]

    def _begin(self, user: int) -> tuple[Draws, User]:
        draws = Draws(stream_generator(self._config.seed + self._rank, user))
        persona = self._personas[user]
        profile = User(persona, draws.between(*persona.length_tokens), qos_class(draws.below(100)))
        return draws, profile

    def requests_of(self, user: int) -> Iterator[Request]:
        """The endless requests of one user, which are the same in any pacing; `arrival_ns` is the think time."""
        draws, profile = self._begin(user)
        if self._workload.mode == "decode":
            contexts = self._repeated_entries(draws, profile, user)
        else:
            contexts = self._conversations(draws, profile, user)
        scale = self._workload.think_time_scale
        for turn, (context_tokens, history, context) in enumerate(contexts):
            think_ns = draws.between(*profile.persona.think_ns)
            output_tokens = draws.between(*profile.persona.output_tokens)
            prefill, decode_passes, generation_ns = phases(self._workload, context_tokens, output_tokens)
            yield Request(
                number=turn * len(self._personas) + user,
                user=user,
                qos=profile.qos,
                arrival_ns=round(think_ns * scale),
                context_tokens=context_tokens,
                output_tokens=output_tokens,
                history=history,
                context=context,
                prefill=prefill,
                decode_passes=decode_passes,
                generation_ns=generation_ns,
            )

    def _conversations(
        self, draws: Draws, profile: User, user: int
    ) -> Iterator[tuple[int, tuple[ObjectRef, ...], tuple[ObjectRef, ...]]]:
        for conversation in count():
            history: tuple[ObjectRef, ...] = ()
            for turn in range(self._workload.max_turns):
                context_tokens = _draw_context(draws, profile)
                context = self._objects(context_tokens, KeyKind.PERSONA_TURN, user, conversation, turn)
                yield context_tokens, history, context
                history += context
                if draws.chance(self._workload.end_probability):
                    break

    def _entries(self, draws: Draws, profile: User, user: int) -> list[tuple[int, tuple[ObjectRef, ...]]]:
        sizes = [_draw_context(draws, profile) for _ in range(self._workload.entries_per_user)]
        return [
            (tokens, self._objects(tokens, KeyKind.PERSONA_ENTRY, user, entry)) for entry, tokens in enumerate(sizes)
        ]

    def _repeated_entries(
        self, draws: Draws, profile: User, user: int
    ) -> Iterator[tuple[int, tuple[ObjectRef, ...], tuple[ObjectRef, ...]]]:
        entries = self._entries(draws, profile, user)
        while True:
            for tokens, context in entries:
                yield tokens, (), context

    def _objects(self, tokens: int, kind: KeyKind, *place: int) -> tuple[ObjectRef, ...]:
        pieces = [tokens] if self._block_tokens is None else piece_tokens(tokens, self._block_tokens)
        return tuple(
            ObjectRef(object_key(kind, self._rank, *place, block), piece) for block, piece in enumerate(pieces)
        )

    def _merged(self) -> Iterator[Request]:
        streams = [self.requests_of(user) for user in range(len(self._personas))]
        arrivals = self._arrivals()
        while True:
            for stream in streams:
                yield replace(next(stream), arrival_ns=next(arrivals))

    def _arrivals(self) -> Iterator[int]:
        """Poisson arrivals at `requests_per_s` x `speedup`, or always 0 where requests come as fast as possible."""
        rate = self._config.pacing.requests_per_s
        if self._config.pacing.mode != "open" or rate is None:
            while True:
                yield 0
        # Three numbers, so that this stream is none of the users' (which are seeded by two).
        draws = Draws(stream_generator(self._config.seed + self._rank, 0, 1))
        mean_ns = Fraction(10**9) / (Fraction(rate) * Fraction(self._config.pacing.speedup))
        elapsed = 0
        while True:
            elapsed += draws.exponential()
            yield int(mean_ns * elapsed / UNIT)


def _draw_context(draws: Draws, profile: User) -> int:
    return draws.between(max(1, profile.length_tokens // 4), profile.length_tokens)
