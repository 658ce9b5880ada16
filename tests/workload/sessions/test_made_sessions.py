"""What ranks make up: names of blocks that tell contexts apart token by token, turns that follow each other as they
should, and ranks that share what users share and nothing else."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload.sessions import conversation, made_part, made_trace
from kvbench.workload.sessions.context import Context
from kvbench.workload.sessions.rules import Rules
from kvbench.workload.traces.trace import Trace, trace_digest

Make = Callable[..., RunConfig]
Identity = tuple[Any, ...]

ALL: dict[str, Any] = {
    "applications": {"number": 3, "zipf": 1.0, "prompt_tokens": {0: 200, 100: 400}},
    "turns": {"number": {"median": 6, "sigma": 0.7}, "new_tokens": {"median": 120, "sigma": 1.0}},
    "context": {"limit_tokens": 3000, "summary_tokens": {0: 50, 100: 300}, "rewrite_share": 0.1},
    "subagents": {
        "share": 0.2,
        "prompt": "parent",
        "turns": {0: 1, 100: 4},
        "first_tokens": 80,
        "new_tokens": 60,
        "output_tokens": 40,
    },
    "documents": {"share": 0.4, "chunks": 6, "zipf": 1.2, "chunk_tokens": {0: 40, 100: 200}, "top_k": 2},
}
"""Everything that there is."""


def sessions_in(trace: Trace) -> list[NDArray[np.int64]]:
    """Positions of each session's requests."""
    return [np.flatnonzero(trace.session == number) for number in range(int(trace.session.max()) + 1)]


class TokenByToken:
    """In the place of a Context: it knows every token, and names a block by all tokens up to its end."""

    fresh = itertools.count()
    names: dict[Identity, int] = {}  # noqa: RUF012

    def __init__(self, unit: int, name: int, tokens: int) -> None:
        self._unit = unit
        self._all: list[Identity] = [("prompt", name, place) for place in range(tokens)]
        self.own = False
        self.name = name

    @property
    def tokens(self) -> int:
        return len(self._all)

    def share(self, name: int, tokens: int) -> None:
        # As `Context` has it, a chunk's name says what stands before it.
        self.name = name if not self.own else self.name
        self._all += [("chunk", name, place) for place in range(tokens)]

    def add(self, tokens: int, name: int) -> None:
        self.own |= tokens > 0
        self._all += [("own", next(self.fresh)) for _ in range(tokens)]

    def ids(self) -> NDArray[np.uint64]:
        blocks = len(self._all) // self._unit
        ends = (tuple(self._all[: (block + 1) * self._unit]) for block in range(blocks))
        return np.array([self.names.setdefault(end, len(self.names)) for end in ends], np.uint64)


@pytest.mark.parametrize("place", ["front", "turn"])
@pytest.mark.parametrize("unit", [16, 64])
def test_blocks_have_the_same_name_where_all_tokens_up_to_their_end_are_the_same(
    sessions_config: Make, monkeypatch: pytest.MonkeyPatch, place: str, unit: int
) -> None:
    documents = {**ALL["documents"], "place": place}
    config = sessions_config(**{**ALL, "documents": documents}, id_tokens=unit, users=4, span_s=400)
    made = made_part(config, 0)
    monkeypatch.setattr(conversation, "Context", TokenByToken)
    known = made_part(config, 0)
    assert made.hash_offsets.tolist() == known.hash_offsets.tolist()
    pairs = set(zip(made.hash_ids.tolist(), known.hash_ids.tolist(), strict=True))
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs})
    # Some are asked for again, and not only those of one session.
    assert len(pairs) < len(made.hash_ids) / 2


def test_a_turn_goes_on_with_context_and_answer_and_finds_their_blocks(sessions_config: Make) -> None:
    trace = made_part(sessions_config(), 0)
    turns = 0
    for requests in sessions_in(trace):
        for before, after in itertools.pairwise(requests.tolist()):
            both = int(trace.context_tokens[before] + trace.output_tokens[before])
            assert 1 <= trace.context_tokens[after] - both <= 300
            known = np.concatenate([trace.ids(before), trace.answer_ids(before)])
            assert len(known) == both // 64
            assert (trace.ids(after)[: len(known)] == known).all()
            turns += 1
    assert turns > 20


def test_times_are_those_of_answers_and_gaps(sessions_config: Make) -> None:
    trace = made_part(sessions_config(generation_ms_per_token=20), 0)
    for requests in sessions_in(trace):
        assert trace.gap_ns[requests[0]] == -1
        answered_ns = trace.arrival_ns[requests] + trace.output_tokens[requests] * 20_000_000
        assert (trace.arrival_ns[requests[1:]] - answered_ns[:-1] == trace.gap_ns[requests[1:]]).all()
    assert (np.diff(trace.arrival_ns) >= 0).all()
    assert trace.arrival_ns[-1] < 600e9
    gaps_s = trace.gap_ns[trace.gap_ns >= 0] / 1e9
    assert ((gaps_s <= 9) | (gaps_s >= 20)).all()
    assert 0.1 < np.mean(gaps_s >= 20) < 0.5


def test_a_context_at_its_limit_starts_over_from_a_summary(sessions_config: Make) -> None:
    config = sessions_config(turns={"number": 60, "first_tokens": 1500, "new_tokens": 200}, think={"person_share": 0})
    trace, rules = made_part(config, 0), Rules(config)
    prompts = {rules.prompt(application).tokens for application in range(2)}
    assert trace.context_tokens.max() <= 2500
    over = [
        after
        for requests in sessions_in(trace)
        for before, after in itertools.pairwise(requests.tolist())
        if trace.context_tokens[after] < trace.context_tokens[before]
    ]
    assert len(over) > 5
    assert {int(trace.context_tokens[after]) - 150 - 200 for after in over} <= prompts


def test_a_rewritten_history_is_found_no_further_than_the_system_prompt(sessions_config: Make) -> None:
    config = sessions_config(context={"rewrite_share": 1}, applications={"prompt_tokens": 640})
    trace = made_part(config, 0)
    for requests in sessions_in(trace):
        for before, after in itertools.pairwise(requests.tolist()):
            same = trace.ids(after)[: len(trace.ids(before))] == trace.ids(before)[: len(trace.ids(after))]
            assert same.tolist() == [True] * 10 + [False] * (len(same) - 10)
            assert trace.context_tokens[after] > trace.context_tokens[before] + trace.output_tokens[before]


def test_users_of_all_ranks_share_system_prompts_and_nothing_else(sessions_config: Make) -> None:
    config = sessions_config(applications={"number": 1, "prompt_tokens": 640})
    parts = [set(made_part(config, rank).hash_ids.tolist()) for rank in range(3)]
    prompt = set(made_part(config, 0).ids(0)[:10].tolist())
    for one, other in itertools.combinations(parts, 2):
        assert one & other == prompt
    assert not parts[0] & set(made_part(sessions_config(seed=77), 0).hash_ids.tolist())


def test_documents_in_front_are_shared_as_far_as_they_stand_behind_the_same(sessions_config: Make) -> None:
    """One application and chunks of whole blocks: two contexts agree in the prompt, and then chunk by chunk."""
    documents = {"share": 1, "chunks": 3, "zipf": 0, "chunk_tokens": 128, "top_k": 2, "place": "front"}
    config = sessions_config(
        documents=documents, applications={"number": 1, "prompt_tokens": 128}, users=6, turns={"number": 3}
    )
    trace = made_part(config, 0)
    fronts = {tuple(trace.ids(position)[:6].tolist()) for position in range(len(trace))}
    assert len({front[:2] for front in fronts}) == 1
    assert len({front[2:4] for front in fronts}) == 3
    assert len({front[2:6] for front in fronts}) == len(fronts) == 6


def test_what_stands_behind_other_documents_than_before_is_new(sessions_config: Make) -> None:
    documents = {"share": 1, "chunks": 10**6, "zipf": 0, "chunk_tokens": 64, "top_k": 1, "place": "front"}
    trace = made_part(sessions_config(documents=documents, applications={"number": 1, "prompt_tokens": 64}), 0)
    assert len(set(trace.hash_ids.tolist())) == len(trace.hash_ids) - len(trace) + 1


@pytest.mark.parametrize(("prompt", "shares"), [("parent", True), ("own", False)])
def test_a_session_waits_for_its_subagent_which_begins_with_a_system_prompt(
    sessions_config: Make, prompt: str, shares: bool
) -> None:
    config = sessions_config(
        users=1,
        sessions_per_user=1,
        applications={"number": 1, "prompt_tokens": 256},
        turns={"number": 4},
        think={"person_share": 0},
        subagents={
            "share": 1,
            "prompt": prompt,
            "prompt_tokens": 192,
            "turns": 5,
            "first_tokens": 100,
            "new_tokens": 50,
            "output_tokens": 30,
        },
    )
    trace = made_part(config, 0)
    agent, *subagents = sessions_in(trace)
    assert [len(agent), *map(len, subagents)] == [4, 5, 5, 5]
    for before, after, subagent in zip(agent[:-1], agent[1:], subagents, strict=True):
        assert trace.arrival_ns[subagent[0]] == trace.arrival_ns[before]
        assert trace.arrival_ns[after] > trace.arrival_ns[subagent[-1]]
        assert trace.gap_ns[after] == trace.arrival_ns[after] - trace.arrival_ns[before]
        assert trace.context_tokens[subagent[0]] == (256 if shares else 192) + 100
    assert (trace.ids(int(subagents[0][0]))[0] == trace.ids(int(agent[0]))[0]) == shares
    first = [trace.ids(int(subagent[0]))[: 4 if shares else 3].tolist() for subagent in subagents]
    assert first[0] == first[1] == first[2]


def test_users_come_within_a_time_and_leave_after_their_sessions(sessions_config: Make) -> None:
    trace = made_part(sessions_config(users=20, sessions_per_user=1, start_within_s=300), 0)
    begins_s = np.sort([trace.arrival_ns[requests[0]] for requests in sessions_in(trace)]) / 1e9
    assert len(begins_s) == 20
    assert 0 < begins_s[0] < 100
    assert 200 < begins_s[-1] < 300


def test_a_user_asks_for_the_same_whoever_else_there_is(sessions_config: Make) -> None:
    alone, among = (made_part(sessions_config(users=users, **ALL), 0) for users in (1, 4))
    assert set(zip(alone.arrival_ns.tolist(), alone.context_tokens.tolist(), strict=True)) <= set(
        zip(among.arrival_ns.tolist(), among.context_tokens.tolist(), strict=True)
    )
    assert set(alone.hash_ids.tolist()) < set(among.hash_ids.tolist())


def test_the_requests_of_all_ranks_are_one_trace(sessions_config: Make) -> None:
    config = sessions_config()
    parts, trace = [made_part(config, rank) for rank in range(3)], made_trace(config, 3)
    assert len(trace) == sum(map(len, parts))
    assert trace.session.max() + 1 == sum(int(part.session.max()) + 1 for part in parts)
    assert sorted(trace.hash_ids.tolist()) == sorted(itertools.chain(*(part.hash_ids.tolist() for part in parts)))
    assert trace.digest == trace_digest(trace)


def test_sessions_are_the_same_on_every_machine(sessions_config: Make) -> None:
    # Changed these? Then runs of before and after cannot be compared.
    assert trace_digest(made_part(sessions_config(**ALL), 1)) == "66f2595f23c08f86"
    defaults = RunConfig.model_validate(
        {"workload": {"kind": "sessions"}, "pacing": {"mode": "open"}, "duration_s": 300}
    )
    assert trace_digest(made_part(defaults, 0)) == "2728d4699a210593"


def test_requests_are_made_for_as_long_as_the_run_in_their_own_time(sessions_config: Make) -> None:
    for pacing, span_s in (({"mode": "open", "speedup": 4}, 120), ({"mode": "asap"}, 30)):
        config = RunConfig.model_validate(
            {"workload": {"kind": "sessions", "users": 40}, "pacing": pacing, "duration_s": 20, "warmup_s": 10}
        )
        assert 0.8 * span_s < made_part(config, 0).arrival_ns[-1] / 1e9 < span_s


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"context": {"limit_tokens": 300}}, r"workload\.context\.limit_tokens: 300 leave no room .* up to 400 tokens"),
        (
            {"documents": {"share": 0.1, "chunk_tokens": 600, "top_k": 4}},
            r"workload\.context\.limit_tokens: 2500 leave no room for a turn: .* up to 2800 tokens",
        ),
        ({"think": {"person_s": 0}}, r"workload\.think\.person_s: time would stand still"),
        ({"start_within_s": 10**6, "span_s": 1e-6}, r"workload\.start_within_s: no user comes within the 1e-06 s"),
    ],
)
def test_what_cannot_be_made_is_said(sessions_config: Make, workload: dict[str, Any], message: str) -> None:
    with pytest.raises(KvbenchError, match=message):
        made_part(sessions_config(**workload), 0)


def test_more_than_can_be_held_is_said_and_not_tried(sessions_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbench.workload.sessions.make._MOST_REQUESTS", 20)
    with pytest.raises(KvbenchError, match=r"workload\.span_s: the 3 users of a rank ask for more than 20 requests"):
        made_part(sessions_config(), 0)


def test_a_context_names_the_block_that_two_contents_share_by_the_later_one() -> None:
    first, second = Context(64, 1, 100), Context(64, 1, 100)
    for context, name in ((first, 5), (second, 6)):
        context.add(100, name)
    assert [int(block) for block in np.flatnonzero(first.ids() == second.ids())] == [0]
    assert len(first.ids()) == 3
