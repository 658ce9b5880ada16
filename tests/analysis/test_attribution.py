"""Attribution: the shares of the slowest operations' time, where they ran, and which ranks stand out."""

import math
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.contention.attribution import MEDIAN_COLUMNS, PARTS, PLACE_COLUMNS, SHARE_COLUMNS
from numpy.typing import NDArray
from synthetic import SyntheticRun, empty_run, record_rows, run_attributes, run_tables, synthetic_run

from kvbench.records.schema import REQUEST_DTYPE, Phase


def run_of(rows: list[NDArray[Any]], *, nodes: int = 1) -> SyntheticRun:
    """A run of these rows of each rank."""
    records, requests = np.concatenate(rows), np.empty(0, REQUEST_DTYPE)
    tables = run_tables(records, requests, len(rows), nodes)
    return SyntheticRun(records, requests, run_attributes(len(rows), nodes), tables)


def attributed(content: SyntheticRun, folder: FilePath) -> ka.Attribution:
    return ka.attribution(ka.load(content.write(folder / "run.h5")))


def alike_ranks(ranks: int, operations: int = 400) -> list[NDArray[Any]]:
    rng = np.random.default_rng(4)
    return [record_rows(rng, operations, rank=rank) for rank in range(ranks)]


def slow_down(rows: NDArray[Any], part: str, factor: float) -> None:
    extra = (rows["wall_ns"] * (factor - 1)).astype(np.int64)
    rows[f"{part}_ns"] += extra
    if part != "queue":
        rows["wall_ns"] += extra


def test_the_shares_are_those_of_the_operations_beyond_the_percentile(tmp_path: FilePath) -> None:
    content = synthetic_run(np.random.default_rng(3))
    found = attributed(content, tmp_path).shares
    rows = content.records[(content.records["phase"] == Phase.MEASURE) & (content.records["errno"] == 0)]
    frame = pd.DataFrame({name: rows[name] for name in ("op", "tier", "wall_ns", *(f"{part}_ns" for part in PARTS))})
    frame["total"] = frame["wall_ns"] + frame["queue_ns"]
    reads = frame[(frame["op"] == 0) & (frame["tier"] == 1)]
    for tail, level in (("p95", 0.95), ("p99", 0.99)):
        threshold = reads["total"].quantile(level)
        slow, rest = reads[reads["total"] >= threshold], reads[reads["total"] < threshold]
        mine = found[(found["tail"] == tail) & (found["tier"] == "storage") & (found["op"] == "read")].set_index("part")
        assert (mine["operations"] == len(slow)).all()
        assert mine["threshold_ns"].tolist() == pytest.approx([threshold] * 4)
        for part in PARTS:
            row = mine.loc[part]
            assert row["share"] == pytest.approx(slow[f"{part}_ns"].sum() / slow["total"].sum())
            assert row["rest_share"] == pytest.approx(rest[f"{part}_ns"].sum() / rest["total"].sum())
            assert row["mean_ns"] == pytest.approx(slow[f"{part}_ns"].mean())


def test_shares_of_every_tail_add_up_to_one(tmp_path: FilePath) -> None:
    found = attributed(synthetic_run(np.random.default_rng(3)), tmp_path).shares
    sums = found.groupby(["tier", "op", "path", "tail"])[["share", "rest_share", "excess_share"]].sum()
    np.testing.assert_allclose(sums, 1)


def test_the_part_that_slows_the_tail_has_its_excess(tmp_path: FilePath) -> None:
    rows = alike_ranks(1, 2000)
    rows[0]["host_ns"][::25] += 50_000_000
    rows[0]["wall_ns"][::25] += 50_000_000
    shares = attributed(run_of(rows), tmp_path).shares.query("tail == 'p95' and part == 'host'").iloc[0]
    assert shares["excess_share"] > 0.9
    assert shares["share"] > 0.9
    assert shares["rest_share"] < 0.5


def test_a_slow_node_has_the_tail_and_its_lift_says_how_much_of_it(tmp_path: FilePath) -> None:
    rows = alike_ranks(4)
    for rank in (2, 3):
        slow_down(rows[rank], "device", 100)
    places = attributed(run_of(rows, nodes=2), tmp_path).places.query("tail == 'p95'")
    nodes = places[places["scope"] == "node"].set_index("node")
    assert nodes["tail_share"].tolist() == [0.0, 1.0]
    assert nodes["lift"].tolist() == [0.0, 2.0]
    ranks = places[places["scope"] == "rank"]
    assert ranks["tail_operations"].sum() == 80
    assert ranks["host"].tolist() == ["client0", "client0", "client1", "client1"]


@pytest.mark.parametrize("part", PARTS)
def test_a_rank_that_is_out_of_line_is_named_with_what_slows_it(tmp_path: FilePath, part: str) -> None:
    rows = alike_ranks(6)
    slow_down(rows[4], part, 3)
    found = attributed(run_of(rows), tmp_path)
    assert found.stragglers[["scope", "rank", "slow_part"]].to_numpy().tolist() == [["rank", 4, part]]
    row = found.stragglers.iloc[0]
    assert row["score"] > 3.5
    assert row["ratio"] == pytest.approx(3, rel=0.2)


def test_ranks_that_are_alike_have_no_straggler(tmp_path: FilePath) -> None:
    assert attributed(run_of(alike_ranks(12)), tmp_path).stragglers.empty


def test_a_rank_that_is_a_little_slower_than_equal_ones_is_none(tmp_path: FilePath) -> None:
    rows = [alike_ranks(1)[0].copy() for _ in range(6)]
    for rank, mine in enumerate(rows):
        mine["rank"] = rank
    slow_down(rows[5], "host", 1.05)
    found = attributed(run_of(rows), tmp_path)
    assert found.medians.query("scope == 'rank' and rank == 5")["score"].iloc[0] > 3.5
    assert found.stragglers.empty


def test_a_fast_rank_is_no_straggler(tmp_path: FilePath) -> None:
    rows = alike_ranks(6)
    rows[0]["wall_ns"] //= 10
    for part in ("device", "host", "runq", "queue"):
        rows[0][f"{part}_ns"] //= 10
    assert attributed(run_of(rows), tmp_path).stragglers.empty


@pytest.mark.parametrize("ranks", [1, 3])
def test_three_ranks_are_too_few_to_tell_which_one_is_out_of_line(tmp_path: FilePath, ranks: int) -> None:
    rows = alike_ranks(ranks)
    slow_down(rows[-1], "device", 100)
    found = attributed(run_of(rows), tmp_path)
    assert found.stragglers.empty
    assert found.medians["score"].isna().all()


def test_a_rank_with_few_operations_is_not_judged(tmp_path: FilePath) -> None:
    rows = alike_ranks(5)
    rows[4] = rows[4][:10]
    slow_down(rows[4], "device", 100)
    found = attributed(run_of(rows), tmp_path)
    assert found.stragglers.empty
    assert math.isnan(found.medians.query("scope == 'rank' and rank == 4")["score"].iloc[0])


def test_an_empty_run_has_empty_tables(tmp_path: FilePath) -> None:
    found = attributed(empty_run(), tmp_path)
    assert list(found.shares.columns) == list(SHARE_COLUMNS)
    assert list(found.places.columns) == list(PLACE_COLUMNS)
    assert list(found.medians.columns) == list(MEDIAN_COLUMNS)
    assert found.stragglers.empty


def test_one_operation_is_its_own_tail(tmp_path: FilePath) -> None:
    rows = alike_ranks(1, 1)
    found = attributed(run_of(rows), tmp_path)
    assert found.shares["operations"].tolist() == [1] * 8
    assert found.shares.groupby("tail")["share"].sum().tolist() == pytest.approx([1, 1])
    assert found.shares["rest_share"].isna().all()
    assert found.places["lift"].tolist() == [1.0] * 4
