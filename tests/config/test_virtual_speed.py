"""What may be asked to seem faster or slower, and what is delayed for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.config.virtual_speed import MOST, PARTS, Part, VirtualSpeed
from kvbench.errors import KvbenchError


def added(speed: VirtualSpeed) -> tuple[float, float, float, float]:
    return speed.device, speed.host, speed.copies, speed.idle


@pytest.mark.parametrize(
    ("part", "shares"),
    [
        ("device", (0, 2, 2, 0)),
        ("host", (2, 0, 0, 0)),
        ("copies", (2, 2, 0, 0)),
        ("cores", (2, 0, 0, 2)),
        ("nothing", (2, 2, 2, 0)),
    ],
)
def test_for_a_part_three_times_as_fast_all_others_take_twice_as_long_on_top(
    part: Part, shares: tuple[float, ...]
) -> None:
    speed = VirtualSpeed(part, 3)
    assert added(speed) == shares
    assert speed.stretch == 3


@pytest.mark.parametrize(
    ("part", "shares"), [("device", (1, 0, 0, 0)), ("host", (0, 1, 1, 0)), ("copies", (0, 0, 1, 0))]
)
def test_a_part_at_half_its_speed_is_delayed_by_itself(part: Part, shares: tuple[float, ...]) -> None:
    speed = VirtualSpeed(part, 0.5)
    assert added(speed) == shares
    assert speed.stretch == 1


@pytest.mark.parametrize("factor", [0, -1, 1, 1.01 * MOST, 0.99 / MOST, float("nan"), float("inf")])
@pytest.mark.parametrize("part", PARTS)
def test_a_factor_that_is_none_is_refused(part: Part, factor: float) -> None:
    with pytest.raises(KvbenchError, match=f"{part}=.*: expected how many times as fast"):
        VirtualSpeed(part, factor)


def test_fewer_cores_are_to_be_had_without_delays() -> None:
    with pytest.raises(KvbenchError, match="taskset"):
        VirtualSpeed("cores", 0.5)
    with pytest.raises(KvbenchError, match="expected more than 1"):
        VirtualSpeed("nothing", 0.5)


@given(st.sampled_from(PARTS), st.floats(1.001, MOST))
def test_the_file_says_what_was_asked_and_by_how_much_times_are_longer(part: Part, factor: float) -> None:
    speed = VirtualSpeed(part, factor)
    assert json.loads(speed.to_json()) == {"part": part, "factor": factor, "stretch": factor}
