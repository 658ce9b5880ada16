"""The report in a browser: plots are drawn, with the numbers of the run file, on wide and narrow and dark screens."""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.report import write_report
from kvbench_analysis.report.packed import packed
from kvbench_analysis.text import units
from numpy.typing import NDArray
from overlapped import overlapped
from synthetic import STORAGE, SyntheticRun, empty_run, synthetic_run

from kvbench.records.schema import Op, Phase

pytestmark = pytest.mark.slow

Open = Callable[..., Any]
"""`open_report` of conftest.py."""
KEYS = ("latency", "slow-operations", "ranks", "contention", "timeline", "heatmap")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b>"


@pytest.fixture(scope="module")
def truth() -> SyntheticRun:
    return synthetic_run(np.random.default_rng(7))


@pytest.fixture(scope="module")
def report(truth: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    directory = tmp_path_factory.mktemp("report")
    return write_report([ka.load(truth.write(directory / "run.h5"))], directory / "report.html")


@pytest.fixture(scope="module")
def storage_reads(truth: SyntheticRun) -> NDArray[Any]:
    rows = truth.records
    counted = (rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)
    chosen: NDArray[Any] = rows[counted & (rows["op"] == Op.READ) & (rows["tier"] == STORAGE)]
    return chosen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_every_plot_is_drawn_and_nothing_is_complained_about(
    report: FilePath, open_report: Open, width: int, scheme: str
) -> None:
    opened = open_report(report, width=width, scheme=scheme)
    sizes = opened.ask(
        """Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) => {
            const box = plot.querySelector('svg.main-svg').getBoundingClientRect();
            const marks = plot.querySelectorAll('.scatterlayer path.js-line, .barlayer path, .heatmaplayer image');
            return [plot.id, [box.width, box.height, marks.length]];
        }))"""
    )
    assert set(sizes) == {f"run-1-{key}" for key in KEYS}
    for name, (wide, high, marks) in sizes.items():
        assert wide > min(width, 1120) * 0.75, name
        assert high > 150, name
        assert marks > 0, name
    assert opened.complaints == []


@pytest.mark.parametrize("width", [1400, 420])
def test_shares_of_batches_are_marked_and_explained_and_fit_the_page(
    truth: SyntheticRun, tmp_path: FilePath, open_report: Open, width: int
) -> None:
    rng = np.random.default_rng(8)
    run = overlapped(truth, rng, {(STORAGE, Op.READ): 1.0, (STORAGE, Op.WRITE): 0.5})
    path = write_report([ka.load(run.write(tmp_path / "run.h5"))], tmp_path / "report.html")
    opened = open_report(path, width=width, fresh=True)
    row: Any = ka.summarize(ka.load(tmp_path / "run.h5")).totals.set_index(["storage", "op"]).loc[("storage", "read")]
    for part in ("device", "host", "runq"):
        shown = opened.page.locator(f"[data-figure={part}-share]").inner_text()
        assert shown == f"{units.share(row[f'{part}_share'])}*"
    note = opened.page.locator("[data-figure=split-note]")
    assert note.is_visible()
    assert "* of batches" in note.inner_text()
    assert opened.ask("document.documentElement.scrollWidth") <= width
    drawn = opened.ask("[...document.querySelectorAll('.plot svg.main-svg')].length")
    assert drawn >= len(KEYS)
    assert opened.complaints == []


UNABLE: dict[str, dict[str, Any]] = {
    "without JavaScript": {"scripts": False},
    "without DecompressionStream": {"before": "delete window.DecompressionStream"},
}
"""Browsers that cannot draw the plots."""


@pytest.mark.parametrize("width", [1400, 420])
@pytest.mark.parametrize("browser_is", UNABLE)
def test_a_browser_that_cannot_draw_shows_all_text_and_says_what_it_takes(
    report: FilePath, open_report: Open, browser_is: str, width: int
) -> None:
    opened = open_report(report, width=width, drawn=False, **UNABLE[browser_is])
    said = opened.page.locator(".without-plots")
    assert said.is_visible()
    for words in ("JavaScript", "Chrome and Edge from version 80", "tables are complete", "--png DIR"):
        assert words in said.inner_text()
    assert opened.page.locator(".undrawn:visible").count() == len(KEYS)
    assert opened.page.locator("section:not(.run) table:visible").count() >= 5
    assert opened.page.locator("svg.main-svg").count() == 0
    for plot in opened.page.locator(".plot").all():
        assert plot.bounding_box()["height"] < 100, "no room is kept for what will not be drawn"
    assert opened.complaints == []


def test_text_and_tables_are_there_before_the_plots(report: FilePath, open_report: Open) -> None:
    """While what draws them is unpacked, here without end, the page is as it will be but for the plots."""
    opened = open_report(report, drawn=False, before="Response.prototype.text = () => new Promise(() => {})")
    assert opened.page.locator("table:visible").count() >= 5
    assert "Storage reads ran at" in opened.page.locator("main").inner_text()
    assert not opened.page.locator(".without-plots").is_visible()
    heights = [plot.bounding_box()["height"] for plot in opened.page.locator(".plot").all()]
    assert len(heights) == len(KEYS)
    assert min(heights) > 150, "the room of the plots is kept, so that nothing moves when they come"
    opened.page.close()


def test_the_page_has_loaded_when_its_plots_are_drawn(report: FilePath, open_report: Open) -> None:
    """Programs that print a page do it then."""
    look = "window.addEventListener('load', () => { window.atLoad = document.documentElement.dataset.drawn; })"
    assert open_report(report, before=look).ask("window.atLoad") == "yes"


def test_a_page_that_was_cut_or_changed_says_so_in_place_of_its_plots(
    report: FilePath, tmp_path: FilePath, open_report: Open
) -> None:
    html = report.read_text("utf-8")
    start = html.index('id="plotly">') + len('id="plotly">')
    (tmp_path / "report.html").write_text(html[: start + 5000] + html[start + 6000 :], "utf-8")
    opened = open_report(tmp_path / "report.html", drawn=False)
    opened.page.wait_for_selector(".without-plots:visible")
    assert "What went wrong:" in opened.page.locator(".without-plots").inner_text()
    assert opened.page.locator("table:visible").count() >= 5


def test_the_page_unpacks_what_was_packed(report: FilePath, open_report: Open) -> None:
    texts = ["<ä€😀>&"[:length] * 50 for length in range(6)] + ["x" * length for length in range(12)]
    found = open_report(report, fresh=True).ask(
        f"""Promise.all({[packed(text) for text in texts]}.map((text) => {{
            const place = document.createElement('script');
            place.type = 'text/plain';
            place.id = `t${{Math.random()}}`;
            place.textContent = text;
            document.body.append(place);
            return unpacked(place.id);
        }}))"""
    )
    assert found == texts


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_is_as_wide_as_the_screen(report: FilePath, open_report: Open, width: int) -> None:
    opened = open_report(report, width=width)
    assert opened.ask("document.documentElement.scrollWidth") <= width


def test_the_page_asks_for_nothing_but_itself(report: FilePath, open_report: Open) -> None:
    asked = [url for url in open_report(report).requests if not url.startswith(("data:", "blob:"))]
    assert asked == [report.as_uri()]


def test_the_answer_is_on_the_first_screen(report: FilePath, open_report: Open) -> None:
    opened = open_report(report)
    assert opened.ask("document.querySelector('.answer-split').getBoundingClientRect().bottom") < 900


def test_the_figures_on_the_page_are_those_of_the_file(
    report: FilePath, open_report: Open, storage_reads: NDArray[Any]
) -> None:
    opened = open_report(report)
    shown = opened.ask(
        """Object.fromEntries([...document.querySelectorAll('[data-figure]')]
            .map((one) => [one.dataset.figure, one.innerText]))"""
    )
    assert shown["p95"] == units.duration(np.percentile(storage_reads["wall_ns"], 95))
    for part in ("device", "host", "runq"):
        share = storage_reads[f"{part}_ns"].sum() / storage_reads["wall_ns"].sum()
        assert shown[f"{part}-share"] == units.share(share)


def test_the_latency_plot_has_the_percentiles_of_the_file(
    report: FilePath, open_report: Open, storage_reads: NDArray[Any]
) -> None:
    line = open_report(report).ask(
        """(({name, x, y}) => ({name, x: Array.from(x), y: Array.from(y)}))(
            document.getElementById('run-1-latency')._fullData[0])"""
    )
    assert line["name"] == "storage read"
    np.testing.assert_allclose(line["x"], np.percentile(storage_reads["wall_ns"], line["y"]) / 1e6)


def test_the_bars_of_each_rank_are_as_high_as_its_mean_wall_time(
    report: FilePath, open_report: Open, storage_reads: NDArray[Any]
) -> None:
    traces = open_report(report).ask(
        """document.getElementById('run-1-ranks')._fullData
            .filter((trace) => trace.yaxis === 'y').map((trace) => Array.from(trace.y))"""
    )
    means = [storage_reads["wall_ns"][storage_reads["rank"] == rank].mean() / 1e6 for rank in range(4)]
    np.testing.assert_allclose(np.sum(traces, axis=0), means)


def test_plots_take_the_colours_of_the_scheme_when_it_changes(report: FilePath, open_report: Open) -> None:
    opened = open_report(report, fresh=True)
    ink = "getComputedStyle(document.querySelector('#run-1-latency .xtick text')).fill"
    light = opened.ask(ink)
    opened.page.emulate_media(color_scheme="dark")
    dark = opened.ask(
        f"""new Promise((done) => {{
            const look = () => {ink} === '{light}' ? requestAnimationFrame(look) : done({ink});
            look();
        }})"""
    )
    brightness = [sum(map(int, colour[4:-1].split(","))) for colour in (light, dark)]
    assert brightness[0] < 250
    assert brightness[1] > 500
    assert opened.complaints == []


def test_the_page_prints_in_light_colours_with_everything_unfolded(report: FilePath, open_report: Open) -> None:
    opened = open_report(report, scheme="dark", fresh=True)
    opened.ask(
        """window.addEventListener('beforeprint', () => { window.printed = {
            folded: document.querySelectorAll('details:not([open])').length,
            ink: document.getElementById('run-1-latency').layout.font.color}; })"""
    )
    assert opened.page.pdf(format="A4").startswith(b"%PDF")
    assert opened.ask("window.printed") == {"folded": 0, "ink": "#33373d"}
    assert opened.ask("document.querySelectorAll('details[open]').length") == 0, "folded again afterwards"
    assert opened.complaints == []


def test_text_of_the_file_cannot_act(truth: SyntheticRun, tmp_path: FilePath, open_report: Open) -> None:
    nodes = dict(truth.tables["nodes"]) | {"host": [HOSTILE, HOSTILE]}
    tiers = f'[{{"name": "memory", "kind": "memory"}}, {{"name": "{HOSTILE}", "kind": "file"}}]'
    hostile = truth.changed(tables={"nodes": nodes}, attributes={"tiers_json": tiers, "model": HOSTILE})
    page = write_report([ka.load(hostile.write(tmp_path / "run.h5"))], tmp_path / "report.html")
    opened = open_report(page)
    assert opened.complaints == []
    assert opened.ask("document.querySelectorAll('img, b b').length") == 0
    legend = opened.ask("document.querySelector('#run-1-latency .legendtext').textContent")
    assert legend == f"{HOSTILE} read"


def test_an_empty_run_and_a_comparison_open_without_complaint(
    truth: SyntheticRun, tmp_path: FilePath, open_report: Open
) -> None:
    empty, other = empty_run().write(tmp_path / "empty.h5"), truth.write(tmp_path / "other.h5")
    third = truth.changed(attributes={"run_id": "third"}).write(tmp_path / "third.h5")
    page = write_report([ka.load(path) for path in (empty, other, third)], tmp_path / "report.html")
    opened = open_report(page, width=420)
    assert opened.complaints == []
    assert opened.ask("document.querySelectorAll('#comparison .plot svg.main-svg').length") > 0
    assert opened.ask("document.documentElement.scrollWidth") <= 420


def test_a_bar_that_is_pointed_at_tells_its_numbers(report: FilePath, open_report: Open) -> None:
    page = open_report(report).page
    page.locator("#run-1-slow-operations .barlayer .point").first.hover(force=True)
    page.wait_for_selector("#run-1-slow-operations .hoverlayer .hovertext")
    assert "fastest 50 %" in page.locator("#run-1-slow-operations .hoverlayer").text_content()
