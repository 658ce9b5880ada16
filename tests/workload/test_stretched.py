"""A stretched schedule asks for the same, at a slower pace."""

from dataclasses import replace

from kvbench.config.load import parse_config
from kvbench.workload.build import build_schedule
from kvbench.workload.request import Request
from kvbench.workload.stretched import StretchedSchedule

SESSIONS = {
    "workload": {"kind": "sessions", "users": 3, "span_s": 30},
    "pacing": {"mode": "closed"},
    "duration_s": None,
    "model": "tiny-1b",
}


def all_of(request: Request) -> list[Request]:
    """It and all that follow in its session."""
    followers = request.followers() if request.followers is not None else []
    return [request, *(later for follower in followers for later in all_of(follower))]


def plain(request: Request) -> Request:
    return replace(request, arrival_ns=0, generation_ns=0)


def test_every_time_of_every_turn_is_as_many_times_as_long_and_nothing_else_is_changed() -> None:
    config = parse_config(SESSIONS, "test")
    as_it_is = [turn for first in build_schedule(config, 0, 1).stream(0) for turn in all_of(first)]
    schedule = StretchedSchedule(build_schedule(config, 0, 1), 2.5)
    stretched = [turn for first in schedule.stream(0) for turn in all_of(first)]
    assert len(as_it_is) > 5
    assert any(request.followers is not None for request in as_it_is)
    assert [plain(request) for request in stretched] == [plain(request) for request in as_it_is]
    assert [turn.arrival_ns for turn in stretched] == [round(2.5 * turn.arrival_ns) for turn in as_it_is]
    assert any(turn.arrival_ns for turn in stretched)
    clocks = [
        (before.chain.time_ns, after.chain.time_ns)
        for before, after in zip(as_it_is, stretched, strict=True)
        if before.chain and after.chain
    ]
    assert all(before == after for before, after in clocks), "times to live count by the clock of the workload"


def test_simulated_generation_and_think_times_are_stretched() -> None:
    config = parse_config({"model": "tiny-1b", "workload": {"users": 4}}, "test")
    schedule = build_schedule(config, 0, 1)
    stretched = StretchedSchedule(schedule, 4)
    assert (stretched.users, stretched.closed_loop) == (schedule.users, schedule.closed_loop)
    assert stretched.largest_object_tokens() == schedule.largest_object_tokens()
    before, after = next(schedule.stream(1)), next(stretched.stream(1))
    assert (after.arrival_ns, after.generation_ns) == (4 * before.arrival_ns, 4 * before.generation_ns)
    assert before.arrival_ns
