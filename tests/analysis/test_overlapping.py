"""Nothing of operations that overlap is shown from the zeros of their rows: of them is known what their batches say."""

import dataclasses
import io
import json
import tempfile
import warnings
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from condensing import condensed, within_window
from hypothesis import given, settings
from hypothesis import strategies as st
from kvbench_analysis.plots import tables as plot_tables
from kvbench_analysis.report import write_report
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS
from numpy.typing import NDArray
from overlapped import PARTS, Kind, overlapped, overlaps
from rich.console import Console
from synthetic import MEMORY, STORAGE, SyntheticRun, synthetic_run

from kvbench.records.schema import Op, Path, Phase, label

SPLIT = ("device", "host", "runq")
READS, WRITES = (STORAGE, Op.READ), (STORAGE, Op.WRITE)
KINDS: tuple[Kind, ...] = (READS, WRITES, (STORAGE, Op.DEMOTE), (STORAGE, Op.DELETE), (MEMORY, Op.READ))
TIERS = {MEMORY: "memory", STORAGE: "storage"}
TABLES = {
    "operations": ("tier", "op", "path"),
    "totals": ("storage", "op"),
    "ranks": ("rank", "tier", "op"),
    "nodes": ("node", "tier", "op"),
}


@pytest.fixture(scope="module")
def plain() -> SyntheticRun:
    return within_window(synthetic_run(np.random.default_rng(5), ranks=3, nodes=2, operations=90))


def counted(run: SyntheticRun) -> NDArray[Any]:
    """The rows that figures are made of."""
    rows = run.records
    chosen: NDArray[Any] = rows[(rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)]
    return chosen


def rows_of(run: SyntheticRun, row: dict[Any, Any], by: tuple[str, ...], rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of `rows` (of /records or of /splits) the row of a table is made of."""
    node = np.asarray(run.tables["ranks"]["node"])
    found = np.ones(len(rows), bool)
    for name in by:
        if name == "path":
            found &= (
                rows["path"] == Path[row["path"].upper().replace("-", "_")]
                if "path" in (rows.dtype.names or ())
                else True
            )
        elif name in ("tier", "storage"):
            found &= rows["tier"] == {tier: code for code, tier in TIERS.items()}[row[name]]
        elif name == "op":
            found &= rows["op"] == next(op for op in Op if label(op) == row["op"])
        else:
            found &= (rows["rank"] if name == "rank" else node[rows["rank"]]) == row[name]
    return found


def wanted(run: SyntheticRun, row: dict[Any, Any], by: tuple[str, ...], *, told: bool) -> tuple[str, dict[str, float]]:
    """What the row of a table is to say: what its split is of, and its shares."""
    every = counted(run)
    rows = every[rows_of(run, row, by, every)]
    own, others = rows[overlaps(rows)], rows[~overlaps(rows)]
    sums = {part: int(others[f"{part}_ns"].sum()) for part in SPLIT}
    if not len(own):
        return "operations", {part: value / int(others["wall_ns"].sum()) for part, value in sums.items()}
    kinds = every[rows_of(run, row, tuple(name for name in by if name != "path"), every)]
    if not told or (len(np.unique(kinds["path"][overlaps(kinds)])) > 1 and "path" in by):
        return "unknown", dict.fromkeys((*SPLIT, "helper"), float("nan"))
    splits = pd.DataFrame({name: np.asarray(column) for name, column in run.tables["splits"].items()}).to_records()
    mine = splits[rows_of(run, row, by, splits) & (splits["phase"] == Phase.MEASURE)]
    batches = int(mine["wall_ns"].sum())
    time = batches + int(others["wall_ns"].sum())
    shares = {part: (sums[part] + int(mine[f"{part}_ns"].sum())) / time for part in SPLIT}
    return "batches", shares | {"helper": int(mine["helper_ns"].sum()) / batches}


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    shares=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(KINDS), max_size=len(KINDS)),
    told=st.booleans(),
    two_paths=st.booleans(),
    mode=st.sampled_from(["full", "sampled", "histogram"]),
    seed=st.integers(0, 99),
)
def test_shares_are_exact_and_add_up_or_are_not_known_whatever_overlaps(
    plain: SyntheticRun, shares: list[float], told: bool, two_paths: bool, mode: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    if two_paths:
        records = plain.records.copy()
        records["path"][
            (records["op"] == Op.READ) & (records["tier"] == STORAGE) & (rng.random(len(records)) < 0.5)
        ] = Path.DIRECT
        plain = dataclasses.replace(plain, records=records)
    run = overlapped(plain, rng, dict(zip(KINDS, shares, strict=True)))
    file = run if told else run.changed(tables={"splits": None})
    file = file if mode == "full" else condensed(file, mode, 120)
    with tempfile.TemporaryDirectory() as folder:
        loaded = ka.load(file.write(FilePath(folder) / "run.h5"))
        summary = ka.summarize(loaded)
        for name, by in TABLES.items():
            for row in getattr(summary, name).to_dict("records"):
                if not row["operations"]:
                    continue
                found = [row[f"{part}_share"] for part in SPLIT]
                assert np.isnan(found).all() or sum(found) == pytest.approx(1), (name, row)
                split_of, figures = wanted(run, row, by, told=told)
                assert found == pytest.approx([figures[part] for part in SPLIT], nan_ok=True), (name, row)
                assert row["split_of"] == split_of
                assert row["helper_share"] == pytest.approx(figures.get("helper", float("nan")), nan_ok=True)
        check_latency(summary)
        check_others(loaded, run, told=told)


def check_latency(summary: ka.Summary) -> None:
    """Kinds with operations that overlap have wall and queue times, and shares alone of the rest."""
    split_of = summary.operations.set_index(["tier", "op", "path"])["split_of"]
    for row in summary.latency.to_dict("records"):
        kind = split_of[row["tier"], row["op"], row["path"]]
        unsplit = kind != "operations" and row["part"] in (*PARTS, "helper")
        assert row["split_of"] == (kind if unsplit else "operations")
        values = [row[name] for name in ("mean_ns", *PERCENTILE_COLUMNS)]
        if unsplit:
            assert np.isnan(values).all()
            assert row["percentiles_of"] == 0
            assert np.isnan(row["share_of_wall"]) == (kind == "unknown")
        elif row["part"] == "wall" and row["percentiles_of"]:
            assert np.all(np.array(values) > 0)


def check_others(loaded: ka.Run, run: SyntheticRun, *, told: bool) -> None:
    """Attribution, contention and the tables of plots leave out what there is not."""
    rows = ka.load(loaded.path).records
    rows = rows[(rows["phase"] == "measure") & (rows["errno"] == 0)]
    rows = rows.assign(overlap=rows["timed_by"].isin(["uring", "nixl"]))
    of_kinds = {
        tuple(map(str, kind)): group["overlap"].to_numpy()
        for kind, group in rows.groupby(["tier", "op", "path"], observed=True)
    }
    for kind, parts in ka.attribution(loaded).shares.groupby(["tier", "op", "path"]):
        unsplit = of_kinds[tuple(map(str, kind))].any()
        assert set(parts["part"]) == ({"wall", "queue"} if unsplit else {"device", "host", "runq", "queue"})
        assert parts.groupby("tail")["share"].sum().to_numpy() == pytest.approx(1)
    if loaded.sampled_1_in() == 1:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = ka.contention(loaded).curve
        chosen = curve[(curve["scope"] == "all") & (curve["against"] == "ranks") & (curve["metric"] == "runq_share")]
        operations = chosen.groupby(["tier", "op", "path"])["operations"].sum().to_dict()
        moved = {kind: int((~found).sum()) for kind, found in of_kinds.items() if kind[1] != "delete"}
        assert operations == {kind: number for kind, number in moved.items() if number}
    found = plot_tables.time_parts(plot_tables.Counted(loaded))
    sums = found["device_ns"] + found["host_ns"] + found["copy_ns"] + found["runq_ns"]
    assert sums.to_numpy() == pytest.approx(found["wall_ns"].to_numpy(), nan_ok=True)
    assert (found["wall_ns"].isna() == (found["split_of"] == "unknown")).all()
    assert "unknown" not in set(found["split_of"]) or not told


@pytest.fixture(scope="module")
def mixed(plain: SyntheticRun) -> SyntheticRun:
    """Reads overlap, some writes do, and nothing else."""
    run = overlapped(plain, np.random.default_rng(1), {READS: 1.0, WRITES: 0.5})
    splits = {name: np.array(column) for name, column in run.tables["splits"].items()}
    reads = splits["op"] == Op.READ
    splits["helper_ns"] = np.where(reads, 0, 2 * splits["wall_ns"])
    return run.changed(tables={"splits": splits}, attributes={"run_id": "mixed", "uring_memory_registered": 0})


@pytest.fixture
def mixed_path(mixed: SyntheticRun, tmp_path: FilePath) -> FilePath:
    return mixed.write(tmp_path / "mixed.h5")


@pytest.fixture
def untold_path(mixed: SyntheticRun, tmp_path: FilePath) -> FilePath:
    """As recovered: without sums of batches."""
    return mixed.changed(tables={"splits": None}).write(tmp_path / "untold.h5")


def printed(path: FilePath, *, brief: bool = False, width: int = 80) -> str:
    stream = io.StringIO()
    show = ka.print_brief if brief else ka.print_summary
    show(ka.summarize(ka.load(path)), Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("brief", [False, True])
def test_shares_of_batches_are_marked_and_the_mark_is_explained_once(mixed_path: FilePath, brief: bool) -> None:
    text = printed(mixed_path, brief=brief)
    assert max(map(len, text.splitlines())) <= 80
    assert "(of batches: device" in " ".join(text.split())
    assert text.count("* of batches") == 1
    if brief:
        lines = [line for line in text.splitlines() if line.startswith((" storage ", " memory "))]
        reads, writes = (
            next(line for line in lines if line.split()[:2] == ["storage", op]) for op in ("read", "write")
        )
        assert (reads.count("%*"), writes.count("%*")) == (3, 4)
        assert "200 %*" in writes
        assert "%*" not in next(line for line in lines if line.startswith(" memory"))
        assert text.index("* of batches") > text.index(reads)


def test_where_the_sums_of_batches_are_missing_shares_are_not_known_and_never_0(untold_path: FilePath) -> None:
    text = " ".join(printed(untold_path, width=200).split())
    assert "its split is not known: operations overlap" in text
    assert "- not known: these operations overlap" in text
    for part in ("device", "host", "run queue"):
        assert f"(device 0 %, {part}" not in text
    summary = ka.summarize(ka.load(untold_path))
    rows = json.loads(ka.to_json(summary))["operations"]
    for row in rows:
        if row["tier"] == "storage" and row["op"] in ("read", "write"):
            assert (row["device_share"], row["host_share"], row["split_of"]) == (None, None, "unknown")
    lines = printed(untold_path, brief=True).splitlines()
    line = next(line for line in lines if line.split()[:2] == ["storage", "read"])
    assert line.split()[-3:] == ["-", "-", "-"]


def test_the_json_says_why_there_are_no_percentiles(mixed_path: FilePath) -> None:
    content = json.loads(ka.to_json(ka.summarize(ka.load(mixed_path))))
    [device] = [
        row for row in content["latency"] if (row["tier"], row["op"], row["part"]) == ("storage", "read", "device")
    ]
    assert (device["p50_ns"], device["mean_ns"], device["split_of"]) == (None, None, "batches")
    assert device["share_of_wall"] > 0


def test_memory_that_could_not_be_registered_is_warned_of(mixed: SyntheticRun, tmp_path: FilePath) -> None:
    for known, told in ((0, True), (1, False)):
        path = mixed.changed(attributes={"uring_memory_registered": known}).write(tmp_path / f"{known}.h5")
        codes = {caution.code for caution in ka.summarize(ka.load(path)).warnings}
        assert ("memory-not-registered" in codes) == told


def test_a_run_with_one_operation_after_the_other_is_compared_with_one_whose_operations_overlap(
    plain: SyntheticRun, mixed_path: FilePath, untold_path: FilePath, tmp_path: FilePath
) -> None:
    path = plain.write(tmp_path / "plain.h5")
    for other, told in ((mixed_path, "is of batches"), (untold_path, "is not known")):
        found = ka.compare({"sync": [path], "uring": [other]}, force=True)
        [warning] = found.warnings.loc[found.warnings["code"] == "of-batches", "message"]
        assert warning.startswith("reads of storage, writes of storage overlap")
        assert told in warning
        metrics = found.metrics[(found.metrics["tier"] == "storage") & (found.metrics["op"] == "read")]
        values: Any = metrics.set_index("metric")
        assert values.loc["device_p95_ns", "baseline_value"] > 0
        assert np.isnan(values.loc["device_p95_ns", "target_value"])
        assert values.loc["wall_p95_ns", "ratio"] == pytest.approx(1)
        target = values.loc[[f"{part}_share" for part in SPLIT], "target_value"]
        assert target.isna().all() if told == "is not known" else target.sum() == pytest.approx(1)
        assert set(values.loc[[f"{part}_share" for part in SPLIT], "verdict"]) == {""}


def test_repeats_whose_operations_overlap_are_compared_by_the_sums_of_all_of_them(
    plain: SyntheticRun, tmp_path: FilePath
) -> None:
    runs = [overlapped(plain, np.random.default_rng(seed), {READS: 1.0}) for seed in range(4)]
    paths = [
        run.changed(attributes={"run_id": f"run {number}"}).write(tmp_path / f"{number}.h5")
        for number, run in enumerate(runs)
    ]
    found = ka.compare({"first": paths[:2], "others": paths[2:]}, force=True).metrics
    row = found[(found["metric"] == "device_share") & (found["op"] == "read") & (found["tier"] == "storage")].iloc[0]
    splits = [{name: np.asarray(column) for name, column in run.tables["splits"].items()} for run in runs[:2]]
    measured = [split["phase"] == Phase.MEASURE for split in splits]
    device, wall = (
        sum(int(split[f"{part}_ns"][mine].sum()) for split, mine in zip(splits, measured, strict=True))
        for part in ("device", "wall")
    )
    assert row["baseline_value"] == pytest.approx(device / wall)
    assert (row["baseline_runs"], row["target_runs"]) == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "sampled", "histogram"])
def test_reports_show_batches_or_say_what_is_not_known(
    mixed: SyntheticRun, plain: SyntheticRun, mode: Any, tmp_path: FilePath
) -> None:
    files = []
    for number, run in enumerate((mixed, mixed.changed(tables={"splits": None}), plain)):
        kept = run if mode == "full" else condensed(run, mode, 120)
        files.append(kept.changed(attributes={"run_id": f"run {number}"}).write(tmp_path / f"{number}.h5"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages = [
            write_report([ka.load(file)], tmp_path / f"{file.stem}.html", png=tmp_path / file.stem) for file in files
        ]
        together = write_report([ka.load(file) for file in files], tmp_path / "all.html")
    of_batches, untold, usual = (page.read_text() for page in pages)
    assert "of the time of their batches was" in of_batches
    assert "* of batches" in of_batches
    assert "Where their time went is not known" in untold
    assert "* of batches" not in untold
    assert "batches overlap" not in usual
    assert "not known" in together.read_text()


def test_the_zeros_of_rows_are_in_no_band_of_a_plot(mixed_path: FilePath) -> None:
    counted_rows = plot_tables.Counted(ka.load(mixed_path))
    bands = plot_tables.latency_bands(counted_rows, counted_rows.of(storage=True, op="read"))
    assert (bands["wall_ns"] > 0).all()
    assert bands[["device_ns", "host_ns", "copy_ns", "runq_ns"]].isna().all(axis=None)


def test_reads_of_a_shared_key_space_that_overlap_have_no_split_by_writer(
    mixed: SyntheticRun, tmp_path: FilePath
) -> None:
    for mode in ("full", "histogram"):
        run = mixed.changed(attributes={"namespace": "shared"})
        kept = run if mode == "full" else condensed(run, "histogram", 120)
        reads: Any = ka.summarize(ka.load(kept.write(tmp_path / f"{mode}.h5"))).sharing.reads.set_index("writer")
        assert reads.loc["own", "split_of"] == "unknown"
        assert np.isnan(reads.loc["own", "device_share"])
        assert reads.loc["own", "p95_ns"] > 0
