"""A rank's trace of made-up sessions: the turns of all its users in order of time, with the names of their blocks.

Each rank makes its own. What ranks share are the system prompts and the documents, whose names follow from the seed.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Final

import numpy as np

from kvbench.config.run_config import RunConfig
from kvbench.config.sessions import SessionsWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.sessions.conversation import Turn, turns_of
from kvbench.workload.sessions.rules import Rules
from kvbench.workload.traces.merge import merged
from kvbench.workload.traces.trace import Trace

SOURCE: Final = "synthetic sessions"
FORMAT: Final = "sessions"
_MOST_REQUESTS: Final = 5_000_000
_MOST_IDS: Final = 2**31
_RANK_BITS: Final = 40


def span_ns(config: RunConfig) -> int:
    """How long requests are made for, by their own clock: as configured, or as long as the run."""
    workload = config.workload
    assert isinstance(workload, SessionsWorkload)
    if workload.span_s is not None:
        return round(workload.span_s * 1e9)
    assert config.duration_s is not None
    speedup = 1.0 if config.pacing.mode == "asap" else config.pacing.speedup
    return round((config.warmup_s + config.duration_s) * speedup * 1e9)


def made_part(config: RunConfig, rank: int) -> Trace:
    """The requests of `rank`, at least one; `config.workload` must be a SessionsWorkload. Raises KvbenchError."""
    rules, end_ns, stream = Rules(config), span_ns(config), config.seed + rank
    assert isinstance(config.workload, SessionsWorkload)
    turns: list[Turn] = []
    sessions: list[tuple[int, ...]] = []
    ids = 0
    for user, turn in _of_all(rules, stream, config.workload.users, end_ns):
        turns.append(turn)
        sessions.append((user, *turn.session))
        ids += (turn.context_tokens + turn.output_tokens) // rules.unit
        if len(turns) > _MOST_REQUESTS or ids > _MOST_IDS:
            raise KvbenchError(
                f"workload.span_s: the {config.workload.users} users of a rank ask for more than {len(turns) - 1} "
                f"requests with {ids} blocks of {rules.unit} tokens within {end_ns / 1e9:g} s, too much to be held at "
                "once: give a shorter time, or fewer users"
            )
    if not turns:
        raise KvbenchError(
            f"workload.start_within_s: no user comes within the {end_ns / 1e9:g} s that requests are made for: let "
            "them come earlier, or make requests for longer (workload.span_s)"
        )
    return _trace(turns, sessions, rules.unit)


def made_trace(config: RunConfig, ranks: int) -> Trace:
    """The requests of ranks 0 to `ranks` - 1 as one trace, in order of time. Raises KvbenchError."""
    parts = []
    for rank in range(ranks):
        part = made_part(config, rank)
        parts.append(replace(part, session=part.session + (rank << _RANK_BITS)))
    return merged(parts, SOURCE, np.concatenate([part.hash_ids for part in parts]))


def _of_all(rules: Rules, stream: int, users: int, end_ns: int) -> Iterator[tuple[int, Turn]]:
    return chain.from_iterable(
        ((user, turn) for turn in turns_of(rules, stream, user, end_ns)) for user in range(users)
    )


def _trace(turns: list[Turn], sessions: list[tuple[int, ...]], unit: int) -> Trace:
    """Of `turns`, which have `sessions`, in any order."""
    arrival_ns = np.array([turn.arrival_ns for turn in turns], np.int64)
    order = np.argsort(arrival_ns, kind="stable")
    numbers: dict[tuple[int, ...], int] = {}
    numbered = [numbers.setdefault(sessions[place], len(numbers)) for place in order.tolist()]
    context_tokens = np.array([turn.context_tokens for turn in turns], np.int64)[order]
    output_tokens = np.array([turn.output_tokens for turn in turns], np.int64)[order]
    counts = (context_tokens + output_tokens) // unit
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    hash_ids = np.empty(offsets[-1], np.uint64)
    for place, begin, end in zip(order.tolist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        hash_ids[begin:end] = turns[place].context.ids()[: end - begin]
    return Trace(
        number=np.arange(len(turns)),
        arrival_ns=arrival_ns[order],
        context_tokens=context_tokens.astype(np.int32),
        output_tokens=output_tokens.astype(np.int32),
        hash_ids=hash_ids,
        hash_offsets=offsets,
        session=np.array(numbered, np.int64),
        gap_ns=np.array([turn.gap_ns for turn in turns], np.int64)[order],
        answer_counts=counts - context_tokens // unit,
        hash_block_tokens=unit,
        source=SOURCE,
        format=FORMAT,
        digest="",
        token_counting="made up, as the configuration says",
        bad_lines=0,
        first_bad_line="",
    )
