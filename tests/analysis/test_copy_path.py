"""The figures of a copy-path study, against studies whose content is known, recomputed in the plainest way."""

import io
import json
from itertools import product
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_analysis import load
from kvbench_analysis.copy_path.copy_path import METRICS, CopyPathFigures, copy_path_figures
from kvbench_analysis.copy_path.print import print_copy_path, sentences, to_json
from rich.console import Console
from synthetic import BYTES_PER_TOKEN, SyntheticRun, run_attributes, run_tables

from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Path, Phase, label

MIB = 1024**2
REPEATS = 5
COPY_NS = {"isolated": 400_000, "contended": 640_000}
"""Processor time of one copy of 1 MiB."""
DEVICE_NS = 2_000_000
RUNQ_NS = {"isolated": 0, "contended": 100_000}
"""Per copy."""
COPIES = {Path.DOUBLE_COPY: 2, Path.NUMPY: 1, Path.BUFFERED: 1, Path.MMAP_TOUCH: 0}
CELL_COLUMNS = (
    "cell", "directory", "filesystem", "ranks", "threads", "read_path", "object_bytes", "mode", "repeat", "order",
    "start_ns", "end_ns",
)  # fmt: skip


def rows_of_cell(rng: np.random.Generator, cell: dict[str, Any], requests: int, noise: float) -> np.ndarray[Any, Any]:
    """The reads of one cell; times are those of the table above, spread by `noise`, which averages out to none."""
    parts = []
    for rank, thread in product(range(cell["ranks"]), range(cell["threads"])):
        count = 8 * requests
        rows = np.zeros(count, RECORD_DTYPE)
        path = Path[cell["read_path"].upper().replace("-", "_")]
        spread = 1 + noise * rng.uniform(-1, 1, count)
        mode = cell["mode"]
        rows["host_ns"] = COPY_NS[mode] * COPIES[path] * spread
        rows["runq_ns"] = RUNQ_NS[mode] * COPIES[path] * spread
        rows["device_ns"] = DEVICE_NS * spread
        rows["wall_ns"] = rows["host_ns"] + rows["runq_ns"] + rows["device_ns"]
        rows["span_ns"] = rows["wall_ns"]
        if path == Path.DOUBLE_COPY:
            rows["copy_ns"] = rows["host_ns"] // 2
            rows["span_ns"] -= rows["copy_ns"]
        rows["nbytes"] = cell["object_bytes"]
        rows["user"], rows["rank"], rows["thread"] = cell["cell"], rank, thread
        rows["request"] = thread * requests + np.arange(count) // 8
        rows["op"], rows["phase"], rows["path"] = Op.READ, Phase.MEASURE, path
        rows["tier"] = 0
        parts.append(rows)
    return np.concatenate(parts)


def make_study(
    rng: np.random.Generator, *, ranks: tuple[int, ...] = (1, 2), repeats: int = REPEATS, noise: float = 0.0
) -> SyntheticRun:
    """A study of one directory whose true times are known."""
    cells: list[dict[str, Any]] = []
    for repeat, count, threads, path, mode in product(range(repeats), ranks, (1, 2), COPIES, COPY_NS):
        values = (len(cells), "/data", "ext4", count, threads, label(path), MIB, mode, repeat, len(cells), 0, 0)
        cells.append(dict(zip(CELL_COLUMNS, values, strict=True)))
    parts = [rows_of_cell(rng, cell, 4, noise) for cell in cells]
    rows = np.concatenate(parts) if parts else np.empty(0, RECORD_DTYPE)
    rows = rows[np.argsort(rows["rank"], kind="stable")]
    most = max(ranks)
    requests = np.empty(0, REQUEST_DTYPE)
    tables: dict[str, Any] = dict(run_tables(rows, requests, most, 1))
    table = pd.DataFrame(cells, columns=CELL_COLUMNS)
    text = ("directory", "filesystem", "read_path", "mode")
    tables["cells"] = {
        name: list(table[name]) if name in text else table[name].to_numpy(np.int64) for name in CELL_COLUMNS
    }
    levels = list(product(range(repeats), range(1, most + 1)))
    tables["roofline"] = {
        "node": np.zeros(len(levels), np.int64),
        "ranks": np.array([level for _, level in levels], np.int64),
        "repeat": np.array([repeat for repeat, _ in levels], np.int64),
        "copy_gib_per_s": np.array([4.0 * level for _, level in levels]),
    }
    tiers = json.dumps([{"name": "/data", "kind": "file", "capacity_bytes": 0}])
    attributes = run_attributes(most, 1, kind="study-copy-path", reads_per_request=8, tiers_json=tiers)
    return SyntheticRun(rows, requests, attributes, tables)


def figures_of(study: SyntheticRun, path: FilePath) -> CopyPathFigures:
    return copy_path_figures(load(study.write(path / "study.h5")), np.random.default_rng(3))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[SyntheticRun, CopyPathFigures]:
    study = make_study(np.random.default_rng(5), noise=0.5)
    return study, figures_of(study, tmp_path_factory.mktemp("noisy"))


def plainly(rows: pd.DataFrame, threads: int, copied: float, readers: int) -> dict[str, float]:
    """The metrics of one cell, from its rows, in as few steps as possible."""
    per_rank = [threads * mine["nbytes"].sum() / (mine["wall_ns"].sum() / 1e9) for _, mine in rows.groupby("rank")]
    bytes_per_s = sum(per_rank) / len(per_rank)
    return {
        "old_device_p95_ns": float(np.percentile(rows["span_ns"], 95)),
        "old_host_p95_ns": float(np.percentile(rows["wall_ns"] - rows["span_ns"], 95)),
        "device_p95_ns": float(np.percentile(rows["device_ns"], 95)),
        "host_p95_ns": float(np.percentile(rows["host_ns"], 95)),
        "runq_p95_ns": float(np.percentile(rows["runq_ns"], 95)),
        "total_p95_ns": float(np.percentile(rows["wall_ns"], 95)),
        "tokens_per_s": bytes_per_s / BYTES_PER_TOKEN,
        "request_p95_ns": float(np.percentile(rows.groupby(["rank", "request"])["wall_ns"].sum(), 95)),
        "host_ns_per_byte": rows["host_ns"].mean() / MIB,
        "roofline_fraction": bytes_per_s * readers / 2**30 / copied,
    }


def test_every_figure_of_the_table_recomputes_from_the_records(noisy: tuple[SyntheticRun, CopyPathFigures]) -> None:
    study, figures = noisy
    by_cell = dict(
        tuple(pd.DataFrame({name: study.records[name] for name in RECORD_DTYPE.names or ()}).groupby("user"))
    )
    found: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for cell in pd.DataFrame(study.tables["cells"]).to_dict("records"):
        readers = cell["ranks"] if cell["mode"] == "contended" else 1
        copied = 4.0 * min(readers * cell["threads"], 2)
        plain = plainly(by_cell[cell["cell"]], cell["threads"], copied, readers)
        found.setdefault((cell["ranks"], cell["threads"], cell["mode"], cell["read_path"]), []).append(plain)
    assert len(figures.table) == len(found) * len(METRICS) == 2 * 2 * 2 * len(COPIES) * len(METRICS)
    for row in figures.table.to_dict("records"):
        combination = (row["ranks"], row["threads"], row["mode"])
        wanted, baseline = (
            float(np.mean([plain[row["metric"]] for plain in found[(*combination, path)]]))
            for path in (row["read_path"], "double-copy")
        )
        assert row["repeats"] == REPEATS
        assert row["value"] == pytest.approx(wanted)
        assert row["ratio"] == pytest.approx(wanted / baseline if baseline else float("nan"), nan_ok=True)
        assert row["low"] <= row["value"] <= row["high"]
        assert not np.isfinite(row["ratio"]) or row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_the_cost_of_the_second_copy_and_its_causes_come_back(tmp_path: FilePath) -> None:
    costs = figures_of(make_study(np.random.default_rng(1)), tmp_path).second_copy
    assert len(costs) == 4
    row = costs.iloc[0]
    assert row["isolated_ns"] == 400_000
    assert row["contended_ns"] == 740_000
    assert row["more_ns"] == 340_000
    assert row["more_host_ns"] == 240_000
    assert row["more_runq_ns"] == 100_000
    assert row["more_device_ns"] == 0
    assert row["bandwidth_share"] == pytest.approx(240 / 340)
    assert row["growth"] == row["copy_growth"] == pytest.approx(1.6)
    assert row["isolated_host_ns_per_byte"] == pytest.approx(400_000 / MIB)
    assert row["isolated_share"] == pytest.approx(400 / 2400)
    assert bool(row["slowed"])


def test_the_causes_add_up_to_the_difference_in_noise_too(noisy: tuple[SyntheticRun, CopyPathFigures]) -> None:
    costs = noisy[1].second_copy
    causes = costs["more_host_ns"] + costs["more_runq_ns"] + costs["more_device_ns"]
    assert causes.to_numpy() == pytest.approx(costs["more_ns"].to_numpy(), abs=1)
    assert costs["more_ns"].to_numpy() == pytest.approx((costs["contended_ns"] - costs["isolated_ns"]).to_numpy())


def test_intervals_hold_the_truth_in_noise(noisy: tuple[SyntheticRun, CopyPathFigures]) -> None:
    costs = noisy[1].second_copy
    held = [
        low <= truth <= high
        for name, truth in (("isolated_ns", 400_000), ("contended_ns", 740_000), ("more_host_ns", 240_000))
        for low, high in zip(costs[f"{name}_low"], costs[f"{name}_high"], strict=True)
    ]
    assert sum(held) >= len(held) - 1


def test_the_sentence_says_what_the_figures_say(tmp_path: FilePath) -> None:
    figures = figures_of(make_study(np.random.default_rng(1)), tmp_path)
    (line,) = sentences(figures)
    for part in (
        "ext4 at /data, 1 MiB a read, 2 ranks of 2 threads",
        "the second copy costs 400 us (400 to 400) a read with one rank at a time, 17 % (17 % to 17 %) on top",
        "and 740 us (740 to 740), 27 % (27 % to 27 %), with 2 ranks at once",
        "of the 340 us (340 to 340) between them 71 % (71 % to 71 %) is memory bandwidth",
        "processor time grew from 0.381 to 0.610 ns/byte",
        "100 us waiting for a processor and 0 being blocked",
    ):
        assert part in line


def test_a_difference_that_may_be_chance_is_called_so(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COPY_NS, "contended", COPY_NS["isolated"])
    monkeypatch.setitem(RUNQ_NS, "contended", 0)
    figures = figures_of(make_study(np.random.default_rng(2), noise=0.3), tmp_path)
    (line,) = sentences(figures)
    assert "cannot be told from none" in line


def test_a_second_copy_that_contention_makes_cheaper_is_called_so(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COPY_NS, "contended", COPY_NS["isolated"] // 2)
    monkeypatch.setitem(RUNQ_NS, "contended", 0)
    (line,) = sentences(figures_of(make_study(np.random.default_rng(2), noise=0.1), tmp_path))
    assert line.endswith("with 2 ranks at once: contention does not raise it.")


def test_pages_left_in_the_page_cache_are_warned_of_by_directory(tmp_path: FilePath) -> None:
    study = make_study(np.random.default_rng(1))
    study.records["resident_pct"][::4] = 100
    warnings = figures_of(study, tmp_path).warnings
    assert any(warning.startswith("25.0% of the reads from /data found pages") for warning in warnings)


def test_the_sentence_is_about_as_many_threads_as_there_are_processors(tmp_path: FilePath) -> None:
    study = make_study(np.random.default_rng(1))
    nodes = dict(study.tables["nodes"]) | {"cpus": np.array([2])}
    figures = figures_of(study.changed(tables={"nodes": nodes}), tmp_path)
    assert "2 ranks of 1 thread:" in sentences(figures)[0]


def test_with_one_rank_there_is_no_word_of_contention(tmp_path: FilePath) -> None:
    (line,) = sentences(figures_of(make_study(np.random.default_rng(1), ranks=(1,)), tmp_path))
    assert line.endswith("what it costs beside other ranks was not measured.")


@pytest.mark.slow
def test_rows_that_failed_or_belong_to_no_cell_do_not_count(tmp_path: FilePath) -> None:
    study = make_study(np.random.default_rng(1))
    lost, stray = study.records[:8].copy(), study.records[:8].copy()
    for rows in (lost, stray):
        rows["wall_ns"] *= 1000
        rows["request"] = 99
    lost["errno"] = 125
    stray["user"] = 9999
    more = SyntheticRun(np.concatenate([study.records, lost, stray]), study.requests, study.attributes, study.tables)
    (tmp_path / "more").mkdir()
    pd.testing.assert_frame_equal(figures_of(more, tmp_path / "more").table, figures_of(study, tmp_path).table)


def test_a_request_that_was_cut_short_does_not_count(tmp_path: FilePath) -> None:
    study = make_study(np.random.default_rng(1))
    short = study.records[:1].copy()
    short["request"] = 99
    more = SyntheticRun(np.concatenate([study.records, short]), study.requests, study.attributes, study.tables)
    first = figures_of(more, tmp_path).cells.set_index("cell").loc[int(short["user"][0])]
    assert first["reads"] == 33
    assert first["requests"] == 4


def test_a_study_that_was_interrupted_at_once_gives_empty_tables(tmp_path: FilePath) -> None:
    study = make_study(np.random.default_rng(1), repeats=0)
    figures = figures_of(study.changed(attributes={"status": "interrupted"}), tmp_path)
    assert len(figures.table) == len(figures.second_copy) == len(figures.roofline) == 0
    assert any("interrupted" in warning for warning in figures.warnings)
    assert json.loads(to_json(figures))["sentences"] == []
    print_copy_path(figures, Console(quiet=True))


def test_a_study_of_one_repeat_has_figures_without_intervals(tmp_path: FilePath) -> None:
    figures = figures_of(make_study(np.random.default_rng(1), repeats=1), tmp_path)
    assert figures.table["value"].notna().all()
    assert figures.table["low"].isna().all()
    assert "400 us a read" in sentences(figures)[0]
    assert sentences(figures)[0].endswith("1 repeat gives no interval.")


def test_json_has_every_table_and_no_number_that_json_lacks(noisy: tuple[SyntheticRun, CopyPathFigures]) -> None:
    content = json.loads(to_json(noisy[1]), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert content["format"] == "kvbench-copy-path"
    assert {name: len(content[name]) for name in ("table", "second_copy", "roofline")} == {
        "table": len(noisy[1].table),
        "second_copy": 4,
        "roofline": 2,
    }


def test_tables_fit_into_80_columns_and_name_every_path(noisy: tuple[SyntheticRun, CopyPathFigures]) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    print_copy_path(noisy[1], console, every=True)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("1 MiB a read, one rank at a time") == 4
    assert text.count("1 MiB a read, 2 ranks at once") == 2


def test_a_run_is_not_taken_for_a_study(run_path: FilePath) -> None:
    with pytest.raises(KvbenchError, match="is not a copy-path study"):
        copy_path_figures(load(run_path), np.random.default_rng(0))
