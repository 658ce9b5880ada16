"""Contention: how many others were active is counted exactly, and the cost against it is that of a known machine."""

import dataclasses
import errno
import math
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from ground_truth import Load, Sharing, shared_bandwidth_run, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from kvbench_analysis.contention.sweep import others_active
from numpy.typing import NDArray
from synthetic import SyntheticRun, empty_run, synthetic_run

from kvbench.records.schema import Op, Path, Phase

MS = 1e6


def levels(counts: list[int], rounds: int, rng: np.random.Generator, ms: float = 4.0) -> list[Load]:
    """Loads of these numbers of workers, `rounds` times, in an order drawn by `rng`."""
    loads = [Load(count, ms * MS) for _ in range(rounds) for count in counts]
    rng.shuffle(loads)
    return loads


def analysed(content: SyntheticRun, folder: FilePath) -> ka.Contention:
    return ka.contention(ka.load(content.write(folder / "run.h5", overwrite=True)))


def the_factor(found: ka.Contention, **equal: Any) -> dict[Any, Any]:
    rows = [
        row
        for row in found.factors.to_dict("records")
        if all(row[name] == value for name, value in ({"scope": "all"} | equal).items())
    ]
    assert len(rows) == 1
    return dict(rows[0])


# Counting


def counted_one_by_one(
    start: NDArray[np.int64], wall: NDArray[np.int64], rank: NDArray[np.int64]
) -> tuple[list[float], list[float], list[float]]:
    """Others, others by the harmonic mean, and other ranks, by looking at every ns of every operation."""
    operations, sharing, ranks = [], [], []
    for begin, duration, own in zip(start, wall, rank, strict=True):
        moments = np.arange(begin, begin + max(duration, 1))
        active = (start <= moments[:, None]) & (moments[:, None] < start + wall)
        count = active.sum(axis=1)
        busy = [(active & (rank == other)).any(axis=1).mean() for other in set(rank.tolist()) - {int(own)}]
        # An operation of no duration is not among the active ones itself.
        itself = 1 if duration else 0
        operations.append(float(count.mean()) - itself)
        sharing.append(1 / float((1 / count).mean()) - 1 if duration else float(count.mean()))
        ranks.append(float(sum(busy)))
    return operations, sharing, ranks


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=25))
def test_the_sweep_counts_what_looking_at_every_moment_counts(rows: list[tuple[int, int, int]]) -> None:
    table = np.array(rows, np.int64)
    start, wall = table[:, 0] + 4_000_000_000_000_000, table[:, 1]
    rank = np.unique(table[:, 2], return_inverse=True)[1]
    found = others_active(start, wall, rank)
    operations, sharing, ranks = counted_one_by_one(start, wall, rank)
    np.testing.assert_allclose(found.operations, operations, atol=1e-5)
    np.testing.assert_allclose(found.sharing, sharing, atol=1e-5)
    np.testing.assert_allclose(found.ranks, ranks, atol=1e-5)


def test_k_operations_side_by_side_have_k_less_one_others() -> None:
    start, wall = np.full(7, 10, np.int64), np.full(7, 1000, np.int64)
    found = others_active(start, wall, np.array([0, 0, 0, 1, 1, 2, 2]))
    assert found.operations.tolist() == pytest.approx([6.0] * 7)
    assert found.sharing.tolist() == pytest.approx([6.0] * 7)
    assert found.ranks.tolist() == [2.0] * 7


def test_operations_one_after_the_other_have_none() -> None:
    found = others_active(np.array([0, 10, 20]), np.array([10, 10, 10]), np.array([0, 1, 0]))
    assert not found.operations.any()
    assert not found.sharing.any()
    assert not found.ranks.any()


def test_days_of_many_operations_do_not_overflow() -> None:
    rng = np.random.default_rng(1)
    start = np.sort(rng.integers(0, 30 * 86_400 * 10**9, 200_000))
    found = others_active(start, np.full(len(start), 10**13), rng.integers(0, 40, len(start)))
    middle = slice(10_000, -10_000)
    expected = 200_000 * 10**13 / (30 * 86_400 * 10**9)
    assert np.mean(found.operations[middle]) == pytest.approx(expected, rel=0.02)
    assert np.mean(found.ranks[middle]) == pytest.approx(39, rel=0.02)


# What counts


def test_nodes_are_counted_apart_and_every_operation_gets_its_own_row(tmp_path: FilePath) -> None:
    content = synthetic_run(np.random.default_rng(3), ranks=4, nodes=2, operations=200)
    run = ka.load(content.write(tmp_path / "run.h5"))
    found = ka.operations_contention(run)
    records = content.records
    moves = np.isin(records["op"], (Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE)) & (records["nbytes"] > 0)
    measured = moves & (records["phase"] == Phase.MEASURE) & (records["errno"] == 0)
    assert found["row"].tolist() == np.flatnonzero(measured).tolist()
    assert found["rank"].tolist() == records["rank"][measured].tolist()
    assert found["node"].tolist() == (records["rank"][measured] // 2).tolist()
    for node in (0, 1):
        active = (records["nbytes"] > 0) & (records["rank"] // 2 == node)
        own = records[active]
        expected = others_active(own["t_start_ns"], own["wall_ns"], own["rank"] - 2 * node)
        mine = measured[active]
        of_node = found[found["node"] == node]
        np.testing.assert_allclose(of_node["other_operations"], expected.operations[mine], atol=1e-5)
        np.testing.assert_allclose(of_node["other_ranks"], expected.ranks[mine], atol=1e-5)
        np.testing.assert_allclose(of_node["other_sharing"], expected.sharing[mine], atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "others"),
    [
        ({}, 1.0),
        ({"phase": Phase.WARMUP}, 1.0),
        ({"errno": errno.ECANCELED}, 1.0),
        ({"op": Op.PREFETCH}, 1.0),
        ({"nbytes": 0}, 0.0),
    ],
)
def test_what_moved_bytes_was_active_however_it_ended(
    tmp_path: FilePath, changed: dict[str, int], others: float
) -> None:
    content = shared_bandwidth_run(np.array([[0, 1000, 4096, 0], [0, 1000, 4096, 1]]), ranks=2)
    for name, value in changed.items():
        content.records[name][1] = value
    found = ka.operations_contention(ka.load(content.write(tmp_path / "run.h5")))
    assert found["other_operations"].iloc[0] == found["other_ranks"].iloc[0] == others
    assert len(found) == (1 if changed else 2)


# The curve


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticRun, ka.Contention]:
    rng = np.random.default_rng(5)
    rows = simulate(rng, Sharing(10.0, 0.2), levels([1, 2, 3, 4, 5, 6], 10, rng), noise=0.1)
    content = shared_bandwidth_run(rows, ranks=3, nodes=2)
    return content, analysed(content, tmp_path_factory.mktemp("nodes"))


def test_the_curve_has_the_medians_of_the_operations_of_each_bin(
    two_nodes: tuple[SyntheticRun, ka.Contention], tmp_path: FilePath
) -> None:
    content, found = two_nodes
    run = ka.load(content.write(tmp_path / "run.h5"))
    table = ka.operations_contention(run)
    records = content.records[table["row"]]
    table["cost"], table["nbytes"] = records["host_ns"] / records["nbytes"], records["nbytes"]
    for scope, node, mine in (("all", -1, table), ("node", 1, table[table["node"] == 1])):
        for against, column in (("operations", "other_operations"), ("ranks", "other_ranks")):
            curve = found.curve
            curve = curve[(curve["scope"] == scope) & (curve["node"] == node) & (curve["against"] == against)]
            curve = curve[curve["metric"] == "host_ns_per_byte"]
            assert curve["operations"].sum() == len(mine)
            for row in curve.to_dict("records"):
                inside = mine[(mine[column] >= row["bin_low"]) & (mine[column] < row["bin_high"])]
                assert row["operations"] == len(inside)
                assert row["bytes"] == inside["nbytes"].sum()
                assert row["median"] == pytest.approx(inside["cost"].median(), rel=1e-6)
                assert row["mean"] == pytest.approx(
                    (inside["cost"] * inside["nbytes"]).sum() / inside["nbytes"].sum(), rel=1e-5
                )
                assert math.isnan(row["low"]) or row["low"] <= row["median"] <= row["high"]


def test_every_scope_has_its_rows(two_nodes: tuple[SyntheticRun, ka.Contention]) -> None:
    _, found = two_nodes
    assert found.factors[["scope", "node", "rank", "host"]].to_numpy().tolist() == [
        ["all", -1, -1, ""],
        ["node", 0, -1, "client0"],
        ["node", 1, -1, "client1"],
        *(["rank", rank // 3, rank, f"client{rank // 3}"] for rank in range(6)),
    ]
    assert set(found.curve["metric"]) == {"host_ns_per_byte", "device_ns_per_byte", "runq_share"}
    assert set(found.curve["node"]) == {-1, 0, 1}


def test_every_node_and_rank_has_the_factor_of_the_machine(two_nodes: tuple[SyntheticRun, ka.Contention]) -> None:
    _, found = two_nodes
    machine = Sharing(10.0, 0.2)
    for row in found.factors.to_dict("records"):
        assert row["factor"] == pytest.approx(machine.factor(row["others_high"]), rel=0.05)
        assert row["low"] <= row["factor"] <= row["high"]
        assert not row["extrapolated"]


# The factor


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bytes_per_ns=st.floats(1, 50),
    most=st.integers(2, 12),
    ranks=st.integers(1, 4),
    noise=st.sampled_from([0.0, 0.03]),
)
def test_operations_that_share_a_bandwidth_have_the_factor_of_their_number(
    tmp_path_factory: pytest.TempPathFactory, seed: int, bytes_per_ns: float, most: int, ranks: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    machine = Sharing(bytes_per_ns)
    # Lasting long enough for many operations, however quick the machine.
    loads = levels(list(range(1, most + 1)), 8, rng, ms=60 / bytes_per_ns)
    content = shared_bandwidth_run(simulate(rng, machine, loads, noise=noise), ranks=ranks)
    row = the_factor(analysed(content, tmp_path_factory.mktemp("run")))
    assert row["others_high"] == pytest.approx(most - 1, abs=0.1)
    assert row["factor"] == pytest.approx(machine.factor(row["others_high"]), rel=0.05)
    assert row["alone_ns_per_byte"] == pytest.approx(machine.cost(1), rel=0.05)
    assert row["contended_ns_per_byte"] == pytest.approx(machine.cost(1 + row["others_high"]), rel=0.05)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knee=st.floats(1.2, 4.0))
def test_a_machine_that_one_operation_does_not_fill_has_the_factor_of_its_roofline(
    tmp_path_factory: pytest.TempPathFactory, seed: int, knee: float
) -> None:
    rng = np.random.default_rng(seed)
    machine = Sharing(10.0, knee / 10.0)
    content = shared_bandwidth_run(simulate(rng, machine, levels(list(range(1, 9)), 8, rng, ms=6), noise=0.02))
    row = the_factor(analysed(content, tmp_path_factory.mktemp("run")))
    assert row["factor"] == pytest.approx(8 / knee, rel=0.05)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), workers=st.integers(4, 10), rest_ms=st.floats(0.15, 0.4))
def test_so_have_operations_that_come_and_go_at_random(
    tmp_path_factory: pytest.TempPathFactory, seed: int, workers: int, rest_ms: float
) -> None:
    rng = np.random.default_rng(seed)
    machine = Sharing(10.0)
    rows = simulate(rng, machine, [Load(workers, 150 * MS, rest_ms * MS)])
    row = the_factor(analysed(shared_bandwidth_run(rows, ranks=2), tmp_path_factory.mktemp("run")))
    if not math.isnan(row["factor"]):
        assert row["factor"] == pytest.approx(machine.factor(row["others_high"]), rel=0.05)


def test_the_cost_alone_is_extrapolated_where_nothing_was_ever_alone(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(9)
    machine = Sharing(10.0)
    rows = simulate(rng, machine, levels([2, 3, 4, 5, 6, 7, 8], 10, rng))
    row = the_factor(analysed(shared_bandwidth_run(rows), tmp_path))
    assert row["extrapolated"]
    assert row["low"] < row["factor"] / 1.5
    assert row["factor"] == pytest.approx(8.0, rel=0.05)


def test_a_load_that_never_let_up_says_nothing_about_the_cost_alone(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(9)
    rows = simulate(rng, Sharing(10.0), [Load(8, 100 * MS)])
    row = the_factor(analysed(shared_bandwidth_run(rows), tmp_path))
    assert math.isnan(row["factor"])
    assert row["contended_ns_per_byte"] == pytest.approx(0.8, rel=0.01)


def test_without_contention_the_factor_is_one(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(9)
    rows = simulate(rng, Sharing(1e9, 0.3), levels([1, 2, 3, 4], 10, rng), noise=0.1)
    row = the_factor(analysed(shared_bandwidth_run(rows), tmp_path))
    assert row["low"] <= 1 <= row["high"]
    assert row["factor"] == pytest.approx(1, abs=0.03)


# Runs with little in them


def test_an_empty_run_has_empty_tables(tmp_path: FilePath) -> None:
    found = analysed(empty_run(), tmp_path)
    assert (len(found.curve), len(found.factors)) == (0, 0)
    assert "median" in found.curve
    assert "factor" in found.factors
    assert ka.operations_contention(ka.load(tmp_path / "run.h5")).empty


def test_one_operation_has_a_curve_of_one_point_and_no_factor(tmp_path: FilePath) -> None:
    content = shared_bandwidth_run(np.array([[0, 1000, 4000, 0]]))
    found = analysed(content, tmp_path)
    curve = found.curve[(found.curve["scope"] == "all") & (found.curve["against"] == "operations")]
    assert curve["median"].tolist() == [0.25, 0.0, 0.0]
    assert curve["operations"].tolist() == [1, 1, 1]
    assert found.factors["factor"].isna().all()
    assert found.factors["operations"].tolist() == [1, 1, 1]


def test_a_run_without_a_window_or_a_table_of_ranks_is_analysed_all_the_same(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(9)
    content = shared_bandwidth_run(simulate(rng, Sharing(10.0), levels([1, 4], 6, rng)))
    content = content.changed(attributes={"measure_start_ns": 0, "measure_end_ns": 0}, tables={"ranks": None})
    row = the_factor(analysed(content, tmp_path))
    assert row["factor"] == pytest.approx(4, rel=0.05)


def test_kinds_of_operations_are_kept_apart(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(9)
    content = shared_bandwidth_run(simulate(rng, Sharing(10.0), levels([1, 4], 6, rng)))
    records = content.records
    records["op"][::3] = Op.WRITE
    records["path"][::5] = Path.DIRECT
    found = analysed(dataclasses.replace(content, records=records), tmp_path)
    kinds = found.factors.loc[found.factors["scope"] == "all", ["tier", "op", "path"]].to_numpy().tolist()
    assert kinds == [["storage", op, path] for op in ("read", "write") for path in ("buffered", "direct")]
    assert (found.factors["operations"] > 0).all()
    assert found.factors.loc[found.factors["scope"] == "all", "factor"].tolist() == pytest.approx([4.0] * 4, rel=0.05)


def test_the_same_file_gives_the_same_figures(
    two_nodes: tuple[SyntheticRun, ka.Contention], tmp_path: FilePath
) -> None:
    content, found = two_nodes
    again = analysed(content, tmp_path)
    pd.testing.assert_frame_equal(found.factors, again.factors)
    pd.testing.assert_frame_equal(found.curve, again.curve)
