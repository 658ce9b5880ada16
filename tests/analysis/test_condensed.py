"""The same rows as a file of all of them, as histograms, and as a sample: equal sums, and percentiles that hold."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from condensing import condensed, within_window
from kvbench_analysis.report import write_report
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS
from rich.console import Console
from synthetic import SyntheticRun, synthetic_run

from kvbench.errors import KvbenchError
from kvbench.records.schema import Locality, Op

ROOM = 700
MODES = ("full", "histogram", "sampled")

KEYS = {
    "operations": ["tier", "op", "path"],
    "latency": ["tier", "op", "path", "part"],
    "totals": ["storage", "op"],
    "ranks": ["rank", "tier", "op"],
    "nodes": ["node", "tier", "op"],
    "requests": ["qos"],
    "request_latency": ["qos", "part"],
}
"""The tables of a summary, and what tells their rows apart."""

FROM_PERCENTILES = {*PERCENTILE_COLUMNS, "wall_p95_ns", "size_p50_bytes", "size_p95_bytes"}
ABOUT_PERCENTILES = {"percentiles_of", "backed_percentile"}


@pytest.fixture(scope="module")
def whole() -> SyntheticRun:
    run = within_window(synthetic_run(np.random.default_rng(11), ranks=5, nodes=2, operations=2000))
    read = run.records["op"] == Op.READ
    run.records["locality"][read] = np.random.default_rng(13).integers(0, len(Locality), read.sum())
    return run.changed(attributes={"namespace": "shared"})


@pytest.fixture(scope="module")
def small() -> SyntheticRun:
    return within_window(synthetic_run(np.random.default_rng(12), ranks=2, nodes=1, operations=100))


@pytest.fixture(scope="module")
def runs(whole: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ka.Run]:
    folder = tmp_path_factory.mktemp("modes")
    files = {
        "full": whole,
        "histogram": condensed(whole, "histogram", ROOM),
        "sampled": condensed(whole, "sampled", ROOM),
    }
    return {mode: ka.load(file.write(folder / f"{mode}.h5")) for mode, file in files.items()}


@pytest.fixture(scope="module")
def summaries(runs: dict[str, ka.Run]) -> dict[str, ka.Summary]:
    return {mode: ka.summarize(run) for mode, run in runs.items()}


def side_by_side(full: ka.Summary, other: ka.Summary, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table `name` of both, in one order."""
    one, two = (getattr(summary, name).set_index(KEYS[name]).sort_index() for summary in (full, other))
    assert list(one.index) == list(two.index)
    assert list(one.columns) == list(two.columns)
    return one, two


@pytest.mark.parametrize("mode", ["histogram", "sampled"])
@pytest.mark.parametrize("name", KEYS)
def test_everything_but_percentiles_is_that_of_all_rows(summaries: dict[str, ka.Summary], mode: str, name: str) -> None:
    full, other = side_by_side(summaries["full"], summaries[mode], name)
    for column in set(full.columns) - FROM_PERCENTILES - ABOUT_PERCENTILES:
        if full[column].dtype.kind == "f":
            # Shares of time in the window are added up in another order.
            np.testing.assert_allclose(other[column].astype(float), full[column], rtol=1e-9, err_msg=column)
        else:
            assert list(full[column]) == list(other[column]), column


@pytest.mark.parametrize("mode", MODES[1:])
def test_prefix_hits_and_load_are_those_of_all_requests(runs: dict[str, ka.Run], mode: str) -> None:
    full, found = ka.summarize(runs["full"]), ka.summarize(runs[mode])
    columns = ["what", "tier", "blocks", "tokens", "block_share", "token_share"]
    pd.testing.assert_frame_equal(full.prefix[columns], found.prefix[columns])
    pd.testing.assert_frame_equal(full.load[:1], found.load[:1])
    assert found.load["offered"].isna().tolist() == [False, True], "sums have no tokens of contexts"


@pytest.mark.parametrize("name", [name for name in KEYS if name != "requests"])
def test_percentiles_of_histograms_are_within_a_hundredth(summaries: dict[str, ka.Summary], name: str) -> None:
    full, other = side_by_side(summaries["full"], summaries["histogram"], name)
    columns = sorted(FROM_PERCENTILES & set(full.columns))
    assert columns
    for column in columns:
        np.testing.assert_allclose(other[column].astype(float), full[column], rtol=0.01, err_msg=column)
    assert list(full["percentiles_of"]) == list(other["percentiles_of"])


@pytest.mark.parametrize("mode", ["histogram", "sampled"])
def test_reads_by_who_wrote_the_object_are_those_of_all_rows(summaries: dict[str, ka.Summary], mode: str) -> None:
    full, other = summaries["full"].sharing.reads, summaries[mode].sharing.reads
    assert len(full) == len(Locality)
    assert full["operations"].min() > 1000
    for column in ("operations", "bytes", "gib_per_s", "device_share", "mean_ns"):
        np.testing.assert_allclose(other[column], full[column], rtol=1e-9)
    for column in (*PERCENTILE_COLUMNS, "max_ns") if mode == "histogram" else ("p50_ns",):
        np.testing.assert_allclose(other[column], full[column], rtol=0.01 if mode == "histogram" else 0.3)


def test_percentiles_of_a_sample_are_of_its_rows_and_near(
    runs: dict[str, ka.Run], summaries: dict[str, ka.Summary]
) -> None:
    full, other = side_by_side(summaries["full"], summaries["sampled"], "latency")
    rows = runs["sampled"].records
    rows = rows[(rows["phase"] == "measure") & (rows["errno"] == 0)]
    for found in other.reset_index().query("part == 'wall'").to_dict("records"):
        mine = rows[(rows["tier"] == found["tier"]) & (rows["op"] == found["op"]) & (rows["path"] == found["path"])]
        assert found["percentiles_of"] == len(mine)
        assert found["p95_ns"] == np.percentile(mine["wall_ns"], 95)
    many = other["percentiles_of"] > 300
    assert many.any()
    np.testing.assert_allclose(other["p50_ns"][many], full["p50_ns"][many], rtol=0.3)


def test_the_sample_is_what_the_file_says(runs: dict[str, ka.Run], whole: SyntheticRun) -> None:
    run = runs["sampled"]
    one_in = run.sampled_1_in()
    assert one_in > 1
    assert run.attributes["records_population"] == len(whole.records)
    kept = len(run.records)
    expected = len(whole.records) / one_in
    assert abs(kept - expected) < 4 * np.sqrt(expected)
    assert run.ranks["rows"].sum() == kept
    assert run.ranks["rows"].max() <= ROOM
    # What is kept are rows of the run, as they were.
    pairs = {(int(row["rank"]), int(row["t_start_ns"]), int(row["wall_ns"])) for row in whole.records}
    records = run.columns(["rank", "t_start_ns", "wall_ns"])
    assert all(pair in pairs for pair in zip(*(records[name].tolist() for name in records), strict=True))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("full", "percentiles: exact, of the full population"),
        ("histogram", "percentiles: of the full population, from histograms, within 1 %"),
        ("sampled", "percentiles: of a sample of 1 in 8 (requests: 1 in 2); counts, bytes, rates"),
    ],
)
def test_the_summary_says_at_its_top_what_it_is_of(summaries: dict[str, ka.Summary], mode: str, said: str) -> None:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as printed:
        ka.print_summary(summaries[mode], console)
    assert printed.get().splitlines()[1].startswith(said)
    assert f'"records": "{mode}"' in ka.to_json(summaries[mode])


def test_the_timeline_of_a_sample_estimates_that_of_all_rows(runs: dict[str, ka.Run]) -> None:
    full, other = ka.timeline(runs["full"]), ka.timeline(runs["sampled"])
    assert (full.sampled_1_in, other.sampled_1_in) == (1, runs["sampled"].sampled_1_in())
    moved = [(table.flows["gib_per_s"] * table.flows["seconds"]).sum() for table in (full, other)]
    assert moved[1] == pytest.approx(moved[0], rel=0.1)
    assert other.nodes["requests"].sum() == pytest.approx(full.nodes["requests"].sum(), rel=0.1)
    busy = [(table.nodes["in_flight"] * table.nodes["seconds"]).sum() for table in (full, other)]
    assert busy[1] == pytest.approx(busy[0], rel=0.1)


@pytest.mark.parametrize("function", [ka.contention, ka.operations_contention])
def test_contention_is_refused_where_rows_are_missing(runs: dict[str, ka.Run], function: Callable[..., Any]) -> None:
    with pytest.raises(KvbenchError, match=r"holds 1 in 8 rows: .* repeat the run with records: full"):
        function(runs["histogram"])


def test_a_sample_of_all_rows_has_its_contention(small: SyntheticRun, tmp_path: Path) -> None:
    everything = ka.load(condensed(small, "sampled", 10**5).write(tmp_path / "all.h5"))
    full = ka.load(small.write(tmp_path / "full.h5"))
    assert everything.sampled_1_in() == 1
    found, expected = (ka.contention(run).factors for run in (everything, full))
    pd.testing.assert_frame_equal(found, expected)
    assert "all of its rows fitted" in everything.percentiles_are


@pytest.mark.parametrize("mode", ["histogram", "sampled"])
def test_attribution_and_report_work_on_the_sample(runs: dict[str, ka.Run], mode: str, tmp_path: Path) -> None:
    assert len(ka.attribution(runs[mode]).shares)
    page = Path(write_report([runs[mode]], tmp_path / "report.html")).read_text(encoding="utf-8")
    assert runs[mode].percentiles_are in page
    assert "Drawn from a sample of 1 in 8 operations" in page
    assert "cannot be told from a sample" in page


def metrics(comparison: ka.Comparison) -> pd.DataFrame:
    return comparison.metrics.set_index(["metric", "tier", "op"]).sort_index()


def repeated(run: ka.Run, folder: Path, times: int) -> list[ka.Run]:
    """Runs that did the same as `run`, to the nanosecond."""
    paths = [folder / f"{run.mode}-{number}.h5" for number in range(times)]
    for path in paths:
        shutil.copy(run.path, path)
        with h5py.File(path, "r+") as file:
            file.attrs["run_id"] = path.stem
    return [ka.load(path) for path in paths]


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_run_compared_with_its_histograms_is_the_same(runs: dict[str, ka.Run], repeats: int, tmp_path: Path) -> None:
    groups = {mode: repeated(runs[mode], tmp_path, repeats) for mode in ("full", "histogram")}
    found = metrics(ka.compare(groups))
    assert set(found.index.get_level_values("metric")) >= {
        "gib_per_s",
        "wall_p99_ns",
        "request_p95_ns",
        "prefix_blocks",
    }
    np.testing.assert_allclose(found["target_value"], found["baseline_value"], rtol=0.01)
    rates = found.loc[["gib_per_s", "prefix_blocks", "prefix_hits"]]
    np.testing.assert_allclose(rates["target_value"], rates["baseline_value"], rtol=1e-9)
    assert not found["significant"].any()
    assert found["low"].notna().sum() > 10
    assert np.all((found["low"] <= found["ratio"]) | found["low"].isna())


def test_a_comparison_of_samples_has_exact_rates_and_says_what_it_is_of(
    runs: dict[str, ka.Run], tmp_path: Path
) -> None:
    comparison = ka.compare({"full": [runs["full"]], "sampled": repeated(runs["sampled"], tmp_path, 2)})
    found = metrics(comparison)
    rates = found.loc[["gib_per_s", "prefix_blocks"]]
    np.testing.assert_allclose(rates["target_value"], rates["baseline_value"], rtol=1e-9)
    assert "sampled" in set(comparison.warnings["code"])


def damaged(run: SyntheticRun, table: str, column: str, value: int) -> SyntheticRun:
    values = np.array(run.tables[table][column])
    values[0] = value
    return run.changed(tables={table: {**run.tables[table], column: values}})


@pytest.mark.parametrize(
    ("table", "column", "value", "said"),
    [
        ("histograms", "first_bucket", 2**60, "claims"),
        ("histograms", "count", 3, "holds"),
        ("buckets", "bucket", 60000, "code 60000"),
        ("population", "tier", 7, "code 7"),
        ("request_histograms", "qos", 1, "two histograms"),
        ("histograms", "quantity", 200, "code 200"),
    ],
)
def test_what_a_file_says_of_all_rows_is_not_believed(
    small: SyntheticRun, tmp_path: Path, table: str, column: str, value: int, said: str
) -> None:
    path = damaged(condensed(small, "histogram", ROOM), table, column, value).write(tmp_path / "damaged.h5")
    with pytest.raises(KvbenchError, match=said):
        ka.summarize(ka.load(path))


@pytest.mark.parametrize("name", ["population", "places", "buckets"])
def test_a_file_without_one_of_its_tables_is_refused(small: SyntheticRun, tmp_path: Path, name: str) -> None:
    path = condensed(small, "histogram", ROOM).changed(tables={name: None}).write(tmp_path / "part.h5")
    with pytest.raises(KvbenchError, match=f"/{name} is missing"):
        ka.load(path)


@pytest.mark.parametrize("change", [{"records": "most"}, {"records_population": "many"}, {"records_sampled_1_in": -1}])
def test_attributes_that_say_nothing_sensible_are_refused(
    small: SyntheticRun, tmp_path: Path, change: dict[str, str | int]
) -> None:
    path = condensed(small, "sampled", ROOM).changed(attributes=change).write(tmp_path / "odd.h5")
    with pytest.raises(KvbenchError, match=f"attribute {next(iter(change))} is"):
        ka.load(path)
