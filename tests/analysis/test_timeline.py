"""The timeline: every byte, operation and request is in its second, and in no other."""

import math
from itertools import pairwise
from pathlib import Path as FilePath

import kvbench_analysis as ka
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvbench_analysis.tables.time_bins import block_count, block_numbers, spread
from kvbench_analysis.tables.timeline import FLOW_COLUMNS, NODE_COLUMNS, RANK_COLUMNS
from synthetic import (
    END_NS,
    START_NS,
    SyntheticRun,
    empty_run,
    record_rows,
    run_attributes,
    run_tables,
)

from kvbench.records.schema import REQUEST_DTYPE, Op, Phase

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def found(run_path: FilePath) -> ka.Timeline:
    return ka.timeline(ka.load(run_path))


def some(content: SyntheticRun, folder: FilePath, **rows: list[int]) -> ka.Timeline:
    """The timeline of reads with these values in their columns; the window has ten seconds."""
    count = len(next(iter(rows.values())))
    records = record_rows(np.random.default_rng(1), count)
    for name, values in rows.items():
        records[name] = values
    requests = np.empty(0, REQUEST_DTYPE)
    content = SyntheticRun(records, requests, run_attributes(1, 1), run_tables(records, requests, 1, 1))
    return ka.timeline(ka.load(content.write(folder / "run.h5")))


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 90), st.integers(0, 1000), st.integers(0, 2)), max_size=15),
    st.integers(3, 30),
)
def test_an_amount_is_spread_evenly_over_its_duration(rows: list[tuple[int, int, int, int]], step: int) -> None:
    table = np.array(rows, np.int64).reshape(-1, 4)
    edges = np.append(np.arange(40, 100, step), 100)
    found = spread(table[:, 0], table[:, 1], (table[:, 2],), edges, table[:, 3], 3)[0]
    expected = np.zeros((3, len(edges) - 1))
    for start, wall, amount, line in rows:
        for part, (low, high) in enumerate(pairwise(edges)):
            inside = max(0, min(start + wall, high) - max(start, low)) / wall if wall else low <= start < high
            expected[line, part] += amount * inside
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_bytes_of_all_seconds_are_those_of_the_summary(found: ka.Timeline, run_path: FilePath) -> None:
    summary = ka.summarize(ka.load(run_path))
    window_s = float(str(summary.run["window_s"]))
    expected = summary.operations.assign(
        direction=np.where(summary.operations["op"].isin(["read", "promote", "prefetch"]), "read", "write")
    )
    rates = expected[expected["bytes"] > 0].groupby(["tier", "direction"])["gib_per_s"].sum()
    flows = found.flows
    moved = (flows["gib_per_s"] * flows["seconds"]).groupby([flows["tier"], flows["direction"]]).sum() / window_s
    assert moved.to_dict() == pytest.approx(rates.to_dict())
    ranks = found.ranks
    by_rank = ((ranks["read_gib_per_s"] + ranks["write_gib_per_s"]) * ranks["seconds"]).sum() / window_s
    assert by_rank == pytest.approx(rates.sum())


def test_the_requests_of_all_seconds_are_those_of_the_run(found: ka.Timeline, truth: SyntheticRun) -> None:
    requests = truth.requests
    mine = requests[(requests["phase"] == Phase.MEASURE) & (requests["start_ns"] < END_NS)]
    assert found.nodes["requests"].sum() == len(mine)
    first = mine[(mine["start_ns"] < START_NS + SECOND) & (mine["rank"] < 2)]
    rate = first["hit_objects"].sum() / (first["hit_objects"].sum() + first["miss_objects"].sum())
    assert found.nodes["prefix_blocks"].iloc[0] == pytest.approx(rate)


def test_every_node_and_rank_has_every_second(found: ka.Timeline) -> None:
    assert list(found.nodes.columns) == list(NODE_COLUMNS)
    assert list(found.flows.columns) == list(FLOW_COLUMNS)
    assert list(found.ranks.columns) == list(RANK_COLUMNS)
    assert found.nodes[["node", "second"]].to_numpy().tolist() == [[node, s] for node in (0, 1) for s in range(10)]
    assert found.ranks[["rank", "second"]].to_numpy().tolist() == [[rank, s] for rank in range(4) for s in range(10)]
    assert found.nodes["host"].tolist() == ["client0"] * 10 + ["client1"] * 10
    assert found.nodes.loc[0, "start_ns"] == START_NS


def test_a_long_operation_is_in_flight_in_every_second_it_lasts(truth: SyntheticRun, tmp_path: FilePath) -> None:
    found = some(truth, tmp_path, t_start_ns=[START_NS + SECOND // 2], wall_ns=[2 * SECOND], nbytes=[2**30])
    assert found.nodes["in_flight"].tolist() == pytest.approx([0.5, 1, 0.5] + [0] * 7)
    assert found.flows["gib_per_s"].tolist() == pytest.approx([0.25, 0.5, 0.25] + [0] * 7)
    assert found.ranks["in_flight"].tolist() == pytest.approx([0.5, 1, 0.5] + [0] * 7)


def test_what_is_not_measured_is_in_flight_and_moves_nothing(truth: SyntheticRun, tmp_path: FilePath) -> None:
    same = {"t_start_ns": [START_NS] * 4, "wall_ns": [SECOND] * 4, "nbytes": [2**30, 2**30, 2**30, 0]}
    found = some(
        truth, tmp_path, **same, phase=[Phase.MEASURE, Phase.WARMUP, Phase.MEASURE, Phase.MEASURE], errno=[0, 0, 5, 0]
    )
    assert found.nodes["in_flight"].iloc[0] == pytest.approx(3)
    assert found.flows["gib_per_s"].iloc[0] == pytest.approx(1)


def test_demotes_write_to_the_slower_tier_and_promotes_read_from_it(truth: SyntheticRun, tmp_path: FilePath) -> None:
    same = {"t_start_ns": [START_NS] * 3, "wall_ns": [SECOND] * 3, "nbytes": [2**30] * 3}
    found = some(truth, tmp_path, **same, op=[Op.DEMOTE, Op.PROMOTE, Op.WRITE])
    first = found.flows[found.flows["second"] == 0].set_index("direction")["gib_per_s"]
    assert first.to_dict() == pytest.approx({"read": 1, "write": 2})


def test_counters_become_rates_and_percentages_means(truth: SyntheticRun, tmp_path: FilePath) -> None:
    moments = START_NS + np.array([-500_000_000, 500_000_000, 1_500_000_000, 2_500_000_000])
    samples = {
        "node": np.zeros(4, np.int32),
        "t_ns": moments,
        "cpu_user_pct": np.array([99.0, 10.0, 30.0, 50.0]),
        "cpu_steal_pct": np.array([-1.0, -1.0, -1.0, -1.0]),
        "memory_available_bytes": np.array([1000, 2000, 3000, 4000]),
        "psi_io_some_us": np.array([0, 100_000, 300_000, 600_000]),
        "disk_read_bytes": np.array([0, 2**30, 3 * 2**30, 3 * 2**30]),
        "net_recv_bytes": np.array([5 * 2**30, 6 * 2**30, 0, 2**30]),
    }
    content = truth.changed(tables={"samples": samples})
    nodes = ka.timeline(ka.load(content.write(tmp_path / "run.h5"))).nodes.head(4)
    assert nodes["cpu_user_pct"].tolist() == pytest.approx([20, 40, 50, math.nan], nan_ok=True)
    assert nodes["psi_io_some_pct"].tolist() == pytest.approx([15, 25, 30, math.nan], nan_ok=True)
    assert nodes["disk_read_gib_per_s"].tolist() == pytest.approx([1.5, 1, 0, math.nan], nan_ok=True)
    # The counter was set back between the second and the third sample, of which nothing is known.
    assert nodes["net_recv_gib_per_s"].tolist() == pytest.approx([1, 1, 1, math.nan], nan_ok=True)
    assert nodes["memory_available_bytes"].tolist() == pytest.approx([2000, 3000, 4000, math.nan], nan_ok=True)
    assert nodes["cpu_steal_pct"].isna().all()
    assert nodes["disk_write_gib_per_s"].isna().all()


def test_a_shorter_last_part_has_its_own_length(truth: SyntheticRun, tmp_path: FilePath) -> None:
    run = ka.load(truth.write(tmp_path / "run.h5"))
    found = ka.timeline(run, step_s=3)
    assert found.nodes["seconds"].tolist() == [3, 3, 3, 1] * 2
    whole = ka.timeline(run, step_s=10)
    for table, other in ((found.ranks, whole.ranks),):
        assert (table["in_flight"] * table["seconds"]).sum() == pytest.approx((other["in_flight"] * 10).sum())


def test_a_run_without_a_window_is_shown_from_its_first_to_its_last_operation(
    truth: SyntheticRun, tmp_path: FilePath
) -> None:
    content = truth.changed(attributes={"measure_start_ns": 0, "measure_end_ns": 0}, tables={"samples": None})
    found = ka.timeline(ka.load(content.write(tmp_path / "run.h5")))
    measured = truth.records[(truth.records["phase"] == Phase.MEASURE)]
    assert found.nodes["start_ns"].min() == measured["t_start_ns"].min()
    assert found.nodes["cpu_user_pct"].isna().all()


def test_an_empty_run_is_idle_and_one_without_a_window_has_no_seconds(tmp_path: FilePath) -> None:
    idle = ka.timeline(ka.load(empty_run().write(tmp_path / "idle.h5")))
    assert (len(idle.nodes), len(idle.flows), len(idle.ranks)) == (0, 0, 0)
    content = empty_run().changed(attributes={"measure_start_ns": 0, "measure_end_ns": 0})
    found = ka.timeline(ka.load(content.write(tmp_path / "none.h5")))
    assert list(found.nodes.columns) == list(NODE_COLUMNS)
    assert (len(found.nodes), len(found.flows), len(found.ranks)) == (0, 0, 0)


def test_blocks_are_longer_than_operations() -> None:
    assert block_count(60e9, 1e6) == 20
    assert block_count(60e9, 1e9) == 6
    assert block_count(60e9, 60e9) == 5
    assert block_count(60e9, 0.0) == 20
    moments = np.array([-5, 0, 24, 25, 99, 100, 200])
    assert block_numbers(moments, 0, 100, 4).tolist() == [0, 0, 0, 1, 3, 3, 3]
