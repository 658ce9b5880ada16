"""The users of the reference tool, with its rules for what they ask: the same requests in every run, on every machine.

Rules and figures are those of mlcommons/storage `kv_cache_benchmark`. A user sends requests at its own times and does
not wait for answers (open loop), so that more wait than are carried out where the storage does not keep up. Each user
draws from a stream of its own, seeded by (seed + rank, user). This module does not wait, and knows nothing of where
objects are kept; who goes first among those that wait is the dispatcher's business.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from kvbench.config.run_config import ReferenceWorkload, RunConfig
from kvbench.workload.demand import qos_class
from kvbench.workload.draws import Draws, stream_generator
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.personas import PERSONAS, Persona
from kvbench.workload.request import ObjectRef, Request

SYSTEM_PROMPT_TOKENS: Final = (5, 9, 6)
"""Lengths of the three system prompts."""


@dataclass(frozen=True, slots=True)
class ReferenceUser:
    """What stays the same about a user for the whole run."""

    persona: Persona
    length_tokens: int
    """Contexts are drawn from a quarter of this to the whole."""
    output_tokens: int
    """Generated tokens are drawn from a quarter of this to the whole."""
    think_ns: int
    """Times between requests are drawn from 0.8 to 1.2 of this."""
    qos: int


class ReferenceSchedule:
    """The requests of one rank's users (implements `request.Schedule`), one endless stream in the order of arrival."""

    users = 1
    closed_loop = False

    def __init__(self, config: RunConfig, rank: int) -> None:
        """`config.workload` must be a ReferenceWorkload. The number of ranks changes nothing for the users of one."""
        if not isinstance(config.workload, ReferenceWorkload):
            raise TypeError("ReferenceSchedule needs a configuration whose workload is reference")
        self._workload = config.workload
        self._seed = config.seed + rank
        self._rank = rank

    def stream(self, user: int) -> Iterator[Request]:
        """The requests of all users by arrival, of two at the same nanosecond the lower user's first."""
        if user != 0:
            raise IndexError(f"no stream {user}: there is 1")
        streams = (self.requests_of(each) for each in range(self._workload.users))
        for number, request in enumerate(heapq.merge(*streams, key=lambda request: (request.arrival_ns, request.user))):
            yield replace(request, number=number)

    def preconditioning(self) -> Iterator[ObjectRef]:
        """Nothing: the cache is empty at the start."""
        return iter(())

    def largest_object_tokens(self) -> int:
        """The length of the longest user: no entry is larger."""
        return max(self.user(user).length_tokens for user in range(self._workload.users))

    def user(self, user: int) -> ReferenceUser:
        """What stays the same about user number `user` of this rank."""
        return self._begin(user)[1]

    def _begin(self, user: int) -> tuple[Draws, ReferenceUser]:
        draws = Draws(stream_generator(self._seed, user))
        persona = PERSONAS[draws.below(len(PERSONAS))]
        return draws, ReferenceUser(
            persona=persona,
            length_tokens=draws.between(*persona.length_tokens),
            output_tokens=draws.between(*persona.output_tokens),
            think_ns=draws.between(*persona.think_ns),
            qos=qos_class(draws.below(100)),
        )

    def requests_of(self, user: int) -> Iterator[Request]:
        """The endless requests of one user; `arrival_ns` counts from the start, `number` within the user."""
        workload = self._workload
        draws, profile = self._begin(user)
        arrival_ns = number = conversation = 0
        history: tuple[ObjectRef, ...] = ()
        while True:
            arrival_ns += draws.between(profile.think_ns * 8 // 10, profile.think_ns * 12 // 10)
            ends = draws.chance(workload.end_probability)
            if history and (ends or len(history) >= workload.max_turns):
                conversation, history = conversation + 1, ()
            whole_tokens = draws.between(profile.length_tokens // 4, profile.length_tokens)
            output_tokens = draws.between(profile.output_tokens // 4, profile.output_tokens)
            prompted = draws.chance(workload.system_prompt_probability)
            prompt = SYSTEM_PROMPT_TOKENS[draws.below(len(SYSTEM_PROMPT_TOKENS))]
            prompt_tokens = prompt if prompted else 0
            context_tokens = whole_tokens - prompt_tokens
            key = object_key(KeyKind.REFERENCE_TURN, self._rank, user, conversation, len(history))
            entry = ObjectRef(key, context_tokens)
            yield Request(
                number=number,
                user=user,
                qos=profile.qos,
                arrival_ns=arrival_ns,
                context_tokens=context_tokens,
                output_tokens=output_tokens,
                history=history,
                context=(entry,),
                prefill=True,
                # The phase follows from the context before the system prompt is taken off.
                decode_passes=decode_reads(workload, whole_tokens, output_tokens),
                generation_ns=round(output_tokens * workload.generation_ms_per_token * 1e6),
                in_steps=True,
                prompt_tokens=prompt_tokens,
            )
            history += (entry,)
            number += 1


def decode_reads(workload: ReferenceWorkload, context_tokens: int, output_tokens: int) -> int:
    """How often a request reads its entry back: not at all where its context is prefill only; else once, and then once
    for each started interval of generated tokens, at least once."""
    if context_tokens >= workload.prefill_only_tokens:
        return 0
    return 1 + max(1, -(-output_tokens // workload.decode_interval_tokens))
