"""Simulated users: who they are, what they ask for, when, and that all of it is the same every time."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.config.run_config import PersonaWorkload, RunConfig
from kvbench.workload.personas import PERSONAS, PersonaSchedule, users_per_persona
from kvbench.workload.request import QOS_CLASSES, Request

Make = Callable[..., RunConfig]
WEIGHT = st.floats(0, 100, allow_nan=False).map(lambda weight: round(weight, 3))


def first(schedule: PersonaSchedule, user: int, requests: int) -> list[Request]:
    return list(islice(schedule.stream(user), requests))


def conversations(requests: list[Request]) -> list[list[Request]]:
    """Cut one user's requests where a conversation begins: its first turn has no history."""
    found: list[list[Request]] = []
    for request in requests:
        if not request.history:
            found.append([])
        found[-1].append(request)
    return found


@given(users=st.integers(1, 500), weights=st.tuples(WEIGHT, WEIGHT, WEIGHT).filter(lambda weights: sum(weights) > 0))
def test_every_user_gets_a_persona_and_shares_are_within_one_user_of_the_mix(
    users: int, weights: tuple[float, float, float]
) -> None:
    names = [persona.name for persona in PERSONAS]
    workload = PersonaWorkload(users=users, mix=dict(zip(names, weights, strict=True)))
    shares = users_per_persona(workload)
    assert sum(shares.values()) == users
    for name, weight in zip(names, weights, strict=True):
        assert abs(shares[name] - users * weight / sum(weights)) < 1
        assert weight > 0 or shares[name] == 0


def test_the_order_in_which_the_mix_is_written_changes_nothing() -> None:
    one = PersonaWorkload(users=11, mix={"coding": 2.0, "chatbot": 1.0})
    other = PersonaWorkload(users=11, mix={"chatbot": 1.0, "coding": 2.0})
    assert users_per_persona(one) == users_per_persona(other) == {"chatbot": 4, "coding": 7, "document": 0}


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_contexts_outputs_and_think_times_lie_within_their_persona(make_config: Make, seed: int) -> None:
    schedule = PersonaSchedule(make_config(seed=seed, workload={"users": 9}), rank=3)
    for number in range(9):
        user = schedule.user(number)
        shortest, longest = user.persona.length_tokens
        assert shortest <= user.length_tokens <= longest
        for request in first(schedule, number, 40):
            assert user.length_tokens // 4 <= request.context_tokens <= user.length_tokens
            assert user.persona.output_tokens[0] <= request.output_tokens <= user.persona.output_tokens[1]
            assert user.persona.think_ns[0] <= request.arrival_ns <= user.persona.think_ns[1]


def test_contexts_are_uniform_from_a_quarter_of_the_length_to_the_whole(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"users": 1, "mix": {"coding": 1}}), rank=0)
    length = schedule.user(0).length_tokens
    tenths = Counter(int((r.context_tokens / length - 0.25) / 0.075) for r in first(schedule, 0, 4000))
    assert all(330 < tenths[tenth] < 470 for tenth in range(10))


def test_qos_classes_are_drawn_per_user_in_their_shares(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"users": 3000}), rank=0)
    classes = Counter(QOS_CLASSES[schedule.user(user).qos] for user in range(3000))
    assert classes["interactive"] == pytest.approx(450, abs=75)
    assert classes["responsive"] == pytest.approx(1050, abs=100)
    assert classes["batch"] == pytest.approx(1500, abs=110)
    assert {request.qos for request in first(schedule, 5, 30)} == {schedule.user(5).qos}


def test_a_turn_re_reads_all_objects_of_the_earlier_turns_of_its_conversation(make_config: Make) -> None:
    config = make_config(workload={"users": 2}, cache={"layout": "block"})
    for conversation in conversations(first(PersonaSchedule(config, rank=0), 1, 60)):
        spoken = ()
        for turn in conversation:
            assert turn.history == spoken
            spoken += turn.context  # type: ignore[assignment]


def test_conversations_have_the_configured_end_probability(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"users": 1, "end_probability": 0.2}), rank=0)
    lengths = [len(conversation) for conversation in conversations(first(schedule, 0, 5000))]
    assert max(lengths) <= 50
    assert sum(lengths) / len(lengths) == pytest.approx(5, abs=0.4)


def test_a_conversation_that_never_ends_by_chance_ends_at_max_turns(make_config: Make) -> None:
    config = make_config(workload={"users": 1, "end_probability": 0, "max_turns": 7})
    lengths = [len(conversation) for conversation in conversations(first(PersonaSchedule(config, 0), 0, 21))]
    assert lengths == [7, 7, 7]


def test_no_two_objects_share_a_key_across_ranks_users_conversations_turns_and_blocks(make_config: Make) -> None:
    config = make_config(workload={"users": 5}, cache={"layout": "block", "block_tokens": 100})
    refs = [
        ref
        for rank in range(3)
        for user in range(5)
        for request in first(PersonaSchedule(config, rank), user, 20)
        for ref in request.context
    ]
    assert len({ref.key for ref in refs}) == len(refs) > 10_000
    assert all(0 <= ref.key < 2**64 for ref in refs)


@pytest.mark.parametrize("block_tokens", [1000, 512, 25_000])
def test_blocks_add_up_to_the_context_and_only_the_last_is_partial(make_config: Make, block_tokens: int) -> None:
    config = make_config(workload={"users": 3}, cache={"layout": "block", "block_tokens": block_tokens})
    schedule = PersonaSchedule(config, rank=0)
    for request in first(schedule, 2, 20):
        sizes = [ref.tokens for ref in request.context]
        assert sum(sizes) == request.context_tokens
        assert set(sizes[:-1]) <= {block_tokens}
        assert 0 < sizes[-1] <= block_tokens
        assert max(sizes) <= schedule.largest_object_tokens() <= block_tokens


def test_layout_entry_keeps_a_context_in_one_object(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"users": 3}), rank=0)
    for user in range(3):
        for request in first(schedule, user, 20):
            assert [ref.tokens for ref in request.context] == [request.context_tokens]
            assert request.context_tokens <= schedule.largest_object_tokens()


def test_long_contexts_are_prefill_only_and_short_ones_decode_once_and_once_per_interval(make_config: Make) -> None:
    config = make_config(workload={"users": 3, "mix": {"coding": 1}, "generation_ms_per_token": 2})
    seen = set()
    for user in range(3):
        for request in first(PersonaSchedule(config, 0), user, 50):
            long = request.context_tokens >= 10_000
            seen.add(long)
            assert request.prefill
            assert request.decode_passes == (0 if long else 1 + request.output_tokens // 32)
            assert request.generation_ns == (0 if long else request.output_tokens * 2_000_000)
    assert seen == {True, False}


def test_mode_prefill_never_decodes(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"mode": "prefill"}), rank=0)
    assert {(r.prefill, r.decode_passes) for r in first(schedule, 0, 50)} == {(True, 0)}
    assert list(schedule.preconditioning()) == []


def test_mode_decode_cycles_over_entries_that_were_all_written_beforehand(make_config: Make) -> None:
    config = make_config(workload={"mode": "decode", "users": 4, "entries_per_user": 3}, cache={"layout": "block"})
    schedule = PersonaSchedule(config, rank=1)
    written = list(schedule.preconditioning())
    assert len({ref.key for ref in written}) == len(written)
    read = []
    for user in range(4):
        requests = first(schedule, user, 9)
        assert (
            [r.context for r in requests[:3]] == [r.context for r in requests[3:6]] == [r.context for r in requests[6:]]
        )
        assert all(not r.prefill and r.history == () and r.decode_passes >= 1 for r in requests)
        read += [ref for request in requests[:3] for ref in request.context]
    assert read == written


def test_a_users_requests_do_not_depend_on_which_users_were_asked_first(make_config: Make) -> None:
    config = make_config(workload={"users": 6})
    one, other = PersonaSchedule(config, 0), PersonaSchedule(config, 0)
    forward = [first(one, user, 10) for user in range(6)]
    backward = [first(other, user, 10) for user in reversed(range(6))]
    assert forward == backward[::-1]
    streams = [one.stream(user) for user in range(6)]
    assert [[next(stream) for stream in streams] for _ in range(10)] == [
        list(turn) for turn in zip(*forward, strict=True)
    ]


def test_a_users_requests_do_not_depend_on_the_number_of_users(make_config: Make) -> None:
    few = PersonaSchedule(make_config(workload={"users": 2, "mix": {"chatbot": 1}}), 0)
    many = PersonaSchedule(make_config(workload={"users": 50, "mix": {"chatbot": 1}}), 0)
    assert [r.context for r in first(few, 1, 20)] == [r.context for r in first(many, 1, 20)]


def test_ranks_and_seeds_ask_for_different_things(make_config: Make) -> None:
    sizes = {
        tuple(r.context_tokens for r in first(PersonaSchedule(make_config(seed=seed), rank), 0, 5))
        for seed, rank in ((42, 0), (42, 1), (7, 0))
    }
    assert len(sizes) == 3


def test_request_numbers_are_unique_and_the_same_in_every_pacing(make_config: Make) -> None:
    closed = PersonaSchedule(make_config(workload={"users": 4}), 0)
    merged = PersonaSchedule(make_config(workload={"users": 4}, pacing={"mode": "asap"}), 0)
    by_user = {r.number: r.context for user in range(4) for r in first(closed, user, 10)}
    assert closed.closed_loop
    assert closed.users == 4
    assert not merged.closed_loop
    assert merged.users == 1
    assert {r.number: r.context for r in first(merged, 0, 40)} == by_user
    assert [r.number for r in first(merged, 0, 40)] == list(range(40))
    assert {r.arrival_ns for r in first(merged, 0, 40)} == {0}


def test_open_loop_takes_users_in_turn_at_poisson_arrivals(make_config: Make) -> None:
    pacing = {"mode": "open", "requests_per_s": 50}
    schedule = PersonaSchedule(make_config(workload={"users": 4}, pacing=pacing), 0)
    requests = first(schedule, 0, 5000)
    assert [r.user for r in requests[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    arrivals = [r.arrival_ns for r in requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] / 5000 == pytest.approx(20_000_000, rel=0.05)
    gaps = sorted(later - earlier for earlier, later in zip([0, *arrivals], arrivals, strict=False))
    assert gaps[2500] == pytest.approx(0.693 * 20_000_000, rel=0.08)


def test_speedup_divides_the_arrival_times(make_config: Make) -> None:
    slow, fast = (
        first(
            PersonaSchedule(make_config(pacing={"mode": "open", "requests_per_s": 10, "speedup": speedup}), 0), 0, 100
        )
        for speedup in (1, 4)
    )
    assert all(abs(s.arrival_ns - 4 * f.arrival_ns) <= 4 for s, f in zip(slow, fast, strict=True))


def test_think_time_scale_of_zero_means_no_think_times(make_config: Make) -> None:
    schedule = PersonaSchedule(make_config(workload={"think_time_scale": 0}), 0)
    assert {r.arrival_ns for r in first(schedule, 0, 20)} == {0}


def test_there_is_no_stream_beyond_the_users(make_config: Make) -> None:
    with pytest.raises(IndexError, match="there are 20"):
        PersonaSchedule(make_config(), 0).stream(20)
