"""The figures of a summary, against the same figures computed from the rows in another way."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, Literal

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from condensing import condensed, within_window
from kvbench_analysis.summary.summary import measured
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES
from numpy.typing import NDArray
from synthetic import (
    END_NS,
    MEMORY,
    START_NS,
    STORAGE,
    SyntheticRun,
    empty_run,
    record_rows,
    run_attributes,
    synthetic_run,
)

from kvbench.records.schema import REQUEST_DTYPE, Op, Path, Phase, RequestState, TimedBy

TIERS = {MEMORY: "memory", STORAGE: "storage"}
PARTS = ("wall", "device", "host", "runq", "copy", "queue")


@pytest.fixture(scope="module")
def summary(run_path: FilePath) -> ka.Summary:
    return ka.summarize(ka.load(run_path))


def counted(truth: SyntheticRun, op: Op = Op.READ, tier: int = STORAGE, **equal: int) -> NDArray[Any]:
    """The rows that figures are made of."""
    rows = truth.records
    mask = (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0) & (rows["op"] == op) & (rows["tier"] == tier)
    for name, value in equal.items():
        mask &= rows[name] == value
    chosen: NDArray[Any] = rows[mask]
    return chosen


def inside(rows: NDArray[Any]) -> list[float]:
    """The share of each row's time in the window, one row at a time."""
    shares = []
    for row in rows:
        start, wall = int(row["t_start_ns"]), int(row["wall_ns"])
        shares.append(max(0, min(start + wall, END_NS) - max(start, START_NS)) / wall)
    return shares


def row_of(table: pd.DataFrame, **equal: Any) -> dict[Any, Any]:
    rows = [row for row in table.to_dict("records") if all(row[name] == value for name, value in equal.items())]
    assert len(rows) == 1
    return dict(rows[0])


def warned(truth: SyntheticRun, path: FilePath) -> dict[str, str]:
    found = ka.summarize(ka.load(truth.write(path / "run.h5", overwrite=True))).warnings
    return {warning.code: warning.message for warning in found}


@pytest.mark.parametrize(
    ("op", "tier"), [(Op.READ, STORAGE), (Op.WRITE, STORAGE), (Op.READ, MEMORY), (Op.DEMOTE, STORAGE)]
)
def test_counts_rates_and_sizes_are_those_of_the_measured_rows(
    truth: SyntheticRun, summary: ka.Summary, op: Op, tier: int
) -> None:
    rows = counted(truth, op, tier)
    row = row_of(summary.operations, tier=TIERS[tier], op=op.name.lower())
    shares = np.array(inside(rows))
    assert row["operations"] == len(rows)
    assert row["bytes"] == sum(rows["nbytes"].tolist())
    assert row["tokens"] == sum(rows["tokens"].tolist())
    assert row["operations_per_s"] == pytest.approx(shares.sum() / 10)
    assert row["gib_per_s"] == pytest.approx((shares * rows["nbytes"]).sum() / 2**30 / 10)
    assert row["tokens_per_s"] == pytest.approx((shares * rows["tokens"]).sum() / 10)
    sizes = np.percentile(rows["nbytes"], [0, 50, 95, 100])
    assert [row[f"size_{name}_bytes"] for name in ("min", "p50", "p95", "max")] == pytest.approx(sizes.tolist())


def test_what_crosses_an_edge_of_the_window_counts_by_its_share_inside(truth: SyntheticRun) -> None:
    shares = inside(counted(truth))
    assert any(0 < share < 1 for share in shares)


@pytest.mark.parametrize("part", PARTS)
def test_percentiles_are_over_the_whole_population_of_all_ranks(
    truth: SyntheticRun, summary: ka.Summary, part: str
) -> None:
    rows = counted(truth)
    row = row_of(summary.latency, tier="storage", op="read", path="buffered", part=part)
    expected = np.percentile(rows[f"{part}_ns"], PERCENTILES)
    assert [row[column] for column in PERCENTILE_COLUMNS] == pytest.approx(expected.tolist())
    assert row["mean_ns"] == pytest.approx(rows[f"{part}_ns"].mean())
    assert row["share_of_wall"] == pytest.approx(rows[f"{part}_ns"].sum() / rows["wall_ns"].sum())


def test_failed_and_canceled_operations_are_beside_the_figures(truth: SyntheticRun, summary: ka.Summary) -> None:
    row = row_of(summary.operations, tier="storage", op="read")
    assert (row["failed"], row["canceled"]) == (4, 12)


def test_ranks_and_nodes_have_figures_of_their_own_rows(truth: SyntheticRun, summary: ka.Summary) -> None:
    for place, key in ((summary.ranks, "rank"), (summary.nodes, "node")):
        for row in place[(place["tier"] == "storage") & (place["op"] == "write")].to_dict("records"):
            ranks = [row["rank"]] if key == "rank" else [2 * row["node"], 2 * row["node"] + 1]
            rows = np.concatenate([counted(truth, Op.WRITE, rank=rank) for rank in ranks])
            assert row["operations"] == len(rows)
            assert row["wall_p95_ns"] == pytest.approx(np.percentile(rows["wall_ns"], 95))
            assert row["device_share"] == pytest.approx(rows["device_ns"].sum() / rows["wall_ns"].sum())
            assert row["device_share"] + row["host_share"] + row["runq_share"] == pytest.approx(1)
            assert row["host"] == f"client{row['node']}"
    assert len(summary.ranks) == 4 * 3
    assert len(summary.nodes) == 2 * 3


def test_the_rates_of_ranks_and_of_nodes_add_up_to_the_whole(summary: ka.Summary) -> None:
    whole = row_of(summary.operations, tier="storage", op="read")["gib_per_s"]
    for table in (summary.ranks, summary.nodes):
        part = table[(table["tier"] == "storage") & (table["op"] == "read")]
        assert part["gib_per_s"].sum() == pytest.approx(whole)


def test_prefix_hits_of_a_file_without_their_table_are_what_requests_found(
    truth: SyntheticRun, summary: ka.Summary
) -> None:
    rows = truth.requests[truth.requests["phase"] == Phase.MEASURE]
    for unit, name in (("objects", "block"), ("tokens", "token")):
        hits, misses = sum(rows[f"hit_{unit}"].tolist()), sum(rows[f"miss_{unit}"].tolist())
        row = row_of(summary.prefix, what="hit", tier="")
        assert (row[f"{name}s"], row[f"{name}_share"]) == (hits, pytest.approx(hits / (hits + misses)))
        assert row_of(summary.prefix, what="not-found")[f"{name}s"] == misses
    assert not len(summary.look_ups)


def test_offered_and_served_load_stand_side_by_side(truth: SyntheticRun, summary: ka.Summary) -> None:
    rows = truth.requests[truth.requests["phase"] == Phase.MEASURE]
    done = rows[rows["state"] == RequestState.DONE]
    requests, tokens = row_of(summary.load, unit="requests"), row_of(summary.load, unit="tokens")
    waiting = 4 * 3, 4 * 700
    assert (requests["offered"], requests["waiting"]) == (len(rows) + waiting[0], waiting[0])
    assert (requests["served"], requests["unfinished"]) == (len(done), len(rows) - len(done))
    assert requests["offered_per_s"] == pytest.approx(requests["offered"] / 10)
    assert requests["served_per_s"] == pytest.approx(row_of(summary.requests, qos="all")["requests_per_s"])
    assert tokens["offered"] == rows["context_tokens"].sum() + waiting[1]
    assert tokens["served"] == done["context_tokens"].sum()


@pytest.mark.parametrize("change", [{"pacing": {"mode": "closed"}}, {"pacing": {"mode": "asap"}}, {}])
def test_without_an_open_loop_no_load_is_offered(
    truth: SyntheticRun, tmp_path: FilePath, change: dict[str, Any]
) -> None:
    run = truth.changed(attributes={"config_json": json.dumps(change)})
    assert not len(ka.summarize(ka.load(run.write(tmp_path / "run.h5"))).load)


@pytest.mark.parametrize(("qos", "code"), [("all", None), ("batch", 2)])
def test_request_latency_counts_from_the_intended_start(
    truth: SyntheticRun, summary: ka.Summary, qos: str, code: int | None
) -> None:
    rows = truth.requests[truth.requests["phase"] == Phase.MEASURE]
    rows = rows if code is None else rows[rows["qos"] == code]
    done = rows[rows["state"] == RequestState.DONE]
    counts = row_of(summary.requests, qos=qos)
    assert (counts["requests"], counts["done"], counts["cut_short"]) == (len(rows), len(done), len(rows) - len(done))
    parts = {
        "latency": done["end_ns"] - done["intended_ns"],
        "queue": done["start_ns"] - done["intended_ns"],
        "storage": done["storage_ns"],
    }
    for part, values in parts.items():
        row = row_of(summary.request_latency, qos=qos, part=part)
        assert [row[column] for column in PERCENTILE_COLUMNS] == pytest.approx(
            np.percentile(values, PERCENTILES).tolist()
        )


def test_requests_per_second_are_the_done_ones_in_the_window(truth: SyntheticRun, summary: ka.Summary) -> None:
    rows = truth.requests[(truth.requests["phase"] == Phase.MEASURE) & (truth.requests["state"] == RequestState.DONE)]
    shares = [
        max(0, min(int(row["end_ns"]), END_NS) - int(row["start_ns"])) / int(row["end_ns"] - row["start_ns"])
        for row in rows
    ]
    assert any(share < 1 for share in shares)
    assert row_of(summary.requests, qos="all")["requests_per_s"] == pytest.approx(sum(shares) / 10)


def test_the_headline_says_rate_latency_size_and_shares(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 640, tokens=512)
    rows["device_ns"], rows["host_ns"], rows["runq_ns"], rows["wall_ns"] = 14_000_000, 5_600_000, 400_000, 20_000_000
    run = SyntheticRun(rows, np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    assert summary.headlines == (
        "storage reads: 4.00 GiB/s, P95 20.0 ms per operation of 64 MiB (device 70 %, host 28 %, run queue 2 %)",
    )


@pytest.mark.slow
def test_rows_of_many_ranks_and_interleaved_ranks_are_told_apart(tmp_path: FilePath) -> None:
    truth = synthetic_run(np.random.default_rng(2), ranks=70, nodes=7, operations=20)
    mixed = dataclasses.replace(truth, records=np.random.default_rng(3).permutation(truth.records))
    ordered, shuffled = (
        ka.summarize(ka.load(run.write(tmp_path / f"{name}.h5"))) for name, run in (("a", truth), ("b", mixed))
    )
    pd.testing.assert_frame_equal(ordered.ranks, shuffled.ranks)
    pd.testing.assert_frame_equal(ordered.latency, shuffled.latency)
    assert ordered.ranks["rank"].nunique() == 70


def test_an_empty_run_says_that_nothing_was_measured(tmp_path: FilePath) -> None:
    summary = ka.summarize(ka.load(empty_run().write(tmp_path / "run.h5")))
    assert summary.headlines == ("no reads or writes were measured",)
    assert len(summary.operations) == len(summary.ranks) == 0
    assert math.isnan(row_of(summary.prefix, what="hit")["token_share"])


def test_one_operation_is_its_own_distribution(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 1)
    run = SyntheticRun(rows, np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    row = row_of(summary.latency, part="wall")
    assert [row[column] for column in PERCENTILE_COLUMNS] == [rows["wall_ns"][0]] * 4
    assert math.isnan(row["backed_percentile"])
    assert "P95 ~" in summary.headlines[0]
    assert "few-operations" in {warning.code for warning in summary.warnings}


def test_a_kind_of_which_none_succeeded_is_listed_with_its_failures(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 5, errno_code=5)
    run = SyntheticRun(rows, np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    row = row_of(summary.operations, tier="storage", op="read", path="buffered")
    assert (row["operations"], row["failed"], row["canceled"]) == (0, 5, 0)


def test_without_a_window_there_are_no_rates(truth: SyntheticRun, tmp_path: FilePath) -> None:
    run = truth.changed(attributes={"measure_end_ns": START_NS})
    assert "no-window" in warned(run, tmp_path)
    operations = ka.summarize(ka.load(tmp_path / "run.h5")).operations
    assert operations["gib_per_s"].isna().all()
    assert (operations["operations"] > 0).all()


def test_a_sound_run_has_no_warnings(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 10_000)
    run = SyntheticRun(rows, np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
    assert warned(run, tmp_path) == {}


def node(**changes: Any) -> dict[str, Any]:
    return {
        "node": np.arange(2),
        "host": ["a", "b"],
        "llc_bytes": np.full(2, 2**25),
        "filesystem": ["ext4"] * 2,
    } | changes


def asked_for(seconds: float) -> dict[str, Any]:
    return {"config_json": json.dumps({"duration_s": seconds})}


def spans(begin_s: Sequence[float] = (0, 0, 0, 0), end_s: Sequence[float] = (10, 10, 10, 10)) -> dict[str, Any]:
    """/ranks whose ranks were at work from and to these seconds of the window."""
    times = {"begin_ns": begin_s, "end_ns": end_s}
    return {"rank": np.arange(4)} | {
        name: START_NS + (np.array(seconds) * 1e9).astype(np.int64) for name, seconds in times.items()
    }


WARNINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "interrupted": ({"status": "interrupted", "status_message": "Ctrl-C"}, {}, "Ctrl-C"),
    "failed": ({"status": "failed", "status_message": "rank 1: disk full"}, {}, "disk full"),
    "bad-lines": ({"trace_bad_lines": 3, "trace_requests": 20}, {}, "left out .*: 3, .* left: 20"),
    "timer-python": ({"timer": "python"}, {}, "timed in Python"),
    "clock": ({"clock_uncertainty_ns": 3_000_000}, {}, "within 3 ms"),
    "mixed-directory": ({"cache_directory": "mixed"}, {}, "is a mount missing"),
    "unverified-directory": (
        {"cache_directory": "single-node", "expected_directory": "shared"},
        {},
        "is shared .* cannot be found out with one node",
    ),
    "arena": ({}, {"nodes": node(llc_bytes=np.full(2, 2**30))}, "512 MiB together"),
    "steal": (
        {},
        {"samples": {"node": np.arange(2), "t_ns": np.full(2, START_NS), "cpu_steal_pct": np.array([0.0, 7.0])}},
        "7.0 %",
    ),
    "not-verified": ({}, {"ranks": {"rank": np.arange(4), "verified_sectors": np.zeros(4)}}, "nothing"),
    "idle-ranks": ({}, {"ranks": {"rank": np.arange(6)}}, "2 of 6 ranks .*: 4, 5"),
    "long-window": (asked_for(5), {}, "10.0 s were measured where duration_s is 5: .* over all of the 10.0 s"),
    "short-window": (asked_for(60), {}, "10.0 s were measured where duration_s is 60"),
    "late-start": (
        {},
        {"ranks": spans(begin_s=[0, 2.5, 0, 4])},
        r"2 of 4 ranks \(3, 1\) .* up to 4.00 s at the beginning",
    ),
    "early-end": (
        {},
        {"ranks": spans(end_s=[10, 10, 3, 10])},
        r"1 of 4 ranks \(2\) .* for 7.00 s at the end of the 10.0 s",
    ),
}


@pytest.fixture(scope="module")
def undoubted(truth: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return warned(truth, tmp_path_factory.mktemp("undoubted"))


@pytest.mark.parametrize("code", WARNINGS)
def test_a_doubtful_run_is_warned_of(
    truth: SyntheticRun, undoubted: dict[str, str], tmp_path: FilePath, code: str
) -> None:
    attributes, tables, message = WARNINGS[code]
    assert code not in undoubted
    assert code in (found := warned(truth.changed(attributes=attributes, tables=tables), tmp_path))
    assert pd.Series([found[code]]).str.contains(message).all()


def test_a_rank_that_stood_idle_is_found_from_the_rows_where_the_ranks_do_not_say_it(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(1)
    spans_ns = ((START_NS, END_NS), (START_NS, START_NS + 4 * 10**9), (START_NS + 3 * 10**9, END_NS))
    rows = [record_rows(rng, 3000, rank=rank, start_ns=a, end_ns=b) for rank, (a, b) in enumerate(spans_ns)]
    run = SyntheticRun(np.concatenate(rows), np.empty(0, REQUEST_DTYPE), run_attributes(3, 1))
    found = warned(run, tmp_path)
    assert {"late-start", "early-end"} <= set(found)
    assert found["late-start"].startswith("1 of 3 ranks (2) had no operation that counts for 3.0")
    assert found["early-end"].startswith("1 of 3 ranks (1) had no operation that counts for 6.0")


def test_how_long_was_measured_stands_beside_how_long_was_asked_for(truth: SyntheticRun, tmp_path: FilePath) -> None:
    for seconds, words in ((5, "10.0 s measured, 5 s asked for"), (9.9, "10.0 s measured"), (None, "10.0 s measured")):
        run = truth.changed(attributes={"config_json": json.dumps({"duration_s": seconds})})
        summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5", overwrite=True)))
        assert measured(summary) == words
        assert (summary.run["window_s"], summary.run["duration_s"]) == (10.0, seconds)


def test_a_study_whose_ranks_take_turns_is_not_warned_of_idle_ranks(truth: SyntheticRun, tmp_path: FilePath) -> None:
    tables = {"ranks": spans(begin_s=[0, 2.5, 0, 4])}
    assert "late-start" in warned(truth.changed(tables=tables), tmp_path)
    assert "late-start" not in warned(truth.changed(attributes={"kind": "study-copy-path"}, tables=tables), tmp_path)


def test_a_file_that_measured_nothing_says_so_first(tmp_path: FilePath) -> None:
    run = empty_run().changed(attributes={"measure_end_ns": START_NS})
    assert warned(run, tmp_path)["no-window"].startswith("nothing was measured: no operation")


@pytest.mark.parametrize(
    ("attributes", "tables", "reason"),
    [
        ({}, {}, "although it was dropped"),
        ({}, {"nodes": node(filesystem=["tmpfs"] * 2)}, "tmpfs keeps its files in memory"),
        ({"config_json": '{"io": {"drop_page_cache": false}}'}, {}, "io.drop_page_cache"),
    ],
)
def test_reads_from_the_page_cache_are_warned_of_with_their_number(
    truth: SyntheticRun, tmp_path: FilePath, attributes: dict[str, str], tables: dict[str, Any], reason: str
) -> None:
    records = truth.records.copy()
    reads = np.flatnonzero(
        (records["op"] == Op.READ)
        & (records["tier"] == STORAGE)
        & (records["phase"] == Phase.MEASURE)
        & (records["errno"] == 0)
    )
    records["resident_pct"][reads[: len(reads) // 4]] = 3
    found = warned(dataclasses.replace(truth, records=records).changed(attributes=attributes, tables=tables), tmp_path)
    assert found["page-cache"].startswith(f"{len(reads) // 4} of {len(reads)} storage reads")
    assert reason in found["page-cache"]


@pytest.mark.parametrize(("read_path", "warns"), [("buffered", True), ("mmap-touch", True), ("direct", False)])
def test_a_client_that_keeps_what_it_read_is_warned_of_where_reads_may_be_of_its_memory(
    truth: SyntheticRun, tmp_path: FilePath, read_path: str, warns: bool
) -> None:
    config = {"config_json": json.dumps({"io": {"read_path": read_path}})}
    of_ext4 = truth.changed(attributes=config)
    of_cephfs = of_ext4.changed(tables={"nodes": node(filesystem=["ext4", "fuse.ceph-fuse"])})
    assert ("fuse.ceph-fuse" in warned(of_cephfs, tmp_path).get("client-cache", "")) == warns
    assert "client-cache" not in warned(of_ext4, tmp_path)


def test_operations_timed_around_python_calls_are_warned_of(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 100, path=Path.DOUBLE_COPY)
    run = SyntheticRun(rows, np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
    assert warned(run, tmp_path)["python-timed"].startswith("100 operations")


@pytest.mark.parametrize("mode", ["full", "histogram", "sampled"])
def test_deletions_on_a_memory_tier_which_are_always_timed_around_python_are_not_warned_of(
    truth: SyntheticRun, tmp_path: FilePath, mode: Literal["full", "histogram", "sampled"]
) -> None:
    records = truth.records.copy()
    deletions = records[records["tier"] == MEMORY][:50]
    deletions["op"], deletions["path"], deletions["timed_by"] = Op.DELETE, Path.NONE, TimedBy.PYTHON
    records[np.flatnonzero(records["tier"] == MEMORY)[:50]] = deletions
    run = dataclasses.replace(truth, records=records)
    assert "python-timed" not in warned(run if mode == "full" else condensed(within_window(run), mode, 1000), tmp_path)


@pytest.mark.parametrize("missing", ["ranks", "nodes", "samples", "calibration"])
def test_a_run_without_one_of_its_tables_is_summarized(truth: SyntheticRun, tmp_path: FilePath, missing: str) -> None:
    run = ka.load(truth.changed(tables={missing: None}).write(tmp_path / "run.h5"))
    assert len(ka.summarize(run).operations) == 5
