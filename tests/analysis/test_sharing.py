"""The figures of a shared key space, against the same figures computed from the rows in another way."""

import json
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.report import write_report
from synthetic import END_NS, START_NS, Columns, SyntheticRun, synthetic_run

from kvbench.records.schema import Locality, Op, Phase

MS = 1_000_000


def shared_run(rng: np.random.Generator, torn: int = 0) -> SyntheticRun:
    """Two nodes of two ranks; every storage read has a locality, every object was looked for once."""
    run = synthetic_run(rng)
    reads = run.records["op"] == Op.READ
    run.records["locality"][reads] = rng.integers(0, 3, int(reads.sum()))
    count = 400
    written = rng.integers(START_NS, END_NS, count)
    heard = written + rng.integers(1 * MS, 20 * MS, count)
    readable = heard + rng.integers(0, 5 * MS, count)
    readable[:3] = 0
    zeros = np.zeros(4, np.int64)
    counts = {f"{kind}_violations": zeros for kind in ("missing", "stale")}
    sharing: Columns = {
        "rank": np.arange(4),
        "role": ["prefill", "prefill", "decode", "decode"],
        "written_objects": np.array([100, 300, 0, 0]),
        "retired_objects": np.array([10, 20, 0, 0]),
        "handed_over_requests": np.array([5, 6, 0, 0]),
        "evicted_reads": np.array([0, 0, 7, 1]),
        "longest_grace_ns": zeros,
        "looked_for_objects": np.array([0, 0, 200, 200]),
        "torn_violations": np.array([0, 0, torn, 0]),
        "unseen_violations": np.array([0, 0, 3, 0]),
        **counts,
    }
    violation: Columns = {
        "rank": np.full(torn, 2),
        "writer": np.full(torn, 1),
        "key": np.arange(torn),
        "nbytes": np.full(torn, 8192),
        "t_ns": np.full(torn, START_NS),
        "kind": ["torn"] * torn,
        "text": ["/mnt/x: <b>sector</b> 2 \x1b[31m"] * torn,
    }
    return run.changed(
        attributes={"namespace": "shared", "roles": "prefill=0-1,decode=2-3"},
        tables={
            "sharing": sharing,
            "violations": violation,
            "visibility": {
                "key": np.arange(count, dtype=np.uint64),
                "nbytes": np.full(count, 8192),
                "writer": np.zeros(count, np.int64),
                "reader": np.full(count, 2),
                "locality": np.where(np.arange(count) % 2, 2, 1),
                "written_ns": written,
                "heard_ns": heard,
                "readable_ns": readable,
                "looks": np.ones(count, np.int64),
            },
        },
    )


@pytest.fixture
def shared(tmp_path: FilePath) -> tuple[SyntheticRun, ka.Summary]:
    run = shared_run(np.random.default_rng(5), torn=2)
    return run, ka.summarize(ka.load(run.write(tmp_path / "shared.h5")))


def test_reads_are_told_apart_by_who_wrote_the_object(shared: tuple[SyntheticRun, ka.Summary]) -> None:
    run, summary = shared
    rows = run.records
    counted = rows[
        (rows["op"] == Op.READ) & (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0) & (rows["tier"] == 1)
    ]
    table = summary.sharing.reads.set_index("writer")
    for locality, name in zip(Locality, ("own", "same-node", "other-node"), strict=True):
        mine = counted[counted["locality"] == locality]
        assert table.loc[name, "operations"] == len(mine)
        assert table.loc[name, "bytes"] == mine["nbytes"].sum()
        assert table.loc[name, "p95_ns"] == pytest.approx(np.percentile(mine["wall_ns"], 95))
        assert table.loc[name, "device_share"] == pytest.approx(mine["device_ns"].sum() / mine["wall_ns"].sum())
    storage_reads = summary.totals[(summary.totals["storage"] == "storage") & (summary.totals["op"] == "read")]
    assert table["gib_per_s"].sum() == pytest.approx(storage_reads["gib_per_s"].iloc[0])


def test_visibility_counts_from_the_end_of_the_write(shared: tuple[SyntheticRun, ka.Summary]) -> None:
    run, summary = shared
    found: dict[str, Any] = dict(run.tables["visibility"])
    for locality, name in ((1, "same-node"), (2, "other-node")):
        seen = (found["locality"] == locality) & (found["readable_ns"] != 0)
        for part in ("heard", "readable"):
            times = (found[f"{part}_ns"] - found["written_ns"])[seen]
            table = summary.sharing.visibility
            row = table[(table["writer"] == name) & (table["part"] == part)].iloc[0]
            assert row["objects"] == seen.sum()
            assert row["p95_ns"] == pytest.approx(np.percentile(times, 95))
            assert row["max_ns"] == times.max()


def test_violations_are_the_first_warning_and_stand_in_text_and_json(
    shared: tuple[SyntheticRun, ka.Summary], tmp_path: FilePath
) -> None:
    _, summary = shared
    assert summary.warnings[0].code == "violations"
    assert "5 times" in summary.warnings[0].message
    assert "2 torn, 3 unseen" in summary.warnings[0].message
    content = json.loads(ka.to_json(summary))["sharing"]
    assert content["counts"]["evicted_reads"] == 8
    assert content["counts"]["written_objects"] == 400
    assert len(content["violations"]) == 2


def test_the_report_shows_them_and_takes_no_markup_from_the_file(tmp_path: FilePath) -> None:
    path = shared_run(np.random.default_rng(6), torn=1).write(tmp_path / "shared.h5")
    write_report([ka.load(path)], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "One key space for all ranks" in page
    assert "From the end of a write to another rank" in page
    assert "&lt;b&gt;sector&lt;/b&gt;" in page
    assert "<b>sector</b>" not in page


def test_a_run_whose_ranks_share_nothing_has_none_of_it(run_path: FilePath, tmp_path: FilePath) -> None:
    summary = ka.summarize(ka.load(run_path))
    assert summary.sharing.counts == {}
    assert json.loads(ka.to_json(summary))["sharing"] is None
    write_report([ka.load(run_path)], tmp_path / "report.html")
    assert "One key space" not in (tmp_path / "report.html").read_text()
