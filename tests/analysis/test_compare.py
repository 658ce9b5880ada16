"""Comparison: the same work only, ratios of the figures of all repeats, and no difference where there is none."""

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.compare.comparison import METRIC_COLUMNS, RUN_COLUMNS, WARNING_COLUMNS
from kvbench_analysis.compare.print import print_comparison
from rich.console import Console
from synthetic import (
    END_NS,
    START_NS,
    Attributes,
    SyntheticRun,
    empty_run,
    record_rows,
    request_rows,
    run_attributes,
    run_tables,
)

from kvbench.errors import KvbenchError
from kvbench.records.schema import Op, Phase

WINDOW_S = (END_NS - START_NS) / 1e9


def a_run(
    seed: int,
    *,
    slower: float = 1.0,
    operations: int = 800,
    attributes: Attributes = {},  # noqa: B006
) -> SyntheticRun:
    """Reads and writes of one rank; the device takes `slower` times as long, and a repeat differs from the next."""
    rng = np.random.default_rng(seed)
    repeat = float(rng.lognormal(0, 0.02))
    rows = [record_rows(rng, operations), record_rows(rng, operations // 2, op=Op.WRITE)]
    records = np.concatenate(rows)
    records["device_ns"] = records["device_ns"] * slower * repeat
    records["wall_ns"] = records["device_ns"] + records["host_ns"] + records["runq_ns"]
    requests = request_rows(rng, operations // 4)
    requests["end_ns"] = requests["start_ns"] + (requests["end_ns"] - requests["start_ns"]) * slower * repeat
    content = SyntheticRun(records, requests, run_attributes(1, 1), run_tables(records, requests, 1, 1))
    return content.changed(attributes={"run_id": f"run-{seed}-{slower}", **attributes})


def written(folder: FilePath, *contents: SyntheticRun) -> list[FilePath]:
    return [content.write(folder / f"{len(list(folder.iterdir()))}.h5") for content in contents]


@pytest.fixture(scope="module")
def repeats(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[FilePath], list[FilePath]]:
    folder = tmp_path_factory.mktemp("repeats")
    return (
        written(folder, *(a_run(seed) for seed in range(5))),
        written(folder, *(a_run(seed, slower=2.0) for seed in range(5, 10))),
    )


@pytest.fixture(scope="module")
def slower(repeats: tuple[list[FilePath], list[FilePath]]) -> ka.Comparison:
    return ka.compare({"disk": repeats[0], "share": repeats[1]})


def row_of(table: pd.DataFrame, metric: str, tier: str = "storage", op: str = "read") -> dict[Any, Any]:
    rows = table[(table["metric"] == metric) & (table["tier"] == tier) & (table["op"] == op)].to_dict("records")
    assert len(rows) == 1
    return dict(rows[0])


def pooled(files: list[FilePath]) -> pd.DataFrame:
    """The measured storage reads of all files together."""
    table = pd.concat([ka.load(file).records for file in files])
    return table[(table["phase"] == "measure") & (table["errno"] == 0) & (table["op"] == "read")]


def test_figures_are_of_all_repeats_together(
    slower: ka.Comparison, repeats: tuple[list[FilePath], list[FilePath]]
) -> None:
    sides = [pooled(files) for files in repeats]
    for part in ("wall", "device", "host"):
        for percentile in (50, 95, 99):
            row = row_of(slower.metrics, f"{part}_p{percentile}_ns")
            first, second = (side[f"{part}_ns"].quantile(percentile / 100) for side in sides)
            assert row["baseline_value"] == pytest.approx(first)
            assert row["target_value"] == pytest.approx(second)
            assert row["ratio"] == pytest.approx(second / first)
    rates = [side["nbytes"].sum() / 2**30 / (5 * WINDOW_S) for side in sides]
    row = row_of(slower.metrics, "gib_per_s")
    assert [row["baseline_value"], row["target_value"]] == pytest.approx(rates)


def test_a_slower_device_is_significantly_slower_and_the_host_is_not(slower: ka.Comparison) -> None:
    device = row_of(slower.metrics, "device_p50_ns")
    assert device["low"] <= 2 <= device["high"]
    assert (device["significant"], device["verdict"]) == (True, "worse")
    host = row_of(slower.metrics, "host_p50_ns")
    assert (host["significant"], host["verdict"]) == (False, "same")
    assert row_of(slower.metrics, "request_p95_ns", "", "")["verdict"] == "worse"
    assert row_of(slower.metrics, "prefix_blocks", "", "")["verdict"] == "same"


def test_the_other_way_round_it_is_better(
    repeats: tuple[list[FilePath], list[FilePath]], slower: ka.Comparison
) -> None:
    turned = ka.compare({"share": repeats[1], "disk": repeats[0]})
    assert row_of(turned.metrics, "device_p50_ns")["verdict"] == "better"
    product = row_of(turned.metrics, "device_p50_ns")["ratio"] * row_of(slower.metrics, "device_p50_ns")["ratio"]
    assert product == pytest.approx(1)


def test_the_spread_of_the_repeats_is_shown(
    slower: ka.Comparison, repeats: tuple[list[FilePath], list[FilePath]]
) -> None:
    medians = [pooled([file])["wall_ns"].quantile(0.5) for file in repeats[0]]
    row = row_of(slower.metrics, "wall_p50_ns")
    assert (row["baseline_runs"], row["baseline_resampled"]) == (5, "runs")
    assert [row["baseline_min"], row["baseline_max"]] == pytest.approx([min(medians), max(medians)])
    values = slower.runs[(slower.runs["metric"] == "wall_p50_ns") & (slower.runs["op"] == "read")]
    assert values[values["label"] == "disk"]["value"].tolist() == pytest.approx(medians)
    assert slower.warnings.empty
    assert slower.differences.empty


@pytest.mark.slow
def test_runs_that_differ_by_chance_alone_are_seldom_called_different(tmp_path: FilePath) -> None:
    files = written(tmp_path, *(a_run(seed, operations=300) for seed in range(20, 30)))
    found = ka.compare({"a": files[:5], "b": files[5:]}).metrics
    tested = found[found["low"].notna() & found["backed"]]
    assert len(tested) > 15
    assert tested["significant"].mean() < 0.15


def test_single_runs_are_compared_by_blocks_of_their_time(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1), a_run(2, slower=2.0))
    found = ka.compare({"a": files[:1], "b": files[1:]})
    row = row_of(found.metrics, "device_p50_ns")
    assert (row["baseline_resampled"], row["target_resampled"]) == ("blocks", "blocks")
    assert row["low"] < 2 < row["high"]
    assert row["significant"]
    assert row_of(found.metrics, "gib_per_s")["low"] < row_of(found.metrics, "gib_per_s")["high"]
    assert found.warnings["code"].tolist() == ["one-run", "one-run"]


def test_every_target_is_compared_with_the_first(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1), a_run(2), a_run(3))
    found = ka.compare({"a": files[:1], "b": files[1:2], "c": files[2:]}).metrics
    assert found[["baseline", "target"]].drop_duplicates().to_numpy().tolist() == [["a", "b"], ["a", "c"]]


CHANGED: Attributes = {
    "fingerprint": "fedcba9876543210",
    "config_json": json.dumps(
        {
            "name": "other",
            "seed": 42,
            "io": {"drop_page_cache": False, "threads": 4},
            "workload": {"kind": "trace", "serving": "engine"},
            "pacing": {"mode": "open"},
        }
    ),
    "ranks": 2,
}


def test_different_work_is_refused_with_every_difference(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1), a_run(2), a_run(3, attributes=CHANGED))
    with pytest.raises(KvbenchError) as refusal:
        ka.compare({"a": files[:2], "b": files[2:]})
    message = str(refusal.value)
    assert "io.drop_page_cache: False in " in message
    assert "True in " in message
    assert "io.threads: (not set) in " in message
    assert "ranks: 1 in " in message
    assert "seed" not in message
    assert "name" not in message.replace("name of", "")
    assert "--force" in message
    assert all(str(file) in message for file in files)


def test_forced_it_is_compared_and_the_differences_are_listed(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1), a_run(3, attributes=CHANGED))
    found = ka.compare({"a": files[:1], "b": files[1:]}, force=True)
    values = found.differences.set_index(["key", "label"])["value"]
    assert values["io.threads", "a"] == "(not set)"
    assert values["io.threads", "b"] == "4"
    assert set(found.differences["key"]) == {"io.drop_page_cache", "io.threads", "ranks"}
    assert "different-work" in found.warnings["code"].tolist()
    assert not found.metrics.empty


def test_different_work_of_one_configuration_is_put_down_to_the_version(tmp_path: FilePath) -> None:
    then, now = {"kvbench_version": "0.1.0"}, {"fingerprint": "f" * 16, "kvbench_version": "0.2.0"}
    files = written(tmp_path, a_run(1, attributes=then), a_run(2, attributes=now))
    with pytest.raises(KvbenchError, match=r"no key of the configuration; made by kvbench 0\.1\.0, 0\.2\.0"):
        ka.compare({"a": files[:1], "b": files[1:]})


def test_resolved_capacities_that_differ_are_told_and_not_refused(tmp_path: FilePath) -> None:
    tiers = [
        {"name": "memory", "kind": "memory", "capacity_bytes": 2**30},
        {"name": "storage", "kind": "file", "capacity_bytes": 5},
    ]
    files = written(tmp_path, a_run(1), a_run(2, attributes={"tiers_json": json.dumps(tiers)}))
    found = ka.compare({"a": files[:1], "b": files[1:]})
    assert found.differences["key"].unique().tolist() == ["tiers.storage.capacity_bytes (resolved)"]
    assert found.differences["value"].tolist() == [str(2**36), "5"]
    assert "different-capacity" in found.warnings["code"].tolist()


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"status": "interrupted"}, "interrupted"),
        ({"status": "failed"}, "failed"),
        ({"timer": "python"}, "timer-python"),
    ],
)
def test_what_is_wrong_with_a_run_is_a_warning(tmp_path: FilePath, attributes: dict[str, str], code: str) -> None:
    files = written(tmp_path, a_run(1), a_run(2), a_run(3), a_run(4, attributes=attributes))
    found = ka.compare({"a": files[:2], "b": files[2:]})
    assert found.warnings[["code", "label", "source"]].to_numpy().tolist() == [[code, "b", str(files[3])]]


def test_runs_of_the_same_figures_have_no_difference(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1), a_run(1, attributes={"run_id": "another"}))
    found = ka.compare({"a": files[:1], "b": files[1:]})
    assert (found.metrics["ratio"].dropna() == 1).all()
    assert not found.metrics["significant"].any()


@pytest.mark.parametrize("how", ["same path", "other path", "symbolic link", "hard link", "copy"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_run_counts_once_by_whatever_name_it_is_given_again(tmp_path: FilePath, how: str, beside: bool) -> None:
    """As a repeat of itself on its own target, and on the other one."""
    file, other = written(tmp_path, a_run(1), a_run(2))
    again = tmp_path / "again.h5"
    if how == "symbolic link":
        again.symlink_to(file)
    elif how == "hard link":
        again.hardlink_to(file)
    elif how == "copy":
        shutil.copy(file, again)
    else:
        again = file if how == "same path" else tmp_path / "." / ".." / tmp_path.name / file.name
    told = "are of the same run" if how == "copy" else "are one file" if again != file else "is given twice"
    groups = {"a": [file, again], "b": [other]} if beside else {"a": [file], "b": [other, again]}
    with pytest.raises(KvbenchError, match=f"{again}.* {told}.* every run counts once"):
        ka.compare(groups, force=True)


def test_what_only_one_target_did_has_no_ratio(tmp_path: FilePath) -> None:
    without = a_run(2)
    without.records["phase"][without.records["op"] == Op.WRITE] = Phase.WARMUP
    files = written(tmp_path, a_run(1), without)
    row = row_of(ka.compare({"a": files[:1], "b": files[1:]}).metrics, "gib_per_s", op="write")
    assert (row["target_runs"], row["verdict"], row["significant"]) == (0, "", False)
    assert math.isnan(row["ratio"])


def test_percentiles_with_too_few_operations_are_marked(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1, operations=300), a_run(2, operations=300))
    found = ka.compare({"a": files[:1], "b": files[1:]}).metrics
    assert row_of(found, "wall_p95_ns")["backed"]
    assert not row_of(found, "wall_p99_ns")["backed"]


def test_empty_runs_have_nothing_to_compare(tmp_path: FilePath) -> None:
    files = written(tmp_path, empty_run(), empty_run())
    found = ka.compare({"a": files[:1], "b": files[1:]})
    assert (len(found.metrics), list(found.metrics.columns)) == (0, list(METRIC_COLUMNS))
    assert list(found.runs.columns) == list(RUN_COLUMNS)
    assert list(found.warnings.columns) == list(WARNING_COLUMNS)


def test_one_operation_each_is_compared_without_an_interval(tmp_path: FilePath) -> None:
    files = written(tmp_path, a_run(1, operations=1), a_run(2, operations=1))
    row = row_of(ka.compare({"a": files[:1], "b": files[1:]}).metrics, "wall_p50_ns")
    assert row["ratio"] > 0
    assert math.isnan(row["low"])
    assert not row["backed"]


@pytest.mark.parametrize("groups", [{}, {"a": 1}, {"a": 1, "b": 0}])
def test_two_targets_with_runs_are_needed(tmp_path: FilePath, groups: dict[str, int]) -> None:
    (file,) = written(tmp_path, a_run(1))
    with pytest.raises(KvbenchError, match="at least two targets"):
        ka.compare({label: [file] * count for label, count in groups.items()})


def test_the_same_files_give_the_same_figures(
    slower: ka.Comparison, repeats: tuple[list[FilePath], list[FilePath]]
) -> None:
    again = ka.compare({"disk": [ka.load(file) for file in repeats[0]], "share": repeats[1]})
    pd.testing.assert_frame_equal(slower.metrics, again.metrics)


def printed(comparison: ka.Comparison, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    print_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("verdict", ["better", "worse"])
def test_at_eighty_columns_no_figure_and_no_distinguishing_word_is_cut(slower: ka.Comparison, verdict: str) -> None:
    metrics = slower.metrics.copy()
    # As wide as figures come.
    metrics["ratio"], metrics["low"], metrics["high"] = 0.00123456, 0.00123456, 123456.789
    metrics["verdict"], metrics["backed"] = verdict, False
    for name in ("baseline", "target"):
        metrics[f"{name}_value"], metrics[f"{name}_min"], metrics[f"{name}_max"] = 123.4e6, 999.4e3, 12_345.6e6
    text = printed(replace(slower, metrics=metrics), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    rows = [line.split() for line in text.splitlines()]
    for part in ("wall", "device", "host"):
        for percentile in ("p50", "p95", "p99"):
            row = next(row for row in rows if row[:2] == [part, percentile])
            assert row[2:] == ["123", "ms", "123", "ms", "~0.00123", "0.00123..1e+05", verdict]
    assert ["999", "us..12.3", "s", "999", "us..12.3", "s"] in rows
    assert all(any(name in " ".join(row) for row in rows) for name in ("gib per s", "prefix hits", "prefix blocks"))


def test_in_a_pipe_no_line_is_folded(slower: ka.Comparison) -> None:
    assert "A warning " + "and more of it " * 20 in printed(
        replace(
            slower,
            warnings=pd.DataFrame(
                [("x", "", "", "A warning " + "and more of it " * 20)], columns=list(WARNING_COLUMNS)
            ),
        ),
        10_000,
    )
