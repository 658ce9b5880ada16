"""When sessions begin: each process has its rate and its spread, is the same every time, and keeps turns apart."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trace_rows import of_sessions

from kvbench.config.load import parse_config
from kvbench.config.run_config import Arrivals, RunConfig
from kvbench.workload.arrival_times import retimed, times_ns
from kvbench.workload.draws import Draws, stream_generator

MANY = 40_000


def drawn(section: dict[str, Any], seed: int = 1) -> Iterator[int]:
    return times_ns(Arrivals(**section), Draws(stream_generator(seed, 0, 2)))


def times_s(section: dict[str, Any], number: int = MANY, seed: int = 1) -> NDArray[np.float64]:
    return np.array(list(islice(drawn(section, seed), number))) / 1e9


def config_of(section: dict[str, Any]) -> RunConfig:
    return parse_config(
        {
            "workload": {"kind": "trace", "path": "x", "deal": "session"},
            "pacing": {"mode": "open"},
            "arrivals": section,
            "duration_s": None,
        },
        "test",
    )


@pytest.mark.parametrize(
    ("section", "cv"),
    [
        ({"process": "constant", "rate": 50}, 0.0),
        ({"process": "poisson", "rate": 50}, 1.0),
        ({"process": "gamma", "rate": 50, "cv": 0.5}, 0.5),
        ({"process": "gamma", "rate": 50, "cv": 1}, 1.0),
        ({"process": "gamma", "rate": 50, "cv": 3}, 3.0),
    ],
)
def test_a_process_has_its_rate_and_its_coefficient_of_variation(section: dict[str, Any], cv: float) -> None:
    gaps = np.diff(times_s(section), prepend=0)
    # Of a mean over n gaps the standard deviation is cv / sqrt(n): five of them.
    assert gaps[1:].mean() == pytest.approx(1 / 50, rel=5 * cv / MANY**0.5 + 1e-9)
    assert gaps[1:].std() / gaps[1:].mean() == pytest.approx(cv, rel=0.1, abs=1e-6)


def test_bursts_come_together_at_their_rate() -> None:
    times = times_s({"process": "bursts", "rate": 4, "burst": 8}, 32)
    assert times.tolist() == [0.0] * 8 + [2.0] * 8 + [4.0] * 8 + [6.0] * 8


@pytest.mark.parametrize(
    ("process", "expected"),
    # Steps: 10 s at 20, 10 s at none, then 5. A ramp through the same points: 10 s of 10 on average, then up to 5.
    [("steps", {5: 100, 10: 200, 20: 200, 40: 300}), ("ramp", {5: 75, 10: 100, 20: 125, 40: 225})],
)
def test_the_rate_follows_steps_and_ramps(process: str, expected: dict[float, int]) -> None:
    steps = ((0, 20), (10, 0), (20, 5))
    counted = {
        at: [np.searchsorted(times_s({"process": process, "steps": steps}, 600, seed), at) for seed in range(40)]
        for at in expected
    }
    for at, number in expected.items():
        assert np.mean(counted[at]) == pytest.approx(number, abs=5 * (number / 40) ** 0.5)
    if process == "steps":
        times = times_s({"process": process, "steps": steps}, 600)
        assert not ((times > 10) & (times < 20)).any()


@pytest.mark.parametrize(
    "section",
    [
        {"process": "poisson", "rate": 3},
        {"process": "gamma", "rate": 3, "cv": 2},
        {"process": "ramp", "steps": [(0, 1), (60, 9)]},
    ],
)
def test_times_never_fall_and_are_the_same_every_time(section: dict[str, Any]) -> None:
    times = times_s(section, 2000)
    assert (np.diff(times) >= 0).all()
    assert (times == times_s(section, 2000)).all()
    assert (times != times_s(section, 2000, seed=2)).any()


def test_a_sequence_that_was_written_down_is_still_the_same() -> None:
    assert list(islice(drawn({"process": "gamma", "rate": 3, "cv": 2}), 4)) == [
        300934,
        3278388477,
        3278390006,
        3352200744,
    ]
    assert list(islice(drawn({"process": "poisson", "rate": 3}), 3)) == [45074249, 57108689, 187537992]


def test_sessions_begin_in_turn_and_their_turns_keep_their_distance() -> None:
    part = of_sessions([4, -1, 4, 7, -1, 7], [0, 1, 2, 3, 4, 5])
    moved = retimed(config_of({"process": "constant", "rate": 0.1}), part, 0)
    by_number = dict(zip(moved.number.tolist(), (moved.arrival_ns / 1e9).tolist(), strict=True))
    assert by_number == {0: 0, 2: 2, 1: 10, 3: 20, 5: 22, 4: 30}
    assert (np.diff(moved.arrival_ns) >= 0).all()
    assert [moved.ids(at).tolist() for at in range(6)] == [[number] for number in moved.number.tolist()]


def test_the_times_of_the_trace_are_left_as_they_are() -> None:
    part = of_sessions([0, 0], [0, 3])
    assert retimed(config_of({}), part, 0) is part
