"""The sessions of one user: when each turn comes, what its context is made of, and how long its answer is.

Everything of a user is drawn from one stream, in the order in which it is needed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from kvbench.workload.draws import Draws, stream_generator
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.sessions.context import Context
from kvbench.workload.sessions.rules import Lengths, Prompt, Rules


class Turn(NamedTuple):
    """A request of a session."""

    arrival_ns: int
    gap_ns: int
    """After the answer before in the session; -1: its first."""
    context_tokens: int
    output_tokens: int
    session: tuple[int, int]
    """Number of the user's session, and of the subagent in it, from 1; 0: the session itself."""
    context: Context
    """Of which its own is the beginning; so is what stands before and in its answer."""


def turns_of(rules: Rules, stream: int, user: int, end_ns: int) -> Iterator[Turn]:
    """The turns of `user` of the rank whose seed is `stream`, before `end_ns`: session after session, and within one
    by time, but for subagents', which stand before the turn that waits for them. Raises KvbenchError."""
    draws = Draws(stream_generator(KeyKind.SESSION_OWN, stream, user))
    at_ns = draws.below(rules.start_within_ns + 1)
    session = 0
    while at_ns < end_ns and (rules.sessions is None or session < rules.sessions):
        made = _Session(rules, draws, (stream, user, session), end_ns)
        yield from made.turns(at_ns)
        at_ns = made.at_ns + rules.person_ns.draw(draws)
        session += 1


class _Session:
    """One session with its subagents."""

    def __init__(self, rules: Rules, draws: Draws, place: tuple[int, int, int], end_ns: int) -> None:
        self._rules = rules
        self._draws = draws
        self._place = place
        self._end_ns = end_ns
        self._subagents = 0
        self.at_ns = 0
        """When its last answer ends, or would have been given."""

    def turns(self, at_ns: int) -> Iterator[Turn]:
        rules, draws = self._rules, self._draws
        application = rules.applications.draw(draws)
        history = _History(rules, draws, rules.prompt(application), (*self._place, 0))
        gap_ns, count = -1, rules.agent.turns.draw(draws)
        self.at_ns = at_ns
        for number in range(count):
            if at_ns >= self._end_ns:
                break
            turn = history.turn(rules.agent, at_ns, gap_ns, first=number == 0)
            ends_ns = at_ns + rules.generation_ns(turn.output_tokens)
            yield turn
            at_ns = ends_ns
            if number + 1 < count and draws.chance(rules.subagent_share):
                for other in self._subagent(application, ends_ns):
                    at_ns = max(at_ns, other.arrival_ns + rules.generation_ns(other.output_tokens))
                    yield other
            at_ns += rules.gap_ns(draws)
            gap_ns = at_ns - ends_ns
            self.at_ns = ends_ns if number + 1 == count else at_ns

    def _subagent(self, application: int, at_ns: int) -> Iterator[Turn]:
        rules, draws = self._rules, self._draws
        self._subagents += 1
        prompt = rules.prompt(application, of_subagents=rules.own_prompts)
        history = _History(rules, draws, prompt, (*self._place, self._subagents))
        gap_ns = -1
        for number in range(rules.subagent.turns.draw(draws)):
            if at_ns >= self._end_ns:
                break
            turn = history.turn(rules.subagent, at_ns, gap_ns, first=number == 0)
            yield turn
            gap_ns = rules.tool_ns.draw(draws)
            at_ns += rules.generation_ns(turn.output_tokens) + gap_ns


class _History:
    """The context of one agent, from turn to turn."""

    def __init__(self, rules: Rules, draws: Draws, prompt: Prompt, place: tuple[int, int, int, int]) -> None:
        self._rules = rules
        self._draws = draws
        self._prompt = prompt
        self._place = place
        self._begun = 0
        self._chunks: tuple[int, ...] = ()
        """In front, behind the system prompt."""
        self._front_tokens = prompt.tokens
        self._context = Context(rules.unit, *prompt)

    def turn(self, lengths: Lengths, at_ns: int, gap_ns: int, *, first: bool) -> Turn:
        """The next turn; its answer is part of the context from then on."""
        rules, draws = self._rules, self._draws
        new = (lengths.first_tokens if first else lengths.new_tokens).draw(draws)
        if draws.chance(rules.retrieval_share):
            new += self._retrieve()
        if not first and draws.chance(rules.rewrite_share):
            self._anew(self._context.tokens - self._front_tokens)
        if self._context.tokens + new > rules.limit_tokens:
            new = self._start_over(new)
        self._own(new)
        tokens = self._context.tokens
        output_tokens = lengths.output_tokens.draw(draws)
        self._own(output_tokens)
        session = self._place[2:]
        return Turn(at_ns, gap_ns, tokens, output_tokens, session, self._context)

    def _retrieve(self) -> int:
        """Bring chunks into the context. Returns the tokens of those that come with the turn as its own."""
        rules = self._rules
        chunks = rules.corpus.different(self._draws, rules.top_k)
        if rules.chunks_in_front:
            if chunks != self._chunks:
                history = self._context.tokens - self._front_tokens
                self._chunks = chunks
                self._front_tokens = self._prompt.tokens + sum(map(rules.chunk_tokens, chunks))
                self._anew(history)
            return 0
        if self._context.own:
            return sum(map(rules.chunk_tokens, chunks))
        self._share(chunks)
        return 0

    def _start_over(self, new: int) -> int:
        """Put a summary in the place of the history. Returns how many of `new` tokens there is then room for."""
        rules = self._rules
        room = rules.limit_tokens - self._front_tokens
        summary = min(rules.summary_tokens.draw(self._draws), room // 2)
        if self._context.own:
            self._anew(summary)
        return min(new, rules.limit_tokens - self._context.tokens)

    def _anew(self, tokens: int) -> None:
        """The same system prompt and chunks, and behind them `tokens` that no cache has."""
        self._begun += 1
        self._context = Context(self._rules.unit, *self._prompt)
        self._share(self._chunks)
        self._own(tokens)

    def _share(self, chunks: tuple[int, ...]) -> None:
        for chunk in chunks:
            name = object_key(KeyKind.SESSION_CHUNK, self._rules.seed, chunk, self._context.name)
            self._context.share(name, self._rules.chunk_tokens(chunk))

    def _own(self, tokens: int) -> None:
        self._context.add(tokens, object_key(KeyKind.SESSION_OWN, *self._place, self._begun))
