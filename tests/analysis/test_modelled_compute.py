"""Where compute is modelled, the times of requests contain what nobody measured: every output says so."""

import io
import json
from pathlib import Path
from typing import Any

import h5py
import kvbench_analysis as ka
import numpy as np
import pytest
from condensing import condensed, within_window
from kvbench_analysis.figures.requests import SERVED
from kvbench_analysis.report import write_report
from rich.console import Console
from synthetic import SyntheticRun, synthetic_run

from kvbench.records.condensed.population_schema import MODELLED
from kvbench.records.schema import LATER_CODES, LATER_COLUMNS, Phase, RequestState, labels

PARTS = ("modelled_prefill", "modelled_decode")
MODES = ("full", "histogram", "sampled")


def computing(run: SyntheticRun) -> SyntheticRun:
    """`run` with modelled prefills and decodes in its requests."""
    rng = np.random.default_rng(3)
    took = run.requests["end_ns"] - run.requests["start_ns"]
    run.requests["modelled_prefill_ns"] = 1 + (took * rng.uniform(0.1, 0.4, len(took))).astype(np.int64)
    run.requests["modelled_decode_ns"] = took * rng.uniform(0, 0.5, len(took))
    config = json.loads(str(run.attributes["config_json"])) | {"compute": {"gpu": "h100-sxm"}}
    return run.changed(attributes={"config_json": json.dumps(config)})


@pytest.fixture(scope="module")
def plain() -> SyntheticRun:
    return within_window(synthetic_run(np.random.default_rng(21), ranks=2, nodes=1, operations=800))


@pytest.fixture(scope="module")
def whole() -> SyntheticRun:
    return computing(within_window(synthetic_run(np.random.default_rng(21), ranks=2, nodes=1, operations=800)))


def in_mode(run: SyntheticRun, mode: str) -> SyntheticRun:
    return run if mode == "full" else condensed(run, "histogram" if mode == "histogram" else "sampled", 300)


def printed(summary: ka.Summary) -> str:
    console = Console(width=250, file=io.StringIO())
    with console.capture() as text:
        ka.print_summary(summary, console)
    return text.get()


@pytest.mark.parametrize("mode", MODES)
def test_modelled_parts_stand_beside_the_latency_that_contains_them(
    whole: SyntheticRun, tmp_path: Path, mode: str
) -> None:
    summary = ka.summarize(ka.load(in_mode(whole, mode).write(tmp_path / "run.h5")))
    rows = whole.requests
    done = rows[(rows["phase"] == Phase.MEASURE) & (rows["state"] == RequestState.DONE)]
    table = summary.request_latency.set_index(["qos", "part"])
    for part in PARTS:
        found: Any = table.loc[("all", part)]
        assert found["mean_ns"] == pytest.approx(done[f"{part}_ns"].mean(), rel=1e-12)
        assert found["requests"] == len(done)
        bound = {"full": 1e-9, "histogram": 0.01, "sampled": 0.5}[mode]
        assert found["p50_ns"] == pytest.approx(np.percentile(done[f"{part}_ns"], 50), rel=bound)
    assert summary.run["compute"] == "h100-sxm"
    text = printed(summary)
    assert "compute modelled (h100-sxm)" in text.splitlines()[0]
    assert "requests done; contains modelled compute)" in text
    assert " prefill, modelled" in text
    assert " decode, modelled" in text


@pytest.mark.slow
def test_a_report_and_a_comparison_say_so_too(whole: SyntheticRun, tmp_path: Path) -> None:
    runs = [ka.load(whole.write(tmp_path / "a.h5"))]
    other = whole.changed(attributes={"run_id": "another"})
    runs.append(ka.load(other.write(tmp_path / "b.h5")))
    page = Path(write_report(runs[:1], tmp_path / "report.html")).read_text(encoding="utf-8")
    assert 'Latencies contain <span class="modelled">modelled</span> compute, which nobody measured.' in page
    assert 'prefill, <span class="modelled">modelled</span>' in page
    warnings = ka.compare({"a": runs[:1], "b": runs[1:]}).warnings
    assert "modelled-compute" in set(warnings["code"])


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_said_of_it_where_nothing_is_modelled(plain: SyntheticRun, tmp_path: Path, mode: str) -> None:
    run = in_mode(plain, mode)
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    assert not set(summary.request_latency["part"]) & set(PARTS)
    assert summary.run["compute"] is None
    assert "modelled" not in printed(summary)
    if mode == "histogram":
        assert not set(np.asarray(run.tables["request_histograms"]["quantity"]).tolist()) & set(MODELLED)


@pytest.mark.parametrize("mode", MODES)
def test_files_from_before_there_was_compute_are_read(plain: SyntheticRun, tmp_path: Path, mode: str) -> None:
    path = in_mode(plain, mode).write(tmp_path / "run.h5")
    expected = ka.summarize(ka.load(path)).request_latency
    with h5py.File(path, "r+") as file:
        for table in ("requests", "request_population"):
            for name in LATER_COLUMNS & set(file.get(table, ())):
                del file[table][name]
        older = {name: code for code, name in labels("quantity").items() if code not in LATER_CODES["quantity"]}
        for table in ("histograms", "request_histograms"):
            if table in file:
                codes = file[table]["quantity"][:]
                del file[table]["quantity"]
                file[table].create_dataset("quantity", data=codes, dtype=h5py.enum_dtype(older, basetype="u1"))
    found = ka.summarize(ka.load(path)).request_latency
    told_later = expected["part"].isin(SERVED)
    assert told_later.any()
    assert found.equals(expected[~told_later].reset_index(drop=True))
