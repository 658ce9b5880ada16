"""Parameters that are fitted to a trace: those that made it, where it was made up; of the agentic traces the
defaults."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvbench.config.run_config import RunConfig
from kvbench.config.sessions import SessionsWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.sessions import made_part
from kvbench.workload.sessions.fit import fit, spread_of
from kvbench.workload.sessions.seen import common_blocks, sessions_of
from kvbench.workload.traces import read_trace
from kvbench.workload.traces.trace import Trace

Make = Callable[..., RunConfig]


def at(workload: SessionsWorkload, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(getattr(workload, section) if section else workload, name)


def test_what_made_a_trace_is_found_again(sessions_config: Make) -> None:
    config = sessions_config(
        users=60,
        sessions_per_user=1,
        span_s=10**5,
        applications={"number": 4, "zipf": 1.0, "prompt_tokens": 1280},
        turns={
            "number": {0: 2, 100: 22},
            "first_tokens": {0: 200, 100: 400},
            "new_tokens": {0: 1, 50: 100, 100: 500},
            "output_tokens": {0: 10, 100: 110},
        },
        think={"person_share": 0.25, "tool_s": {0: 1, 100: 21}, "person_s": {0: 40, 100: 140}},
        context={"limit_tokens": 4000, "summary_tokens": 300, "rewrite_share": 0.05},
    )
    fitted = fit(made_part(config, 0)).workload
    assert (fitted.users, fitted.sessions_per_user, fitted.id_tokens) == (60, 1, 64)
    assert fitted.applications.number == 4
    assert 0.5 < fitted.applications.zipf < 1.5
    assert fitted.applications.prompt_tokens[50] == 1280
    assert fitted.turns.number[50] == pytest.approx(12, abs=2.5)
    assert fitted.turns.first_tokens[50] == pytest.approx(300, abs=30)
    assert fitted.turns.new_tokens[50] == pytest.approx(100, rel=0.15)
    assert fitted.turns.new_tokens[90] == pytest.approx(420, rel=0.1)
    assert fitted.turns.output_tokens[50] == pytest.approx(60, rel=0.1)
    assert fitted.think.person_share == pytest.approx(0.25, abs=0.05)
    assert fitted.think.tool_s[50] == pytest.approx(11, rel=0.1)
    assert fitted.think.person_s[50] == pytest.approx(90, rel=0.1)
    assert fitted.context.rewrite_share == pytest.approx(0.05, abs=0.02)
    assert 3000 < fitted.context.limit_tokens <= 4000


@pytest.mark.slow
def test_users_who_come_one_after_another_are_counted_as_many_as_there_are_at_a_time(sessions_config: Make) -> None:
    trace = made_part(sessions_config(users=8, start_within_s=500, span_s=50_000), 0)
    fitted = fit(trace)
    assert fitted.workload.sessions_per_user is None
    assert "sessions under way at a time" in fitted.from_what["users"]
    assert fitted.workload.users == pytest.approx(8, abs=1)


def test_where_nobody_thinks_for_long_gaps_between_sessions_are_as_those_within(sessions_config: Make) -> None:
    think = {"person_share": 0.5, "tool_s": {0: 1, 100: 9}, "person_s": {0: 1, 100: 20}}
    fitted = fit(made_part(sessions_config(think=think), 0)).workload.think
    assert fitted.person_share == 0
    assert fitted.person_s == fitted.tool_s


def agentic(trace: Trace) -> Trace:
    """As if it had been recorded: its sessions that begin later than the first are subagents'."""
    return replace(trace, format="agentic")


@pytest.mark.parametrize("prompt", ["own", "parent"])
def test_subagents_are_found_where_the_format_tells_them(sessions_config: Make, prompt: str) -> None:
    subagents = {
        "share": 0.1,
        "prompt": prompt,
        "prompt_tokens": 640,
        "turns": 4,
        "first_tokens": 50,
        "new_tokens": 70,
        "output_tokens": 33,
    }
    config = sessions_config(
        users=40,
        sessions_per_user=1,
        applications={"number": 1, "prompt_tokens": 1280},
        turns={"number": 12},
        subagents=subagents,
        # So that no subagent begins when its conversation does.
        generation_ms_per_token=20,
    )
    found = fit(agentic(made_part(config, 0))).workload.subagents
    assert found.share == pytest.approx(0.1, abs=0.03)
    assert found.prompt == prompt
    assert (found.turns[50], found.new_tokens[50], found.output_tokens[50]) == (4, 70, 33)
    assert found.prompt_tokens[50] + found.first_tokens[50] == pytest.approx(
        (640 if prompt == "own" else 1280) + 50, abs=5
    )
    assert fit(made_part(config, 0)).from_what["subagents.share"] == "no session is known to be a subagent's"


@pytest.mark.parametrize("count", [1, 5, 50, 5000])
def test_a_fitted_spread_has_the_percentiles_and_no_larger_mean(count: int) -> None:
    values = np.random.default_rng(1).lognormal(6, 1.2, count)
    spread = spread_of(values)
    knots = sorted(spread)
    for percentile in knots[:-1]:
        assert spread[percentile] == pytest.approx(np.percentile(values, percentile), rel=0.01)
    mean = sum((right - left) / 200 * (spread[left] + spread[right]) for left, right in pairwise(knots))
    assert mean == pytest.approx(values.mean(), rel=0.02 if count == 5000 else 0.4)
    assert spread[100] <= values.max() * 1.01


def test_what_was_kept_of_a_context_is_told_block_by_block() -> None:
    assert common_blocks(np.array([1, 2, 3], np.uint64), np.array([1, 2, 4, 5], np.uint64)) == 2
    assert common_blocks(np.array([1, 2], np.uint64), np.array([1, 2, 4], np.uint64)) == 2
    assert common_blocks(np.array([], np.uint64), np.array([1], np.uint64)) == 0


@pytest.mark.parametrize(("name", "lacks"), [("mooncake", "no sessions"), ("burstgpt", "no sessions")])
def test_a_trace_without_sessions_is_refused(samples: dict[str, Path], name: str, lacks: str) -> None:
    with pytest.raises(KvbenchError, match=re.escape(f"{samples[name]} has {lacks}")):
        fit(read_trace(samples[name]))


def test_a_trace_without_ids_is_refused(sessions_config: Make) -> None:
    trace = made_part(sessions_config(), 0)
    none = np.zeros(len(trace), np.int64)
    plain = replace(
        trace, hash_ids=trace.hash_ids[:0], hash_offsets=np.zeros(len(trace) + 1, np.int64), answer_counts=none
    )
    with pytest.raises(KvbenchError, match="has no ids of blocks"):
        fit(plain)


@pytest.mark.parametrize("name", ["deltas", "agentic", "bailian", "messages", "lmcache"])
def test_every_format_with_sessions_is_fitted(samples: dict[str, Path], name: str) -> None:
    trace = read_trace(samples[name])
    fitted = fit(trace)
    assert fitted.workload.id_tokens == trace.hash_block_tokens
    assert len(sessions_of(trace)) == trace.session.max() + 1
    assert all(fitted.from_what.values())


RECORDED_ALONE = {"id_tokens", "span_s", "users", "sessions_per_user"}
"""How many conversations a trace holds, and for how long; a load goes on."""


def test_the_defaults_are_the_fit_of_the_agentic_traces_to_two_digits(real_trace: Callable[[str], Path]) -> None:
    fitted, defaults = fit(read_trace(real_trace("agentic"))), SessionsWorkload(kind="sessions")
    assert fitted.workload.users == defaults.users == 15
    for key in fitted.from_what.keys() - RECORDED_ALONE:
        found, default = at(fitted.workload, key), at(defaults, key)
        if not isinstance(found, dict):
            assert default == (found if isinstance(found, str) else pytest.approx(found, rel=0.05)), key
            continue
        constant = len(set(found.values())) == 1
        assert constant or found.keys() == default.keys(), key
        for percentile, value in default.items():
            assert value == pytest.approx(found[percentile], rel=0.06), key
