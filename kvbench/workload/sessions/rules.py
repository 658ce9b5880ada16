"""The parameters of sessions as they are drawn from: tables and whole numbers, made once for a rank."""

from typing import Any, Final, NamedTuple

from kvbench.config.run_config import RunConfig
from kvbench.config.sessions import MOST_TOKENS, SessionsWorkload, SessionTurns, Subagents
from kvbench.errors import KvbenchError
from kvbench.workload.draws import Draws
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.sessions.spreads import Popularity, Table

_S: Final = 10**9
_LONGEST_NS: Final = 2**55
_MOST_TURNS: Final = 2**31
_UNUSED_BITS: Final = 64 - 53
"""Of a name of 64 bits, from which a place of 53 is drawn."""


class Prompt(NamedTuple):
    """A system prompt."""

    name: int
    """64 bits, the same wherever it stands."""
    tokens: int


class Lengths(NamedTuple):
    """What an agent's turns are like."""

    turns: Table
    first_tokens: Table
    new_tokens: Table
    output_tokens: Table


class Rules:
    """What all users of a run have in common. `config.workload` must be a SessionsWorkload."""

    def __init__(self, config: RunConfig) -> None:
        """Raises KvbenchError where a context has no room, or time stands still."""
        workload = config.workload
        if not isinstance(workload, SessionsWorkload):
            raise TypeError("sessions need a configuration whose workload is sessions")
        self.seed = config.seed
        self.unit = workload.id_tokens
        self.sessions = workload.sessions_per_user
        self.start_within_ns = round(workload.start_within_s * _S)
        self.applications = Popularity(workload.applications.number, workload.applications.zipf)
        self.agent = _lengths(workload.turns, workload.turns.number)
        self.subagent = _lengths(workload.subagents, workload.subagents.turns)
        self.subagent_share = workload.subagents.share
        self.own_prompts = workload.subagents.prompt == "own"
        self.tool_ns = Table(workload.think.tool_s, 0, _LONGEST_NS, _S)
        self.person_ns = Table(workload.think.person_s, 0, _LONGEST_NS, _S)
        self.limit_tokens = workload.context.limit_tokens
        self.summary_tokens = Table(workload.context.summary_tokens, 0, MOST_TOKENS)
        self.rewrite_share = workload.context.rewrite_share
        documents = workload.documents
        self.retrieval_share = documents.share
        self.corpus = Popularity(documents.chunks if documents.share else 1, documents.zipf)
        self.top_k = documents.top_k
        self.chunks_in_front = documents.place == "front"
        self._person_share = workload.think.person_share
        self._ns_per_token = workload.generation_ms_per_token * 1e6
        self._prompts = Table(workload.applications.prompt_tokens, 1, MOST_TOKENS)
        self._subagents_prompts = Table(workload.subagents.prompt_tokens, 1, MOST_TOKENS)
        self._chunks = Table(documents.chunk_tokens, 1, MOST_TOKENS)
        self._check()

    def prompt(self, application: int, *, of_subagents: bool = False) -> Prompt:
        """The system prompt of an application, or of its subagents."""
        name = object_key(KeyKind.SESSION_PROMPT, self.seed, application, int(of_subagents))
        table = self._subagents_prompts if of_subagents else self._prompts
        return Prompt(name, table.at(name >> _UNUSED_BITS))

    def chunk_tokens(self, chunk: int) -> int:
        """Of chunk number `chunk` of the corpus, wherever it stands."""
        return self._chunks.at(object_key(KeyKind.SESSION_CHUNK, self.seed, chunk) >> _UNUSED_BITS)

    def gap_ns(self, draws: Draws) -> int:
        """What passes from an answer to the next turn."""
        return (self.person_ns if draws.chance(self._person_share) else self.tool_ns).draw(draws)

    def generation_ns(self, output_tokens: int) -> int:
        """What passes until an answer has ended."""
        return round(output_tokens * self._ns_per_token)

    def _check(self) -> None:
        front = self._prompts.largest
        if self.own_prompts and self.subagent_share:
            front = max(front, self._subagents_prompts.largest)
        if self.retrieval_share:
            front += self.top_k * self._chunks.largest
        if front + 2 > self.limit_tokens:
            raise KvbenchError(
                f"workload.context.limit_tokens: {self.limit_tokens} leave no room for a turn: system prompt and "
                f"documents take up to {front} tokens; give more, or make those smaller"
            )
        if self.sessions is None and not self.person_ns.largest:
            raise KvbenchError(
                "workload.think.person_s: time would stand still where nobody ever thinks; give more than 0, or "
                "workload.sessions_per_user"
            )


def _lengths(section: SessionTurns | Subagents, turns: dict[Any, float]) -> Lengths:
    return Lengths(
        Table(turns, 1, _MOST_TURNS),
        Table(section.first_tokens, 1, MOST_TOKENS),
        Table(section.new_tokens, 1, MOST_TOKENS),
        Table(section.output_tokens, 0, MOST_TOKENS),
    )
