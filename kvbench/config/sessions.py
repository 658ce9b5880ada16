"""The section of `workload.kind: sessions`: conversations and agents that are made up, with every default.

The defaults are what `kvbench trace fit` gives on the agentic traces of kv-cache-tester, rounded (docs/workloads.md
says which figure comes from where, and what those traces cannot tell).
"""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kvbench.config.types import Count, Factor, Number, Seconds
from kvbench.config.workload import Section
from kvbench.units import as_whole, parse_seconds

MOST_TOKENS: Final = 10_000_000
"""Of a context, as of a trace's."""
_MOST_SECONDS: Final = 365 * 86_400
_MOST_TURNS: Final = 1_000_000
_MOST_SIGMA: Final = 5.0
_SHAPES: Final = (
    "expected a number, {median: M, sigma: S} of a lognormal, or a value for each of some percentiles from 0 to 100, "
    "such as {0: 10, 50: 200, 100: 4000}"
)

Spread = dict[Any, float]
"""How something is distributed: `median` and `sigma` (of the logarithm) of a lognormal; or percentile -> value, from 0
to 100, never falling, and linear in between."""


def _spread(value: object, what: str, least: float, most: float) -> Spread:
    """`value` as a Spread whose values lie within bounds. Raises ValueError."""
    if not isinstance(value, dict):
        number = _value(value, what, least, most)
        return {0: number, 100: number}
    if set(value) == {"median", "sigma"}:
        sigma = value["sigma"]
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 <= sigma <= _MOST_SIGMA:
            raise ValueError(f"sigma: expected a number from 0 to {_MOST_SIGMA:g}")
        return {"median": _value(value["median"], what, least, most), "sigma": float(sigma)}
    knots = sorted((_percentile(key), _value(given, what, least, most)) for key, given in value.items())
    spread = dict(knots)
    if len(spread) != len(value) or not spread.keys() >= {0, 100}:
        raise ValueError(_SHAPES)
    values = list(spread.values())
    if values != sorted(values):
        raise ValueError("values must not fall from one percentile to the next")
    return spread


def _percentile(key: object) -> int | float:
    try:
        number = float(key) if isinstance(key, str | int | float) and not isinstance(key, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 100:
        raise ValueError(_SHAPES)
    return int(number) if number.is_integer() else number


def _value(value: object, what: str, least: float, most: float) -> float:
    if what == "seconds":
        try:
            number: object = parse_seconds(value)
        except ValueError as error:
            raise ValueError(f"{error} ({_SHAPES})") from error
    else:
        number = as_whole(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(_SHAPES)
    if not least <= number <= most:
        raise ValueError(f"expected {what} from {least:.0f} to {most:.0f}")
    return number


def _tokens(value: object) -> Spread:
    return _spread(value, "tokens", 0, MOST_TOKENS)


def _some_tokens(value: object) -> Spread:
    return _spread(value, "tokens", 1, MOST_TOKENS)


def _turns(value: object) -> Spread:
    return _spread(value, "turns", 1, _MOST_TURNS)


def _seconds(value: object) -> Spread:
    return _spread(value, "seconds", 0, _MOST_SECONDS)


Tokens = Annotated[Spread, BeforeValidator(_tokens)]
SomeTokens = Annotated[Spread, BeforeValidator(_some_tokens)]
"""At least 1."""
Turns = Annotated[Spread, BeforeValidator(_turns)]
Durations = Annotated[Spread, BeforeValidator(_seconds)]
Share = Annotated[Number, Field(ge=0, le=1)]


class Applications(Section):
    """Whom users talk to: each application has a system prompt, its tool definitions included, that all its sessions
    begin with."""

    number: Count = Field(default=15, ge=1, le=1_000_000)
    zipf: Number = Field(default=0.0, ge=0, le=8)
    """Of application k (1, 2, ...) a share of sessions that goes with 1 / k^zipf; 0: all alike."""
    prompt_tokens: SomeTokens = Field(default={0: 8400, 50: 13700, 100: 15400})
    """Of each application's system prompt."""


class SessionTurns(Section):
    """The turns of a session: a user's, or what tools answered an agent."""

    number: Turns = Field(default={0: 3, 10: 4, 25: 10, 50: 21, 75: 52, 90: 67, 100: 122})
    """Turns of a session."""
    first_tokens: SomeTokens = Field(default={0: 1, 10: 2200, 25: 4500, 50: 9300, 75: 68000, 90: 104000, 100: 104000})
    """The first turn's, behind the system prompt."""
    new_tokens: SomeTokens = Field(
        default={0: 1, 10: 1, 25: 54, 50: 320, 75: 1100, 90: 3100, 95: 5500, 99: 12000, 100: 75000}
    )
    """Of each later turn, behind the answer before."""
    output_tokens: Tokens = Field(
        default={0: 39, 10: 110, 25: 140, 50: 210, 75: 410, 90: 820, 95: 1100, 99: 2200, 100: 2600}
    )
    """Of each answer, which stays in the context."""


class Thinking(Section):
    """What passes between an answer and the next turn: a tool's work, or a person's thought."""

    person_share: Share = 0.2
    """Of turns that a person sends."""
    tool_s: Durations = Field(default={0: 0, 10: 4, 25: 5, 50: 7, 75: 12, 90: 17, 95: 22, 99: 28, 100: 28})
    person_s: Durations = Field(default={0: 31, 10: 38, 25: 63, 50: 140, 75: 380, 90: 720, 100: 3000})


class ContextLimit(Section):
    """What happens to a context that grows on."""

    limit_tokens: Count = Field(default=150_000, ge=1, le=MOST_TOKENS)
    """A context that would be longer starts over: its system prompt, a summary, and the new turn."""
    summary_tokens: Tokens = Field(default={0: 84000, 100: 84000})
    rewrite_share: Share = 0.015
    """Share of turns at which all behind the system prompt is another than before, and so new to a cache, at the same
    length."""


class Subagents(Section):
    """Agents that an agent starts, which have sessions of their own; it goes on when they have ended."""

    share: Share = 0.01
    """Share of turns that start one."""
    prompt: Literal["own", "parent"] = "own"
    """Their system prompt: one of their own, which all subagents of an application begin with, or the application's."""
    prompt_tokens: SomeTokens = Field(default={0: 6800, 50: 9200, 100: 9200})
    """Of their own."""
    turns: Turns = Field(default={0: 4, 50: 7, 100: 13})
    first_tokens: SomeTokens = Field(default={0: 2500, 50: 2600, 100: 4900})
    new_tokens: SomeTokens = Field(default={0: 61, 10: 270, 25: 720, 50: 1900, 75: 6100, 90: 47000, 100: 57000})
    output_tokens: Tokens = Field(default={0: 120, 10: 170, 25: 230, 50: 280, 75: 350, 90: 2300, 100: 2300})


class Documents(Section):
    """Retrieval: turns that bring chunks of documents which all users share."""

    share: Share = 0.0
    """Share of turns that retrieve."""
    chunks: Count = Field(default=10_000, ge=1, le=10_000_000)
    """Of the corpus."""
    zipf: Number = Field(default=1.0, ge=0, le=8)
    """Chunk k (1, 2, ...) is retrieved with a probability that goes with 1 / k^zipf."""
    chunk_tokens: SomeTokens = Field(default={0: 512, 100: 512})
    """Of each chunk."""
    top_k: Count = Field(default=4, ge=1, le=1000)
    """Different chunks that a turn retrieves."""
    place: Literal["front", "turn"] = "front"
    """`front`: behind the system prompt, in the place of those before; what stands behind them is then new to a cache.
    `turn`: with the turn, where they stay."""

    @model_validator(mode="after")
    def _enough_chunks(self) -> Self:
        if self.top_k > self.chunks:
            raise ValueError(
                f"workload.documents.top_k: {self.top_k} different chunks, but workload.documents.chunks is "
                f"{self.chunks}"
            )
        return self


class SessionsWorkload(Section):
    """Conversations and agents, made up by each rank for its own users."""

    kind: Literal["sessions"]
    users: Count = Field(default=15, ge=1, le=1_000_000)
    """Users per rank, at the same time: each has one session after another."""
    sessions_per_user: Count | None = Field(default=None, ge=1)
    """After so many a user is gone; null: goes on until the end."""
    start_within_s: Seconds = 0.0
    """Users come at times evenly drawn from the first so many seconds."""
    span_s: Seconds | None = Field(default=None, gt=0, le=_MOST_SECONDS)
    """Requests are made for so long, by their own clock; null: for as long as the run."""
    id_tokens: Count = Field(default=64, ge=1, le=MOST_TOKENS)
    """Tokens that a name stands for: `cache.block_tokens` is a multiple or a divisor of it."""
    generation_ms_per_token: Factor = Field(default=0.0, ge=0)
    """Simulated time to generate a token, by which the next turn is later; 0 for none."""
    applications: Applications = Applications()
    turns: SessionTurns = SessionTurns()
    think: Thinking = Thinking()
    context: ContextLimit = ContextLimit()
    subagents: Subagents = Subagents()
    documents: Documents = Documents()

    @property
    def mode(self) -> Literal["prefill-decode"]:
        """As an engine does it: both."""
        return "prefill-decode"
