"""Time to first token, from rows with known parts: each figure again by plain loops over what the documents say."""

import io
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from computed import LOAD_S, LOAD_S_PER_TOKEN, MODEL, computing, counted
from condensing import condensed
from kvbench_analysis.figures.break_even import BreakEven
from kvbench_analysis.figures.first_token import FirstToken
from kvbench_analysis.summary.first_token_print import first_token_notes
from numpy.typing import NDArray
from rich.console import Console
from synthetic import SyntheticRun

from kvbench.records.schema import Phase, RequestState


def figures(run: SyntheticRun, tmp_path: Path) -> FirstToken:
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5", overwrite=True))).first_token
    assert found is not None
    return found


def prefill_s(new: int, found: int) -> float:
    return float(MODEL.prefill_s(new, found))


def test_parts_add_up_and_each_is_its_column(tmp_path: Path) -> None:
    run = computing()
    found, rows = figures(run, tmp_path), counted(run)
    parts = found.parts.set_index("part")
    assert found.requests == len(rows) == parts.loc["load", "requests"]
    inside = ["queue", "look_up", "load", "modelled_compute"]
    assert parts.loc[inside, "mean_ns"].sum() == pytest.approx(parts.loc["first_token", "mean_ns"], rel=1e-12)
    for part, column in (("first_token", "first_token_ns"), ("look_up", "look_up_ns"), ("load", "load_ns")):
        assert parts.loc[part, "mean_ns"] == pytest.approx(rows[column].mean())
        assert parts.loc[part, "p95_ns"] == pytest.approx(np.percentile(rows[column], 95))
    assert parts.loc["modelled_compute", "mean_ns"] == pytest.approx(rows["modelled_prefill_ns"].mean())
    again = [prefill_s(int(row["context_tokens"]), 0) * 1e9 for row in rows]
    assert parts.loc["modelled_recompute", "p95_ns"] == pytest.approx(np.percentile(again, 95), rel=1e-6)
    waited = (rows["look_up_ns"] + rows["load_ns"]).sum()
    assert found.load_share == pytest.approx(waited / rows["first_token_ns"].sum())


def test_what_was_saved_and_what_took_longer_is_counted_request_by_request(tmp_path: Path) -> None:
    run = computing()
    found = figures(run, tmp_path)
    slower = hits = 0
    saved_s = 0.0
    for row in counted(run):
        context, hit = int(row["context_tokens"]), int(row["hit_tokens"])
        saved = prefill_s(context, 0) - prefill_s(context - hit, hit)
        saved_s += saved
        hits += hit > 0
        slower += hit > 0 and (int(row["look_up_ns"]) + int(row["load_ns"])) / 1e9 > saved
    assert (found.found, found.slower) == (hits, slower)
    assert 0 < slower < hits
    hours = (int(run.attributes["measure_end_ns"]) - int(run.attributes["measure_start_ns"])) / 3600e9
    assert found.gpu_s_saved_per_hour == pytest.approx(2 * saved_s / hours, rel=1e-9)


def test_without_a_cache_each_waits_for_those_before_it(tmp_path: Path) -> None:
    run = computing()
    # Those that were not done as well: the GPU would have computed them too.
    rows = np.sort(run.requests[run.requests["phase"] != Phase.PRECONDITION], order=["rank", "intended_ns"])
    assert len(rows) > len(counted(run))
    free: dict[int, float] = {}
    times = []
    for row in rows:
        came = int(row["intended_ns"])
        begins = max(came, free.get(int(row["rank"]), 0))
        free[int(row["rank"])] = begins + round(prefill_s(int(row["context_tokens"]), 0) * 1e9)
        if row["phase"] == Phase.MEASURE and row["state"] == RequestState.DONE:
            times.append(free[int(row["rank"])] - came)
    parts = figures(run, tmp_path).parts.set_index("part")
    assert parts.loc["modelled_uncached", "mean_ns"] == pytest.approx(np.mean(times), rel=1e-12)
    assert parts.loc["modelled_uncached", "p99_ns"] == pytest.approx(np.percentile(times, 99), rel=1e-12)


@pytest.mark.parametrize("mode", ["closed", "asap"])
def test_where_requests_do_not_come_by_themselves_nothing_is_said_of_how_they_would_wait(
    tmp_path: Path, mode: str
) -> None:
    assert "modelled_uncached" not in set(figures(computing(mode), tmp_path).parts["part"])


def test_the_break_even_is_where_the_line_meets_the_prefill(tmp_path: Path) -> None:
    found = figures(computing(), tmp_path).break_even
    assert found is not None
    assert (found.load_s, found.load_s_per_token) == pytest.approx((LOAD_S, LOAD_S_PER_TOKEN), rel=1e-6)
    expected = next(n for n in range(1, 12_000) if LOAD_S + LOAD_S_PER_TOKEN * n <= prefill_s(n, 0))
    step = found.longest / 2000
    assert found.tokens is not None
    assert abs(found.tokens - expected) <= step + 1
    # Without scatter there is nothing uncertain.
    assert found.low == found.high == found.tokens


def scattered(rng: np.random.Generator, tokens: NDArray[Any]) -> NDArray[Any]:
    return np.asarray((LOAD_S + LOAD_S_PER_TOKEN * tokens) * rng.uniform(0.5, 1.5, len(tokens)))


@pytest.mark.slow
def test_an_interval_holds_the_truth_where_loads_scatter(tmp_path: Path) -> None:
    held = 0
    expected = next(n for n in range(1, 12_000) if LOAD_S + LOAD_S_PER_TOKEN * n <= prefill_s(n, 0))
    for seed in range(20):
        found = figures(computing(load=partial(scattered, np.random.default_rng(seed))), tmp_path).break_even
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.high
        held += found.low - 6 <= expected <= found.high + 6
    assert held >= 15, "95 % intervals: 15 of 20 are missed once in 2 500 times"


def test_what_never_pays_and_what_always_does(tmp_path: Path) -> None:
    never = figures(computing(load=lambda tokens: 100.0 + 0 * tokens), tmp_path).break_even
    assert never is not None
    assert (never.tokens, never.low, never.high) == (None, None, None)
    always = figures(computing(load=lambda tokens: 2e-3 + 0 * tokens), tmp_path).break_even
    assert always is not None
    assert always.tokens == 1


def test_notes_deny_no_break_even_that_chance_allows_and_name_who_had_not_begun() -> None:
    never = BreakEven(tokens=None, low=3699.0, high=None, shortest=512, longest=5632, load_s_per_token=4e-6, load_s=0.0)
    found = SimpleNamespace(found=100, slower=50, gpu_s_saved_per_hour=1.0, break_even=never)
    found.parts = pd.DataFrame({"part": ["first_token", "modelled_uncached"]})
    found.load_split = SimpleNamespace(split_of="unknown", unknown="nothing was loaded")
    found.layer_wise, found.no_layer_wise = None, "objects hold all layers"
    assert next(first_token_notes(cast(FirstToken, found), 105)).startswith("105 requests had not begun")
    *others, said = first_token_notes(cast(FirstToken, found), float("nan"))
    assert not any("begun" in other for other in others)
    assert "faster than computing, though it may be from 3 699 tokens on (95 %) (512 to 5 632 tokens" in said


def test_too_few_that_found_something_have_no_break_even(tmp_path: Path) -> None:
    run = computing()
    run.requests["hit_tokens"][20:] = 0
    found = figures(run, tmp_path)
    assert found.found < 20
    assert found.break_even is None


def test_every_output_says_what_was_modelled(tmp_path: Path) -> None:
    run = computing()
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    assert "compute modelled: h100-sxm" in summary.headlines[-1]
    console = Console(width=250, file=io.StringIO())
    with console.capture() as text:
        ka.print_summary(summary, console)
    table = text.get()[text.get().index("Time to first token") :]
    assert "compute modelled as of h100-sxm, the rest measured" in table.splitlines()[0]
    assert [line for line in table.splitlines() if "computing" in line and "modelled" not in line] == []
    content = json.loads(ka.to_json(summary))["first_token"]
    assert content["break_even"]["tokens"] > 1
    assert {row["part"] for row in content["parts"]} == set(summary.first_token.parts["part"])  # type: ignore[union-attr]


def test_of_a_sample_it_is_said_to_be_one(tmp_path: Path) -> None:
    whole = figures(computing(), tmp_path)
    part = figures(condensed(computing(), "sampled", 700), tmp_path)
    assert part.sampled_1_in > 1
    assert part.requests < whole.requests
    assert part.gpu_s_saved_per_hour == pytest.approx(whole.gpu_s_saved_per_hour, rel=0.25)


@pytest.mark.parametrize("text", ["", "{}", "nonsense"])
def test_without_modelled_compute_there_is_none(tmp_path: Path, text: str) -> None:
    run = computing().changed(attributes={"compute_model_json": text})
    summary = ka.summarize(ka.load(run.write(tmp_path / "run.h5")))
    assert summary.first_token is None
    assert json.loads(ka.to_json(summary))["first_token"] is None
