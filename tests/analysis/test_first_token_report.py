"""Time to first token on the page and in pictures: its words, its plots, and one mark for all that is modelled."""

import json
import re
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from computed import LOAD_S, LOAD_S_PER_TOKEN, MODEL, computing
from kvbench_analysis import plots
from kvbench_analysis.figures.break_even import BreakEven
from kvbench_analysis.figures.prefix_lengths import parts_by_length, waits_by_length
from kvbench_analysis.plots.marks import Bars, Line
from kvbench_analysis.report import Given, write_report
from matplotlib.patches import Rectangle
from served import MS, request_row, served_run
from synthetic import SyntheticRun, synthetic_run

from kvbench.records.prices import prices_of

PRICES = prices_of(
    {
        "currency": "EUR",
        "gpu_hour": {"price": 3.0, "source": "our contract"},
        "storage_gb_month": {"price": 0.05, "source": "their list"},
    }
)


def page_of(run: SyntheticRun, tmp_path: Path, given: Given | None = None, **options: Any) -> str:
    """The text of the page, without its data."""
    path = run.write(tmp_path / "run.h5", overwrite=True)
    html = write_report([ka.load(path)], tmp_path / "page.html", given=given or Given(), **options).read_text("utf-8")
    return " ".join(re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL).split())


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", "", html).replace("&lt;", "<").split())


def test_the_top_says_it_in_three_sentences(tmp_path: Path) -> None:
    html = page_of(computing(), tmp_path, Given(slo=("ttft_p95<1ms", "load_p50<1h")))
    points = [words(found) for found in re.findall(r'<p class="lead point">(.*?)</p>', html)]
    assert len(points) == 3
    first, second, third = points
    parts = ka.summarize(ka.load(tmp_path / "run.h5")).first_token.parts.set_index("part")  # type: ignore[union-attr]
    largest = parts.loc[["queue", "look_up", "load", "modelled_compute"], "mean_ns"].idxmax()
    assert largest == "load"
    assert "is not within its objective (ttft_p95 is" in first
    assert "where less than 1.00 ms was promised" in first
    assert "what limits it is loading what was found" in first
    assert re.match(r"Prefixes from [\d ]+ tokens on .* load faster than they are computed \(modelled\)", second)
    assert (
        third == "The highest load within objectives was not searched: kvbench search CONFIG --slo 'ttft_p95<2s' does, "
        "and the report's --search shows it."
    )
    assert html.index(points[2][:20]) < html.index("Storage reads ran at")


def test_what_a_search_found_is_said_in_its_place(tmp_path: Path) -> None:
    html = page_of(computing(), tmp_path, Given(highest_load="Up to 220 requests/s (205 to 231, 95 %) are within."))
    assert "Up to 220 requests/s (205 to 231, 95 %) are within." in words(html)
    assert "was not searched" not in html


@pytest.mark.slow
def test_one_mark_stands_for_what_is_modelled_and_is_explained_once(tmp_path: Path) -> None:
    html = page_of(computing(), tmp_path, Given(prices=PRICES))
    assert html.count("measured by nobody. All other figures are measured") == 1
    for part in ("computing the rest", "computing all, alone", "if nothing were cached", "prefill", "decode"):
        assert f'{part}, <span class="modelled">modelled</span>' in html
    assert 'per million prompt tokens served, <span class="modelled">modelled</span>' in html


def test_a_run_without_compute_says_why_there_is_none(tmp_path: Path) -> None:
    said = words(page_of(synthetic_run(np.random.default_rng(1), operations=100), tmp_path))
    assert "No time to first token: the run has no compute" in said
    assert "measured by nobody" not in said
    assert said.count("Not shown: the run has no compute") == 3


def test_bars_of_the_stack_are_means_of_their_requests(tmp_path: Path) -> None:
    requests = [request_row(number, 10.0 * number, 0, 0, 1000) for number in range(4)]
    requests += [request_row(10 + n, 100.0 + n, 20 + n, 512, 2000, wait_ms=5, look_up_ns=MS) for n in range(6)]
    run = served_run(requests)
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5"))).first_token
    assert found is not None
    parts = parts_by_length(found.times.table)
    assert parts["requests"].tolist() == [4, 6]
    assert parts[["low_tokens", "high_tokens"]].to_numpy().tolist() == [[0, 0], [512, 512]]
    figure = plots.first_token_stack(parts, MODEL.gpu)
    bars = {mark.name: mark for mark in figure.panels[0].marks if isinstance(mark, Bars)}
    rest_ms = [float(MODEL.prefill_s(1000, 0)) * 1e3, float(MODEL.prefill_s(2000 - 512, 512)) * 1e3 + 5]
    assert bars["loading"].y.tolist() == pytest.approx([0, 22.5])
    assert bars["looking up"].y.tolist() == pytest.approx([0, 1])
    assert bars["computing, modelled"].y.tolist() == pytest.approx(rest_ms, rel=1e-5)
    (line,) = (mark for mark in figure.panels[0].marks if isinstance(mark, Line))
    assert line.y.tolist() == pytest.approx([float(MODEL.prefill_s(n, 0)) * 1e3 for n in (1000, 2000)], rel=1e-5)


def test_bins_hold_every_request_once(tmp_path: Path) -> None:
    found = ka.summarize(ka.load(computing().write(tmp_path / "run.h5"))).first_token
    assert found is not None
    table = found.times.table
    parts, waits = parts_by_length(table), waits_by_length(table)
    assert parts["requests"].sum() == len(table)
    assert waits["requests"].sum() == found.found
    assert (parts["low_tokens"].iloc[1:].to_numpy() > parts["high_tokens"].iloc[:-1].to_numpy()).all()
    some = table[
        (table["found_tokens"] >= parts["low_tokens"].iloc[2]) & (table["found_tokens"] <= parts["high_tokens"].iloc[2])
    ]
    assert parts["load_ns"].iloc[2] == pytest.approx(some["load_ns"].mean())
    assert waits["median_ns"].iloc[1] == pytest.approx((some["look_up_ns"] + some["load_ns"]).median())


def test_what_is_modelled_is_hatched_or_dashed_and_nothing_else_is(tmp_path: Path) -> None:
    found = ka.summarize(ka.load(computing().write(tmp_path / "run.h5"))).first_token
    assert found is not None
    assert found.break_even is not None
    stack = plots.first_token_stack(parts_by_length(found.times.table), found.gpu)
    drawn = json.loads(str(stack.to_plotly().to_json()))["data"]
    for trace in drawn:
        modelled = "modelled" in trace["name"]
        assert ("pattern" in trace.get("marker", {}) or trace.get("line", {}).get("dash") == "dash") == modelled
    bars = [patch for patch in stack.to_matplotlib().axes[0].patches if isinstance(patch, Rectangle)]
    hatched = [patch for patch in bars if patch.get_hatch()]
    assert len(hatched) * 4 == len(bars)
    even = plots.break_even_plot(waits_by_length(found.times.table), found.break_even, MODEL)
    for mark in even.panels[0].marks:
        assert isinstance(mark, Line)
        assert (mark.dash == "dash") == ("modelled" in mark.name)


def test_the_break_even_is_drawn_where_it_is(tmp_path: Path) -> None:
    found = ka.summarize(ka.load(computing().write(tmp_path / "run.h5"))).first_token
    assert found is not None
    even = BreakEven(3000.0, 2500.0, None, 100, 12_000, LOAD_S_PER_TOKEN, LOAD_S)
    figure = plots.break_even_plot(waits_by_length(found.times.table), even, MODEL)
    lines = {mark.name: mark for mark in figure.panels[0].marks if isinstance(mark, Line)}
    assert lines["break-even, 95 %"].x.tolist() == [2500, 12_000]
    assert lines["break-even, 95 %"].y.tolist() == pytest.approx([float(MODEL.prefill_s(3000, 0)) * 1e3] * 2)
    assert "2 500 to 12 000 tokens and beyond" in figure.note
    tokens = lines["computing, modelled"].x
    assert lines["computing, modelled"].y == pytest.approx(np.asarray(MODEL.prefill_s(tokens, 0)) * 1e3)
    assert lines["loading, straight line"].y == pytest.approx((LOAD_S + LOAD_S_PER_TOKEN * tokens) * 1e3)
    assert figure.save(tmp_path / "even.png").stat().st_size > 10_000
