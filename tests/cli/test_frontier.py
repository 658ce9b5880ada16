"""`kvbench plan --frontier`: each point is what a plan alone says, and the frontier is of those that no other beats."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvbench_command import Ended, overrides
from samples import sample_trace

from kvbench.run.planning.frontier import undominated
from kvbench.units import KIB, MIB

Call = Callable[..., Ended]

BLOCK = 32 * KIB
"""Of 512 tokens of the smallest model."""
SMALL_MODEL = "model={layers: 1, kv_heads: 1, head_dim: 16}"
TIERS = "tiers=[{kind: memory, capacity_bytes: 1MiB}, {kind: file, capacity_bytes: 4MiB}]"
TB = 10**12


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return sample_trace(tmp_path, "mooncake", requests=400)


def planned(kvbench: Call, trace: Path, *more: object, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    ended = kvbench("plan", "mooncake", *overrides(f"workload.path={trace}", SMALL_MODEL, *settings), "--json", *more)
    assert ended.code == 0, ended.err
    figures: dict[str, Any] = json.loads(ended.out)
    return figures


@pytest.mark.parametrize("tiers", [(), (TIERS,)])
def test_every_point_is_what_the_plan_of_its_configuration_says(
    kvbench: Call, trace: Path, tiers: tuple[str, ...]
) -> None:
    several = ("--frontier", "--capacities", f"{40 * BLOCK}:{160 * BLOCK}:2", "--min-prefix", 4096, "--rate", 3)
    points = planned(kvbench, trace, *several, "--policy", "lru", "--policy", "s3-fifo", settings=tiers)["frontier"]
    ways = {(point["admission"], point["write"], point["policy"]) for point in points["points"]}
    assert len(points["points"]) == 2 * len(ways) == (2 if tiers else 1) * 3 * 2 * 2
    for point in points["points"]:
        admission = point["admission"] if point["admission"] in ("always", "second-use") else "always"
        settings = (
            f"cache.admission={admission}",
            f"cache.min_prefix_tokens={point['min_prefix_tokens']}",
            f"cache.write={point['write']}",
            f"cache.policy={point['policy']}",
        )
        alone = planned(
            kvbench, trace, "--capacity", point["capacity_bytes_per_rank"], "--rate", 3, settings=(*tiers, *settings)
        )
        last = alone["tiers"][-1]
        assert point["hit_blocks"] == alone["prefix"]["hit_blocks"]
        assert point["block_hit_share"] == alone["prefix"]["block_hit_share"]
        assert point["written_bytes"] == last["written_bytes"]
        assert point["written_bytes_per_day"] == pytest.approx(last["at_rate"]["written_bytes_per_day"])
        assert point["capacity_writes_per_day"] == pytest.approx(last["at_rate"]["drive_writes_per_day"])


def test_the_frontier_costs_what_it_says_by_hand(kvbench: Call, trace: Path) -> None:
    """At 3 requests a second; on two drives of 1 TB, rated for one write a day over five years."""
    figures = planned(
        kvbench, trace, "--frontier", "--capacity", "4MiB", "--rate", 3, "--rated-dwpd", 1, "--drive-capacity", "1TB",
        "--drives", 2,
    )  # fmt: skip
    assert {point["capacity_bytes_per_rank"] for point in figures["frontier"]["points"]} == {4 * MIB}
    for point in figures["frontier"]["points"]:
        per_day = point["written_bytes"] / 400 * 3 * 86_400
        assert point["written_bytes_per_request"] == point["written_bytes"] / 400
        assert point["written_bytes_per_day"] == pytest.approx(per_day)
        assert point["capacity_writes_per_day"] == pytest.approx(per_day / (4 * MIB))
        assert point["rated"]["drive_writes_per_day"] == pytest.approx(per_day / (2 * TB))
        assert point["rated"]["years"] == pytest.approx(2 * 1825 * TB / per_day / 365)
    always = figures["frontier"]["points"][0]
    assert figures["endurance"]["years"] == pytest.approx(always["rated"]["years"])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_on_the_frontier_is_whom_nobody_beats(points: list[tuple[int, int]]) -> None:
    found, written = np.array(points).T
    expected = [
        not any(
            (f >= found[own] and w <= written[own]) and (f > found[own] or w < written[own])
            for f, w in zip(found, written, strict=True)
        )
        for own in range(len(points))
    ]
    assert undominated(found, written).tolist() == expected
    assert any(expected)


def test_the_table_marks_the_frontier_and_the_best_of_each_capacity_and_the_picture_is_drawn(
    kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    words = ("plan", "mooncake", *overrides(f"workload.path={trace}", SMALL_MODEL, TIERS), "--frontier")
    words = (*words, "--capacities", f"{20 * BLOCK}:{160 * BLOCK}:3", "--rated-tbw", "1TB")
    ended = kvbench(*words, "--plot", tmp_path / "frontier.png")
    assert ended.code == 0, ended.err
    assert "decided and not measured" in ended.out
    assert "endurance: " in ended.out
    assert " years of 1 drive rated for 1 TB, at " in ended.out
    points = planned(kvbench, trace, *words[6:][2:], settings=(TIERS,))["frontier"]["points"]
    rows = [line for line in ended.out.splitlines() if line.strip().startswith(("always", "second-use"))]
    assert len(rows) == len(points) == 12
    assert sum(row.rstrip().endswith("*") for row in rows) == sum(point["on_frontier"] for point in points)
    assert all(point["best_of_capacity"] for point in points if point["on_frontier"])
    by_capacity = itertools.groupby(
        sorted(points, key=lambda p: p["capacity_bytes_per_rank"]), lambda p: p["capacity_bytes_per_rank"]
    )
    assert all(any(point["best_of_capacity"] for point in group) for _, group in by_capacity)
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_without_a_rate_there_is_no_day(kvbench: Call, trace: Path) -> None:
    figures = planned(kvbench, trace, "--frontier", "--rated-tbw", "1TB", settings=("pacing.mode=asap",))
    assert "endurance" not in figures
    for point in figures["frontier"]["points"]:
        assert (point["written_bytes_per_day"], point["rated"], point["capacity_writes_per_day"]) == (None, None, None)
    ended = kvbench(
        "plan", "mooncake", *overrides(f"workload.path={trace}", SMALL_MODEL, "pacing.mode=asap"), "--frontier"
    )
    assert "written a request" in ended.out
    assert "TB a day" not in ended.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min-prefix", "4096"), "--min-prefix is for --frontier"),
        (("--frontier", "--sample", "0.1", "--capacities", "1MiB:2MiB"), "--sample estimates hits alone"),
        (("--frontier", "--rated-dwpd", "1"), "drive writes per day are of a drive's capacity: give that too"),
        (("--rated-tbw", "1TB", "--rated-dwpd", "1"), "give one (--rated-tbw, or --rated-dwpd and --drive-capacity)"),
        (("--rated-tbw", "0"), "expected a size above 0"),
        (("--rated-tbw", "1TB", "--warranty-years", "3"), "--warranty-years goes with --rated-dwpd"),
        (("--drives", "4"), "give one (--rated-tbw"),
    ],
)
def test_what_does_not_go_together_is_refused(kvbench: Call, trace: Path, options: tuple[str, ...], said: str) -> None:
    ended = kvbench("plan", "mooncake", *overrides(f"workload.path={trace}"), *options)
    assert ended.code == 2
    assert said in ended.err


def test_a_capacity_that_holds_no_block_is_told(kvbench: Call, trace: Path) -> None:
    ended = kvbench("plan", "mooncake", *overrides(f"workload.path={trace}"), "--frontier", "--capacities", "1KiB:1GiB")
    (message,) = ended.messages
    assert "the smallest capacity, 1 KiB, holds no block" in message


def test_a_drive_in_the_configuration_counts_and_changes_no_fingerprint(kvbench: Call, trace: Path) -> None:
    drive = "drive={dwpd: 1, capacity_bytes: 1TB, count: 2}"
    rated, plain = (planned(kvbench, trace, "--rate", 3, settings=more) for more in ((drive,), ()))
    assert rated["fingerprint"] == plain["fingerprint"]
    assert rated["endurance"]["rated_tbw_bytes"] == 1825 * TB
    assert rated["endurance"]["drives"] == 2
    assert "endurance" not in plain
    for wrong, said in (
        ("{dwpd: 1}", "give that too"),
        ("{capacity_bytes: 1TB}", "give tbw_bytes"),
        ("{tbw_bytes: 0}", ""),
    ):
        ended = kvbench("plan", "mooncake", *overrides(f"workload.path={trace}", f"drive={wrong}"))
        assert ended.code == 1
        assert "drive" in ended.messages[0]
        assert said in ended.messages[0]
