"""Turns of sessions, and when the next is expected."""

from typing import Any

import pytest
from trace_rows import of_sessions

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.workload.turns import Turns, rows_of


def config_of(**cache: Any) -> RunConfig:
    return parse_config(
        {
            "workload": {"kind": "trace", "path": "x", "deal": "session"},
            "pacing": {"mode": "open"},
            "cache": cache,
            "duration_s": None,
        },
        "test",
    )


def test_turns_follow_each_other_in_their_session_alone() -> None:
    turns = Turns(of_sessions([1, -1, 1, 0, -1, 0, 1], [0, 1, 2, 3, 4, 9, 11], [-1, -1, 2, -1, -1, 5, -1]))
    assert turns.next.tolist() == [2, -1, 6, 5, -1, -1, -1]
    assert turns.first.tolist() == [True, True, False, True, True, False, False]
    # A gap that is not known is the distance from the turn before.
    assert [gap // 10**9 for gap in turns.gap_ns[[2, 5, 6]].tolist()] == [2, 5, 9]


def test_without_prefetch_there_are_requests_alone() -> None:
    rows = rows_of(config_of(), of_sessions([0, 0, 0], [0, 1, 5]))
    assert rows.position.tolist() == [0, 1, 2]
    assert not rows.prefetch.any()


@pytest.mark.parametrize(
    ("arrivals_s", "lead", "expected"),
    [
        # After the second turn the third is expected at 20, after the third, at 21, the fourth at 32: there is none.
        ([0, 10, 21], "2s", [(0, 0), (1, 10), ("ahead", 1, 18), (2, 21), ("ahead", 2, 30)]),
        # The third comes before it is expected.
        ([0, 10, 15], "2s", [(0, 0), (1, 10), (2, 15), ("ahead", 2, 18)]),
        # Never before the turn itself.
        ([0, 3, 30], "5s", [(0, 0), (1, 3), ("ahead", 1, 3), (2, 30), ("ahead", 2, 52)]),
    ],
)
def test_blocks_are_brought_up_before_a_turn_is_expected(
    arrivals_s: list[int], lead: str, expected: list[tuple[object, ...]]
) -> None:
    config = config_of(prefetch="expected", prefetch_lead_s=lead)
    rows = rows_of(config, of_sessions([0, 0, 0], arrivals_s))
    found = [
        ("ahead", position, time // 10**9) if ahead else (position, time // 10**9)
        for position, ahead, time in zip(
            rows.position.tolist(), rows.prefetch.tolist(), rows.time_ns.tolist(), strict=True
        )
    ]
    assert found == expected


def test_what_is_not_yet_known_decides_nothing() -> None:
    """What happens until a moment is the same whatever comes behind it."""
    config = config_of(prefetch="expected", prefetch_lead_s="2s")
    early, late = (rows_of(config, of_sessions([0] * 4, [0, 10, 21, last])) for last in (29, 900))
    until = 28 * 10**9
    assert early.at(early.time_ns <= until).time_ns.tolist() == late.at(late.time_ns <= until).time_ns.tolist()
