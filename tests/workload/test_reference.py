"""The users of the reference workload: what they send, when, and that all of it is the same every time."""

from collections import Counter, defaultdict
from itertools import islice, pairwise

import pytest

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.workload.build import build_schedule, schedule_digest
from kvbench.workload.reference import SYSTEM_PROMPT_TOKENS, ReferenceSchedule, decode_reads
from kvbench.workload.request import Request


def config_of(seed: int = 42, **workload: object) -> RunConfig:
    return parse_config(
        {
            "seed": seed,
            "workload": {"kind": "reference", "users": 8} | workload,
            "pacing": {"mode": "open", "admission": "priority"},
        },
        "test",
    )


def sent(requests: int, rank: int = 0, **settings: object) -> list[Request]:
    return list(islice(ReferenceSchedule(config_of(**settings), rank).stream(0), requests))  # type: ignore[arg-type]


def of_users(requests: list[Request]) -> dict[int, list[Request]]:
    found = defaultdict(list)
    for request in requests:
        found[request.user].append(request)
    return found


def test_the_same_seed_and_rank_send_the_same_requests_on_every_machine() -> None:
    assert schedule_digest(build_schedule(config_of(), 0, 1)) == "1268b9a4fc6d51a2"
    assert schedule_digest(build_schedule(config_of(), 1, 2)) == "996792c676c31244"


def test_rank_r_is_seeded_by_the_seed_and_r_and_shares_no_key_with_others() -> None:
    one, other = sent(300, rank=1), sent(300, seed=43)
    assert [r.context_tokens for r in one] == [r.context_tokens for r in other]
    assert not {r.context[0].key for r in one} & {r.context[0].key for r in other}


def test_requests_come_in_the_order_of_arrival_and_are_numbered_in_it() -> None:
    requests = sent(2000)
    assert [r.number for r in requests] == list(range(2000))
    arrivals = [r.arrival_ns for r in requests]
    assert arrivals == sorted(arrivals)
    assert {r.user for r in requests} == set(range(8))


def test_a_user_thinks_from_four_to_six_fifths_of_its_time_whatever_becomes_of_its_requests() -> None:
    schedule = ReferenceSchedule(config_of(), 0)
    for user, requests in of_users(sent(3000)).items():
        think_ns = schedule.user(user).think_ns
        times = [0, *(request.arrival_ns for request in requests)]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert think_ns * 8 // 10 <= min(gaps)
        assert max(gaps) <= think_ns * 12 // 10
        assert abs(sum(gaps) / len(gaps) / think_ns - 1) < 0.1


@pytest.mark.slow
def test_contexts_and_outputs_are_a_quarter_of_the_user_to_the_whole() -> None:
    schedule = ReferenceSchedule(config_of(), 0)
    for number, requests in of_users(sent(3000)).items():
        user = schedule.user(number)
        assert user.persona.length_tokens[0] <= user.length_tokens <= user.persona.length_tokens[1]
        assert user.persona.output_tokens[0] <= user.output_tokens <= user.persona.output_tokens[1]
        for request in requests:
            whole = request.context_tokens + request.prompt_tokens
            assert user.length_tokens // 4 <= whole <= user.length_tokens
            assert user.output_tokens // 4 <= request.output_tokens <= user.output_tokens
            assert request.context[0].tokens == request.context_tokens


@pytest.mark.slow
def test_a_fifth_of_the_requests_begin_with_one_of_three_system_prompts() -> None:
    requests = sent(20_000, users=200)
    prompts = Counter(request.prompt_tokens for request in requests)
    assert set(prompts) == {0, *SYSTEM_PROMPT_TOKENS}
    assert 0.79 < prompts[0] / len(requests) < 0.81


def test_personas_and_classes_are_drawn_user_by_user() -> None:
    schedule = ReferenceSchedule(config_of(users=6000), 0)
    users = [schedule.user(number) for number in range(6000)]
    personas = Counter(user.persona.name for user in users)
    assert all(abs(count / 6000 - 1 / 3) < 0.03 for count in personas.values())
    classes = Counter(user.qos for user in users)
    assert all(abs(classes[qos] / 6000 - share) < 0.02 for qos, share in enumerate((0.15, 0.35, 0.5)))


def test_a_turn_has_all_earlier_turns_of_its_conversation_for_a_history() -> None:
    for requests in of_users(sent(4000)).values():
        before: tuple[object, ...] = ()
        for request in requests:
            assert request.history in ((), before)
            before = (*request.history, *request.context)


def test_a_conversation_ends_with_the_probability_given_and_at_the_most_turns_at_the_latest() -> None:
    requests = sent(20_000, users=50)
    continued = [request for request in requests if request.history]
    assert abs(len(continued) / len(requests) - 0.8) < 0.02
    assert max(len(request.history) for request in sent(3000, end_probability=0, max_turns=4)) == 3
    assert not any(request.history for request in sent(500, end_probability=1))


@pytest.mark.parametrize(
    ("context", "output", "reads"),
    [(9_999, 1, 2), (9_999, 32, 2), (9_999, 33, 3), (9_999, 800, 26), (10_000, 800, 0), (128, 0, 2)],
)
def test_decode_reads_once_and_once_for_every_32_tokens_unless_the_context_is_prefill_only(
    context: int, output: int, reads: int
) -> None:
    workload = config_of().workload
    assert decode_reads(workload, context, output) == reads  # type: ignore[arg-type]


def test_no_entry_is_larger_than_the_schedule_says() -> None:
    schedule = ReferenceSchedule(config_of(users=30), 0)
    largest = max(request.context_tokens for request in islice(schedule.stream(0), 5000))
    assert largest <= schedule.largest_object_tokens() <= 25_000
