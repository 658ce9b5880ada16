"""The report as a file: what stands on the page, and that it needs nothing else."""

import errno
import json
import re
from collections.abc import Sequence
from functools import cache
from html.parser import HTMLParser
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvbench_analysis.contention.contention import contention
from kvbench_analysis.report import write_report
from kvbench_analysis.report.packed import packed, packed_plotly, unpacked
from kvbench_analysis.text import units
from plotly.offline import get_plotlyjs
from synthetic import STORAGE, SyntheticRun, empty_run, record_rows, run_attributes, run_tables, synthetic_run

from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Path, Phase

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&\x1b"

unpacked_once = cache(unpacked)


class Page(HTMLParser):
    """A report that was read back: its text, its elements with attributes, and the figures that are marked."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, str] = {}
        self.data: dict[str, Any] = {}
        self.unpacked: dict[str, str] = {}
        self._inside: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br", "img"}:
            self._inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "script":
            if attributes.get("type") == "text/plain":
                name = str(attributes["id"])
                self.unpacked[name] = unpacked_once(data)
                if name != "plotly":
                    self.data[name] = json.loads(self.unpacked[name])
        elif tag != "style":
            self.text += data
            if "data-figure" in attributes:
                self.figures.setdefault(str(attributes["data-figure"]), data)


def report(tmp_path: FilePath, *runs: SyntheticRun, png: FilePath | None = None) -> tuple[str, Page]:
    paths = [run.write(tmp_path / f"run{number}.h5") for number, run in enumerate(runs)]
    html = write_report([ka.load(path) for path in paths], tmp_path / "report.html", png=png).read_text("utf-8")
    return html, Page(html)


def run_of(rows: Sequence[np.ndarray[Any, Any]], **changes: str | int | float) -> SyntheticRun:
    """A run of one rank that has these rows and no requests."""
    records = np.concatenate([np.empty(0, RECORD_DTYPE), *rows])
    requests = np.empty(0, REQUEST_DTYPE)
    return SyntheticRun(records, requests, run_attributes(1, 1, **changes), run_tables(records, requests, 1, 1))


@pytest.fixture(scope="module")
def page(run_path: FilePath, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    path = write_report([ka.load(run_path)], tmp_path_factory.mktemp("report") / "report.html")
    html = path.read_text("utf-8")
    return html, Page(html)


def test_the_figures_at_the_top_are_those_of_the_records(truth: SyntheticRun, page: tuple[str, Page]) -> None:
    rows = truth.records
    rows = rows[(rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0) & (rows["op"] == Op.READ)]
    rows = rows[rows["tier"] == STORAGE]
    shown = page[1].figures
    assert shown["p95"] == units.duration(np.percentile(rows["wall_ns"], 95))
    for part in ("device", "host", "runq"):
        assert shown[f"{part}-share"] == units.share(rows[f"{part}_ns"].sum() / rows["wall_ns"].sum())
    assert float(shown["rate"].split()[0]) == pytest.approx(rows["nbytes"].sum() / 2**30 / 10, rel=0.01)


def test_the_answer_comes_before_the_warnings_and_these_before_the_plots(page: tuple[str, Page]) -> None:
    text = page[1].text
    assert text.index("Storage reads ran at") < text.index("Warnings") < text.index("Latency distributions")
    assert "4 ranks on 2 nodes, KV cache of llama3.1-8b, storage: ext4, read path buffered" in text


def test_the_page_fetches_nothing(page: tuple[str, Page]) -> None:
    html, parsed = page
    assert not [tag for tag, attributes in parsed.tags if "src" in attributes or tag in {"link", "iframe", "object"}]
    assert all(str(attributes.get("href", "#")).startswith("#") for _, attributes in parsed.tags)
    policy = next(attributes["content"] for _, attributes in parsed.tags if attributes.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")
    assert parsed.unpacked["plotly"] == get_plotlyjs()
    assert html.count(packed_plotly()) == 1, "plotly stands in the page once"


def test_a_page_weighs_less_than_2_mb(page: tuple[str, Page]) -> None:
    assert len(page[0].encode()) < 2_000_000


@given(text=st.text() | st.sampled_from(["</script>", "<!--", "<script>"]).map(lambda part: part * 1000))
def test_what_is_packed_can_be_unpacked_and_holds_nothing_that_a_page_could_act_on(text: str) -> None:
    assert unpacked(packed(text)) == text
    assert set(packed(text)).isdisjoint("<\"'/ \n")


def test_every_plot_has_its_data_and_says_what_it_is_per(page: tuple[str, Page]) -> None:
    html, parsed = page
    plots = [str(attributes["id"]) for _, attributes in parsed.tags if attributes.get("class") == "plot"]
    assert plots == [
        f"run-1-{key}" for key in ("latency", "slow-operations", "ranks", "contention", "timeline", "heatmap")
    ]
    assert set(parsed.data) == {f"{plot}-data" for plot in plots}
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert len([caption for caption in captions if "per" in caption.lower()]) >= len(plots) - 1


def test_the_page_holds_reduced_data_only(tmp_path: FilePath) -> None:
    html, parsed = report(tmp_path, run_of([record_rows(np.random.default_rng(2), 100_000)]))
    data = sum(len(text) for name, text in parsed.unpacked.items() if name != "plotly")
    assert len(html) - len(packed_plotly()) + data < 250_000


@pytest.mark.slow
def test_text_of_the_file_is_never_markup(truth: SyntheticRun, tmp_path: FilePath) -> None:
    nodes = dict(truth.tables["nodes"]) | {"host": [HOSTILE, HOSTILE], "filesystem": [HOSTILE, HOSTILE]}
    ranks = dict(truth.tables["ranks"]) | {"host": [HOSTILE] * 4}
    tiers = [{"name": "memory", "kind": "memory"}, {"name": HOSTILE, "kind": "file"}]
    hostile = truth.changed(
        tables={"nodes": nodes, "ranks": ranks},
        attributes={
            "config_json": json.dumps({"name": HOSTILE, "</script>": ["<!--", HOSTILE]}),
            "model": HOSTILE,
            "status": "failed",
            "status_message": HOSTILE,
            "tiers_json": json.dumps(tiers),
            "qos_classes_json": json.dumps([HOSTILE, "b", "c"]),
        },
    )
    html, parsed = report(tmp_path, hostile, png=tmp_path / "png")
    assert parsed.text.count("<script>alert(1)</script>") > 5, "it is shown, as text"
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert not [attributes for _, attributes in parsed.tags if "onerror" in attributes]
    scripts = [attributes.get("type") for tag, attributes in parsed.tags if tag == "script"]
    assert scripts.count(None) == 2, "whether plots can be drawn, and the script that draws them"
    assert set(scripts) == {None, "text/plain"}
    assert "\x1b" not in html


def test_an_empty_run_says_that_nothing_was_measured(tmp_path: FilePath) -> None:
    _, parsed = report(tmp_path, empty_run(), png=tmp_path / "png")
    assert "Nothing was measured" in parsed.text
    assert parsed.text.count("Not shown:") >= 5
    assert "No request was made in the measured phase." in parsed.text
    assert list((tmp_path / "png").iterdir()) == []


@pytest.mark.slow
def test_a_run_of_one_operation_says_how_little_that_is(tmp_path: FilePath) -> None:
    _, parsed = report(tmp_path, run_of([record_rows(np.random.default_rng(1), 1)]), png=tmp_path / "png")
    assert "Percentiles marked ~ have too few operations" in parsed.text
    assert parsed.figures["p95"].startswith("~")
    assert "Contention cannot be told" in parsed.text
    assert "Not shown: too few operations ran among the same number of others." in parsed.text
    assert "1 rank on 1 node" in parsed.text


def test_a_run_of_one_rank_has_a_report(tmp_path: FilePath) -> None:
    _, parsed = report(tmp_path, synthetic_run(np.random.default_rng(1), ranks=1, nodes=1))
    assert "1 rank on 1 node" in parsed.text
    assert parsed.data["run-1-ranks-data"]["data"]


@pytest.mark.slow
def test_a_run_of_one_moment_has_a_report(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 50)
    for column in ("t_start_ns", "wall_ns", "device_ns", "host_ns", "runq_ns"):
        rows[column] = rows["t_start_ns"][0] if column == "t_start_ns" else 0
    html, _ = report(tmp_path, run_of([rows]), png=tmp_path / "png")
    assert "Storage reads ran at" in html


@pytest.mark.slow
def test_an_interrupted_run_says_so_at_the_top(truth: SyntheticRun, tmp_path: FilePath) -> None:
    interrupted = truth.changed(attributes={"status": "interrupted", "status_message": "Ctrl-C after 3 s"})
    html, parsed = report(tmp_path, interrupted)
    assert "The run was interrupted: Ctrl-C after 3 s" in parsed.text
    assert re.search(r'<li class="grave" data-code="interrupted">', html)


def test_failed_operations_are_named_and_not_counted(tmp_path: FilePath) -> None:
    rng = np.random.default_rng(1)
    rows = [record_rows(rng, 300), record_rows(rng, 7, errno_code=errno.EIO)]
    _, parsed = report(tmp_path, run_of(rows))
    assert "7 operations failed (EIO 7) and are not counted" in parsed.text
    assert "300 operations" in parsed.text


def test_a_run_of_failed_operations_only_has_a_report(tmp_path: FilePath) -> None:
    _, parsed = report(tmp_path, run_of([record_rows(np.random.default_rng(1), 7, errno_code=errno.EIO)]))
    assert "Nothing was measured" in parsed.text
    assert "7 operations failed (EIO 7)" in parsed.text


def test_a_file_without_its_optional_tables_has_a_report(truth: SyntheticRun, tmp_path: FilePath) -> None:
    bare = truth.changed(tables={"samples": None, "calibration": None, "nodes": None, "ranks": None})
    _, parsed = report(tmp_path, bare)
    assert "no calibration of memory copies" in parsed.text


def test_a_busy_machine_is_a_warning(truth: SyntheticRun, tmp_path: FilePath) -> None:
    samples = dict(truth.tables["samples"])
    samples["cpu_user_pct"] = np.full(len(samples["t_ns"]), 70.0)
    html, _ = report(tmp_path, truth.changed(tables={"samples": samples}))
    assert 'data-code="cpu-saturated"' in html


@pytest.mark.slow
def test_several_runs_are_compared_first_and_then_shown_one_by_one(truth: SyntheticRun, tmp_path: FilePath) -> None:
    other = synthetic_run(np.random.default_rng(9)).changed(attributes={"fingerprint": "fedcba"})
    _, parsed = report(tmp_path, truth, other)
    text = parsed.text
    assert text.index("Comparison") < text.index("different fingerprints") < text.index("Storage reads ran at")
    assert {str(attributes.get("id")) for _, attributes in parsed.tags} >= {"comparison", "run-1", "run-2"}
    names = [trace["name"] for trace in parsed.data["comparison-latency-data"]["data"]]
    assert set(names) == {"run0", "run1"}
    assert "run1 against run0" in text


@pytest.mark.slow
def test_a_run_that_measured_nothing_can_be_compared(tmp_path: FilePath) -> None:
    few = run_of([record_rows(np.random.default_rng(1), 30)])
    _, parsed = report(tmp_path, few, empty_run(), png=tmp_path / "png")
    assert "nothing measured" in parsed.text
    pictures = {path.name for path in (tmp_path / "png").iterdir()}
    assert pictures >= {"comparison-latency.png", "run-1-heatmap.png"}
    assert not [name for name in pictures if name.startswith("run-2")]


def test_runs_of_the_same_name_are_told_apart(tmp_path: FilePath) -> None:
    paths = [tmp_path / "a" / "run.h5", tmp_path / "b" / "run.h5", tmp_path / "b" / "run.hdf5"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        empty_run().write(path)
    runs = [ka.load(path) for path in paths]
    parsed = Page(write_report(runs, tmp_path / "report.html").read_text("utf-8"))
    stem = str(tmp_path / "b" / "run")
    for name in (str(tmp_path / "a" / "run"), f"{stem} (2)", f"{stem} (3)"):
        assert name in parsed.text


def test_a_run_that_is_given_twice_is_refused_before_anything_is_written(
    truth: SyntheticRun, tmp_path: FilePath
) -> None:
    run = ka.load(truth.write(tmp_path / "run.h5"))
    with pytest.raises(KvbenchError, match="is given twice: every run counts once"):
        write_report([run, run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_picture_files_are_those_of_the_page(truth: SyntheticRun, tmp_path: FilePath) -> None:
    _, parsed = report(tmp_path, truth, png=tmp_path / "png")
    drawn = {name.removeprefix("run-1-").removesuffix("-data") for name in parsed.data}
    assert {path.stem for path in (tmp_path / "png").iterdir()} == drawn


def test_a_report_replaces_an_older_one_and_leaves_nothing_beside_it(truth: SyntheticRun, tmp_path: FilePath) -> None:
    (tmp_path / "report.html").write_text("<!doctype html>old")
    html, _ = report(tmp_path, truth)
    assert html.startswith("<!DOCTYPE html>")
    assert {path.name for path in tmp_path.iterdir()} == {"run0.h5", "report.html"}


def test_memory_is_the_subject_where_there_is_no_storage(tmp_path: FilePath) -> None:
    rows = record_rows(np.random.default_rng(1), 300, tier=0, path=Path.COPY)
    _, parsed = report(tmp_path, run_of([rows]))
    assert "Memory reads ran at" in parsed.text


def test_the_top_names_the_kind_whose_contention_is_told(page: tuple[str, Page], run_path: FilePath) -> None:
    factors = contention(ka.load(run_path)).factors
    told = factors[(factors["scope"] == "all") & (factors["tier"] == "storage") & (factors["op"] == "read")].iloc[0]
    assert page[1].figures["contention"] == f"{told['factor']:.2f} x"
    assert f"a byte of a storage read cost the host {told['factor']:.2f} times as much as alone" in page[1].text
