"""The section of sessions: every way to write a distribution, and one clear message for each mistake."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.config.load import load_config, parse_config
from kvbench.config.run_config import RunConfig, SessionsWorkload
from kvbench.errors import KvbenchError


def config_of(workload: dict[str, Any], **rest: Any) -> RunConfig:
    content = {"workload": {"kind": "sessions", **workload}, "pacing": {"mode": "open"}, **rest}
    return parse_config(content, "test")


def new_tokens(written: Any) -> dict[Any, float]:
    workload = config_of({"turns": {"new_tokens": written}}).workload
    assert isinstance(workload, SessionsWorkload)
    return workload.turns.new_tokens


SHAPES = r"expected a number, \{median: M, sigma: S\} of a lognormal, or a value for each of some percentiles"

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"turn": {}}, r"unknown key workload\.turn: did you mean workload\.turns\?"),
    ({"turns": {"token": 4}}, r"unknown key workload\.turns\.token: .*\(valid here: first_tokens, new_tokens, number"),
    ({"turns": 4}, r"workload\.turns: expected a mapping of keys to values \(given: 4\)"),
    ({"mode": "prefill"}, r"unknown key workload\.mode: it belongs to another kind of workload"),
    ({"users": 0}, r"workload\.users: expected 1 or more \(given: 0\)"),
    ({"turns": {"new_tokens": "few"}}, rf'workload\.turns\.new_tokens: {SHAPES}.* \(given: "few"\)'),
    ({"turns": {"new_tokens": True}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": None}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": [1, 2]}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {"median": 4}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {"median": 4, "sigma": 1, 0: 1}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {"median": 4, "sigma": 9}}}, r"new_tokens: sigma: expected a number from 0 to 5"),
    ({"turns": {"new_tokens": {"median": 0, "sigma": 1}}}, r"new_tokens: expected tokens from 1 to 10000000"),
    ({"turns": {"new_tokens": {0: 1, 50: 2}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {0: 1, 50: 2, 100: 3, 101: 4}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {0: 1, "0": 2, 100: 3}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {0: 1, 10**400: 3, 100: 3}}}, rf"workload\.turns\.new_tokens: {SHAPES}"),
    ({"turns": {"new_tokens": {0: 1, 50: 9, 100: 3}}}, r"values must not fall from one percentile to the next"),
    ({"turns": {"new_tokens": {0: 0, 100: 3}}}, r"new_tokens: expected tokens from 1 to 10000000"),
    ({"turns": {"output_tokens": 10**8}}, r"output_tokens: expected tokens from 0 to 10000000 \(given: 100000000\)"),
    ({"turns": {"number": float("nan")}}, r"turns\.number: expected turns from 1 to 1000000"),
    ({"think": {"tool_s": "2 parsecs"}}, r"think\.tool_s: unknown unit of time 'parsecs'"),
    ({"think": {"tool_s": {0: -1, 100: 2}}}, r"think\.tool_s: expected a duration of 0 or more"),
    ({"think": {"person_share": 1.5}}, r"think\.person_share: expected 1 or less \(given: 1\.5\)"),
    ({"context": {"limit_tokens": 0}}, r"context\.limit_tokens: expected 1 or more, in tokens"),
    ({"applications": {"zipf": -1}}, r"applications\.zipf: expected 0 or more"),
    ({"subagents": {"prompt": "none"}}, r"subagents\.prompt: expected one of own, parent"),
    ({"documents": {"top_k": 5, "chunks": 4}}, r"documents\.top_k: 5 different chunks, but .*chunks is 4"),
]


@pytest.mark.parametrize(("workload", "answer"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_answered_with_one_message(workload: dict[str, Any], answer: str) -> None:
    with pytest.raises(KvbenchError, match=answer) as caught:
        config_of(workload)
    assert "; " not in str(caught.value).replace("unknown key", ""), "one message"


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ({"pacing": {"mode": "open", "requests_per_s": 3}}, r"pacing\.requests_per_s"),
        ({"duration_s": None}, r"workload\.span_s: sessions have no end where duration_s is null"),
        ({"namespace": "shared"}, r"namespace: ranks do not share blocks of an engine yet"),
    ],
)
def test_what_does_not_go_with_sessions_is_said(rest: dict[str, Any], answer: str) -> None:
    with pytest.raises(KvbenchError, match=answer):
        parse_config({"workload": {"kind": "sessions"}, "pacing": {"mode": "open"}} | rest, "test")


def test_sessions_are_served_as_an_engine_does_and_may_go_on_while_they_are_made() -> None:
    assert config_of({}).serves_as_engine
    assert config_of({"span_s": 60}, duration_s=None).duration_s is None


def test_a_distribution_is_a_number_a_lognormal_or_percentiles() -> None:
    assert new_tokens(7) == new_tokens("7e0") == {0: 7, 100: 7}
    assert new_tokens({"median": 800, "sigma": 1}) == {"median": 800, "sigma": 1}
    assert new_tokens({100: 9, 0: 1, "99.9": 5}) == {0: 1, 99.9: 5, 100: 9}
    assert list(new_tokens({100: 9, 0: 1, "99.9": 5})) == [0, 99.9, 100]
    workload = config_of({"think": {"person_s": {0: "30s", 50: "2min", 100: "1h"}}}).workload
    assert isinstance(workload, SessionsWorkload)
    assert workload.think.person_s == {0: 30, 50: 120, 100: 3600}


@given(st.dictionaries(st.integers(1, 99), st.integers(1, 10**6), max_size=6), st.integers(1, 100))
def test_what_was_read_survives_being_sent_to_the_other_ranks(values: dict[int, int], least: int) -> None:
    knots = [0, *sorted(values), 100]
    spread = dict(zip(knots, sorted([least, *values.values(), 10**7]), strict=True))
    config = config_of({"turns": {"new_tokens": spread}})
    received = parse_config(json.loads(json.dumps(config.model_dump(mode="json"))), "test")
    assert received == config
    assert received.fingerprint(2) == config.fingerprint(2)


def test_every_parameter_is_part_of_the_fingerprint() -> None:
    known = {config_of({}).fingerprint(1)}
    for changed in (
        {"users": 16},
        {"turns": {"new_tokens": 5}},
        {"documents": {"share": 0.1}},
        {"applications": {"zipf": 0.5}},
        {"span_s": 50},
    ):
        fingerprint = config_of(changed).fingerprint(1)
        assert fingerprint not in known
        known.add(fingerprint)


def test_a_value_of_a_distribution_can_be_set_from_the_command_line() -> None:
    config = load_config("sessions", ["workload.turns.new_tokens={0: 1, 100: 50}", "workload.think.tool_s=2s"])
    assert isinstance(config.workload, SessionsWorkload)
    assert config.workload.turns.new_tokens == {0: 1, 100: 50}
    assert config.workload.think.tool_s == {0: 2, 100: 2}
