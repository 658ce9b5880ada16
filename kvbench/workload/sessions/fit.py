"""The parameters of sessions that fit a recorded trace, each from one statistic of it.

docs/workloads.md says which statistic gives which parameter. What a trace cannot tell stays at its default, and is
named as such.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.config.sessions import SessionsWorkload, Spread
from kvbench.workload.sessions.seen import Session, common_blocks, sessions_of
from kvbench.workload.traces.trace import Trace

TOOL_S: Final = 30.0
"""A gap up to this is taken for a tool's, a longer one for a person's."""
_TOGETHER: Final = 0.01
"""Sessions begin together where half of them begin within this share of the trace's time."""
_DIGITS: Final = 3
_PERCENTILES: Final = ((0, 50, 100), (0, 10, 25, 50, 75, 90, 100), (0, 10, 25, 50, 75, 90, 95, 99, 100))
"""Of fewer than 10 values, of fewer than 100, of more."""
_EXPONENTS: Final = np.arange(0, 3.01, 0.05)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Parameters, and where each comes from."""

    workload: SessionsWorkload
    from_what: dict[str, str]
    """Key of a parameter -> what it was estimated from, with how many of it there were."""


def fit(trace: Trace) -> Fitted:
    """The parameters that fit `trace`. Raises KvbenchError where it has no sessions or no ids of blocks."""
    sessions = sessions_of(trace)
    agents = [session for session in sessions if not session.subagent]
    subagents = [session for session in sessions if session.subagent]
    prompts = _prompts(trace, agents)
    found = _Found()
    _users(found, trace, agents)
    _applications(found, trace, agents, prompts)
    _turns(found, agents, prompts)
    _think(found, agents)
    _context(found, agents)
    if subagents:
        _subagents(found, trace, agents, subagents)
    else:
        found.put("subagents.share", 0.0, "no session is known to be a subagent's")
    return Fitted(SessionsWorkload.model_validate({"kind": "sessions", **found.content}), found.from_what)


def spread_of(values: NDArray[Any]) -> Spread:
    """Percentiles of `values`, to three digits; more of them, the more values there are. The highest is not the largest
    value, but such that the mean is that of the values, as far as none is larger: values far out would count for all
    between them and the percentile before."""
    percentiles = _PERCENTILES[0 if len(values) < 10 else 1 if len(values) < 100 else 2]
    knots = np.percentile(values, percentiles)
    shares = np.diff(percentiles) / 100
    below = float((shares[:-1] * (knots[:-2] + knots[1:-1])).sum() / 2)
    top = 2 * (float(values.mean()) - below) / shares[-1] - knots[-2]
    knots[-1] = min(knots[-1], max(knots[-2], top))
    return {percentile: _rounded(knot) for percentile, knot in zip(percentiles, knots.tolist(), strict=True)}


class _Found:
    """Parameters as they are found."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}
        self.from_what: dict[str, str] = {}

    def put(self, key: str, value: Any, from_what: str) -> None:
        section, _, name = key.rpartition(".")
        (self.content.setdefault(section, {}) if section else self.content)[name] = value
        self.from_what[key] = from_what

    def spread(self, key: str, values: NDArray[Any], what: str) -> None:
        """Where there are values; otherwise the default stays."""
        if len(values):
            self.put(key, spread_of(values), f"{what} ({len(values)})")


def _users(found: _Found, trace: Trace, agents: list[Session]) -> None:
    span_ns = int(trace.arrival_ns[-1])
    begins = np.array([trace.arrival_ns[session.requests[0]] for session in agents])
    ends = np.array([trace.arrival_ns[session.requests[-1]] for session in agents])
    found.put("id_tokens", trace.hash_block_tokens, "the trace's blocks")
    if span_ns:
        found.put("span_s", _rounded(max(span_ns, 10**9) / 1e9, 6), "from the first request to the last")
    if np.count_nonzero(begins <= _TOGETHER * span_ns) >= len(agents) / 2:
        found.put("users", len(agents), "sessions, which begin together")
        found.put("sessions_per_user", 1, "sessions begin together")
        return
    gaps_ns = _all(agents, "gap_ns")
    people = gaps_ns[gaps_ns > TOOL_S * 1e9]
    pause_ns = (people if len(people) else gaps_ns).mean() if len(gaps_ns) else 0.0
    users = max(1, round(float((ends - begins + pause_ns).sum()) / span_ns))
    found.put("users", users, f"sessions under way at a time, on average, each with a pause ({len(agents)})")


def _prompts(trace: Trace, agents: list[Session]) -> list[int]:
    """Tokens of the system prompt of each session as far as it shows; 0: it does not."""
    shared = _shared_beginnings(trace, agents, agents)
    prompts = []
    for session, blocks in zip(agents, shared, strict=True):
        anew = session.started_over | session.rewritten
        kept = session.kept_tokens[1:][anew & (session.kept_tokens[1:] > 0)]
        tokens = blocks * trace.hash_block_tokens or (int(np.median(kept)) if len(kept) else 0)
        prompts.append(min(tokens, int(session.context_tokens[0]) - 1))
    return prompts


def _shared_beginnings(trace: Trace, sessions: list[Session], others: list[Session]) -> list[int]:
    """Of each session's first context, the blocks that it has in common with the first contexts of those of `others`
    that share its first block (the median of 100 of them at most); 0 where none does."""
    groups: dict[int, list[Session]] = {}
    for session in others:
        ids = trace.ids(int(session.requests[0]))
        if len(ids):
            groups.setdefault(int(ids[0]), []).append(session)
    found = []
    for session in sessions:
        ids = trace.ids(int(session.requests[0]))
        alike = [other for other in groups.get(int(ids[0]), []) if other is not session] if len(ids) else []
        common = [common_blocks(ids, trace.ids(int(other.requests[0]))) for other in alike[:100]]
        found.append(int(np.median(common)) if common else 0)
    return found


def _applications(found: _Found, trace: Trace, agents: list[Session], prompts: list[int]) -> None:
    firsts = [trace.ids(int(session.requests[0])) for session in agents]
    uses = Counter(int(ids[0]) for ids in firsts if len(ids))
    number = max(1, len(uses))
    found.put("applications.number", number, f"different first blocks of sessions ({len(agents)})")
    exponent = _zipf(np.array(sorted(uses.values(), reverse=True)))
    found.put("applications.zipf", exponent, f"the likeliest, given how often each is used ({number})")
    seen = np.array([tokens for tokens in prompts if tokens])
    what = "what sessions begin with alike, or keep when all else changes"
    _prompt(found, "applications.prompt_tokens", seen, what)


def _prompt(found: _Found, key: str, seen: NDArray[np.int64], what: str) -> None:
    """Of system prompts that show; where none does, contexts count as all their own."""
    if len(seen):
        found.spread(key, seen, what)
    else:
        found.put(key, 1, "nothing is seen to be shared")


def _zipf(uses: NDArray[np.int64]) -> float:
    """The exponent under which so many uses of each rank are the likeliest."""
    if len(uses) < 2:
        return 0.0
    ranks = np.log(np.arange(1, len(uses) + 1))
    likelihoods = [-s * (uses * ranks).sum() - uses.sum() * np.log(np.exp(-s * ranks).sum()) for s in _EXPONENTS]
    return round(float(_EXPONENTS[int(np.argmax(likelihoods))]), 2)


def _turns(found: _Found, agents: list[Session], prompts: list[int]) -> None:
    typical = int(np.median([tokens for tokens in prompts if tokens] or [0]))
    first = [
        max(1, int(session.context_tokens[0]) - (tokens or typical))
        for session, tokens in zip(agents, prompts, strict=True)
    ]
    found.spread("turns.number", np.array([len(session.requests) for session in agents]), "requests of each session")
    found.spread("turns.first_tokens", np.array(first), "first contexts, less the system prompt")
    found.spread("turns.new_tokens", _all(agents, "new_tokens"), "growth from context and answer to the next context")
    found.spread("turns.output_tokens", _all(agents, "output_tokens"), "answers")


def _think(found: _Found, agents: list[Session]) -> None:
    gaps_s = _all(agents, "gap_ns") / 1e9
    if not gaps_s.any():
        return
    people = gaps_s > TOOL_S
    found.put("think.person_share", _rounded(float(people.mean())), f"gaps of more than {TOOL_S:g} s ({len(gaps_s)})")
    found.spread("think.tool_s", gaps_s[~people], "the shorter gaps")
    if people.any():
        found.spread("think.person_s", gaps_s[people], "the longer gaps")
    else:
        found.spread("think.person_s", gaps_s, "all gaps, none being longer")


def _context(found: _Found, agents: list[Session]) -> None:
    before = np.concatenate([session.context_tokens[:-1][session.started_over] for session in agents])
    after = np.concatenate(
        [(session.context_tokens - session.kept_tokens)[1:][session.started_over] for session in agents]
    )
    if len(before):
        limit, what = int(np.median(before)), f"contexts before they started over ({len(before)})"
    else:
        limit, what = int(max(session.context_tokens.max() for session in agents)), "the longest context"
    found.put("context.limit_tokens", round(_rounded(limit)), what)
    found.spread("context.summary_tokens", after, "what stood behind what was kept then")
    turns = sum(len(session.requests) - 1 for session in agents)
    anew = sum(int(session.rewritten.sum()) for session in agents)
    found.put("context.rewrite_share", _rounded(anew / max(1, turns)), f"turns that keep less than half ({turns})")


def _subagents(found: _Found, trace: Trace, agents: list[Session], subagents: list[Session]) -> None:
    turns = sum(len(session.requests) - 1 for session in agents)
    found.put("subagents.share", _rounded(min(1.0, len(subagents) / max(1, turns))), f"subagents ({len(subagents)})")
    of_agents = _shared_beginnings(trace, subagents, agents)
    of_subagents = _shared_beginnings(trace, subagents, subagents)
    own = np.median(of_agents) < max(1, np.median(of_subagents))
    found.put("subagents.prompt", "own" if own else "parent", "with whom they share more of their first contexts")
    blocks = np.array(of_subagents if own else of_agents)
    tokens = np.maximum(1, blocks * trace.hash_block_tokens)
    _prompt(found, "subagents.prompt_tokens", tokens[blocks > 0], "what their first contexts share")
    first = np.maximum(1, np.array([int(session.context_tokens[0]) for session in subagents]) - tokens)
    found.spread("subagents.turns", np.array([len(session.requests) for session in subagents]), "requests of each")
    found.spread("subagents.first_tokens", first, "first contexts, less what they share")
    found.spread("subagents.new_tokens", _all(subagents, "new_tokens"), "growth, as for turns")
    found.spread("subagents.output_tokens", _all(subagents, "output_tokens"), "answers")


def _all(sessions: list[Session], name: str) -> NDArray[np.int64]:
    return np.concatenate([getattr(session, name) for session in sessions])


def _rounded(number: float, digits: int = _DIGITS) -> float:
    rounded = float(f"{number:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
