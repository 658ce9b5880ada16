"""A search as a user has it: on storage with a known limit, gone on with after a kill, refused, and shown again."""

import html
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kvbench_analysis import load
from kvbench_analysis.search.limit import Limit
from kvbench_analysis.search.print import sentence
from kvbench_analysis.search.study import SearchFigures, search_figures
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "harness"))
import throttled
from throttled import READS_PER_S
from throttled_search import configuration, searched, wanted

from kvbench.cluster.comm import SerialComm
from kvbench.commands.main import commands
from kvbench.errors import KvbenchError
from kvbench.run.output.spill_files import SpillOrder
from kvbench.studies.search import SearchOrder, run_search
from kvbench.studies.search_asked import Wanted, ask


def carried_out(wants: Wanted, out: Path, *, resume: bool = False, keep: bool = False) -> tuple[SearchFigures, str]:
    """The figures of a search of one rank in this process, and what it printed."""
    printed = io.StringIO()
    order = SearchOrder(wants, out, False, resume, keep, SpillOrder(False, None), 60.0)
    figures = run_search(SerialComm(), order, Console(file=printed, width=300))
    assert figures is not None
    return figures, printed.getvalue()


@pytest.fixture(autouse=True)
def throttled_tiers() -> Iterator[None]:
    """There are such tiers, in the tests of this file alone."""
    throttled.plug()
    yield
    throttled.unplug()


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """Four probes of 1 s, at loads that are met on any machine unless it cannot serve them at all."""
    monkeypatch.setattr(throttled, "READS_PER_S", 1e5)
    changes: dict[str, Any] = {"seconds": 1.0, "warmup_s": 0.1, "most": 4, "low": 100.0, "high": 1600.0}
    changes["objectives"] = ("storage_p50<60s",)
    return replace(wanted(configuration(tmp_path)), **changes)


AGAIN = "Exceeded at 9.5, it is met again at 12: other requests may come at them"


@pytest.mark.parametrize(
    ("tried", "said"),
    [
        ({6: "met", 9: "exceeded", 9.5: "exceeded", 12: "met", 14: "open"}, True),
        ({6: "met", 9: "exceeded", 9.5: "exceeded"}, False),
        ({6: "open", 9: "exceeded", 9.5: "open", 12: "open"}, False),
        ({6: "met", 9: "exceeded", 9.5: "met"}, False),
    ],
)
def test_a_load_that_is_met_above_one_that_is_exceeded_is_said(
    short: Wanted, tmp_path: Path, tried: dict[float, str], said: bool
) -> None:
    figures, _ = carried_out(replace(short, most=1), tmp_path / "search.h5")
    rows = [{"load": load, "verdict": verdict} for load, verdict in tried.items() for _ in range(2)]
    found = replace(figures, outcome="wide", limit=Limit(7, 0, 9), probes=pd.DataFrame(rows))
    assert (AGAIN in sentence(found)) == said
    # Of one probe alone it may be chance.
    assert AGAIN not in sentence(replace(found, probes=pd.DataFrame(rows[::2])))


@pytest.mark.slow
def test_every_probe_is_in_one_file_that_is_shown_again(short: Wanted, tmp_path: Path) -> None:
    out = tmp_path / "search.h5"
    figures, printed = carried_out(short, out)
    assert len(figures.probes) == 4
    assert "probes of 0.1 s of warm-up and 1 s: 4 more take about" in printed
    assert "which it is at most" in printed
    assert printed.count("requests/s served") == 4
    assert [path.name for path in tmp_path.iterdir() if "probe" in path.name] == [], "run files are removed"
    run = load(out)
    assert run.attributes["status"] == "complete"
    assert run.attributes["kind"] == "study-search"
    assert len(set(run.table("probes")["seed"])) == 4
    shown = CliRunner().invoke(commands, ["study", "show", str(out), "--json"])
    assert json.loads(shown.stdout)["sentence"] == sentence(search_figures(run))
    assert json.loads(shown.stdout)["varies"] == "arrivals.rate"
    as_text = CliRunner().invoke(commands, ["summary", str(out)])
    assert sentence(figures) in as_text.stdout
    picture = tmp_path / "curve.png"
    assert CliRunner().invoke(commands, ["study", "show", str(out), "--plot", str(picture)]).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_search_that_ended_early_goes_on_with_what_it_has(short: Wanted, tmp_path: Path) -> None:
    out = tmp_path / "search.h5"
    carried_out(replace(short, most=4), out)
    before = load(out).table("probes")
    with pytest.raises(KvbenchError, match=r"was asked something else \(high was 1600\.0\)"):
        carried_out(replace(short, high=1700.0), out, resume=True)
    with pytest.raises(KvbenchError, match="exists: give another name, or --overwrite"):
        carried_out(short, out)
    figures, printed = carried_out(short, out, resume=True)
    assert "going on after 4 probes" in printed
    assert "nothing is left to do" in printed
    assert list(figures.probes["took_s"]) == list(before["took_s"])
    figures, printed = carried_out(replace(short, most=6, precision=0.02), out, resume=True)
    assert "going on after 4 probes" in printed
    assert list(figures.probes["took_s"][:4]) == list(before["took_s"])
    assert len(figures.probes) > 4
    assert (figures.asked.most, figures.asked.precision) == (6, 0.02)


@pytest.mark.slow
def test_what_a_killed_search_measured_is_not_measured_again(short: Wanted, tmp_path: Path) -> None:
    out, program = tmp_path / "search.h5", Path(__file__).parent / "programs" / "killed_search.py"
    job = subprocess.Popen([sys.executable, str(program), str(tmp_path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not out.exists() or len(load(out).table("probes")) < 2):
        assert job.poll() is None
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    before = load(out).table("probes")
    assert 2 <= len(before) < 12
    figures, printed = carried_out(replace(short, most=12), out, resume=True)
    assert f"going on after {len(before)} probes" in printed
    assert list(figures.probes["started_at"][: len(before)]) == list(before["started_at"])
    assert len(figures.probes) > len(before)


@pytest.mark.slow
def test_the_run_files_of_probes_are_kept_where_that_is_asked(short: Wanted, tmp_path: Path) -> None:
    figures, _ = carried_out(short, tmp_path / "search.h5", keep=True)
    runs = sorted((tmp_path / "search-probes").glob("*.h5"))
    assert [run.name for run in runs] == [f"probe-{number}.h5" for number in (1, 2, 3, 4)]
    assert load(runs[0]).config["arrivals"]["rate"] == 100, "the lowest that was asked for, above the configuration's"
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        commands, ["report", str(runs[0]), "-o", str(page), "--search", str(tmp_path / "search.h5")]
    )
    assert done.exit_code == 0, done.output
    text = page.read_text(encoding="utf-8")
    assert html.escape(sentence(figures), quote=False) in text
    assert 'id="run-1-load-curve"' in text
    done = CliRunner().invoke(commands, ["report", str(runs[0]), "-o", str(page), "--search", str(runs[1])])
    assert "probe-2.h5 is no study file of `kvbench search`" in str(done.exception) + done.output


@pytest.mark.slow
def test_the_highest_throughput_is_sought_too(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"seconds": 1.0, "warmup_s": 0.2, "most": 5, "aim": "max-throughput", "objectives": ()}
    figures, _ = carried_out(replace(wanted(configuration(tmp_path)), **changes), tmp_path / "search.h5")
    assert sentence(figures).startswith("Highest throughput: ")
    # No pipe of 50 a second gives more, however much is asked of it.
    assert figures.requests_per_s.estimate < 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "arrivals.rates"}, "did you mean arrivals.rate"),
        ({"key": "pacing.requests_per_s"}, "the workload does not heed it: only personas in open loop have it"),
        ({"key": "workload.users"}, "a trace has the users that it has"),
        ({"objectives": ("ttft_p95<2s",)}, "the configuration has no compute: set compute.gpu"),
        ({"objectives": ("speed_p95<2s",)}, "unknown figure 'speed'"),
        ({"objectives": ("latency_p95<0s",)}, "no request takes less than 0s"),
        ({"objectives": ()}, "no objective: give --slo"),
        ({"objectives": ("latency_p95<2s", "latency_p95<3s")}, "bounded twice"),
        ({"low": 30.0, "high": 20.0}, "--from 30 is not below --to 20"),
        ({"objectives": ("latency_p95<20s",)}, "too short for a bound of 20 s: give --seconds 80 or more"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    wants = replace(wanted(configuration(tmp_path)), **changes)
    with pytest.raises(KvbenchError, match=message):
        ask(wants, 1)


def search(folder: Path, *words: object) -> Result:
    usual = ["--set", "duration_s=0.5", "--warmup", "0.1", "--no-spill", "--out", str(folder / "s.h5")]
    return CliRunner().invoke(commands, ["search", str(folder / "pipe.yaml"), *usual, *map(str, words)])


@pytest.mark.slow
def test_a_limit_outside_the_bounds_has_a_sentence_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    configuration(tmp_path)
    rate = ("--vary", "arrivals.rate", "--set", "arrivals.rate=150")
    never = search(tmp_path, *rate, "--slo", "latency_p95<0.001ms", "--from", 100, "--to", 200)
    assert never.exit_code == 3, never.output
    assert "not even met at the lowest load of the search, 100 sessions/s" in never.stdout
    always = search(
        tmp_path, *rate, "--slo", "storage_mean<120ms", "--from", 10, "--to", 40, "--seconds", 2, "--overwrite"
    )
    assert always.exit_code == 4, always.output
    assert "met up to the highest load of the search, 40 sessions/s" in always.stdout


@pytest.mark.slow
def test_the_interval_holds_the_limit_of_a_pipe_in_real_runs(tmp_path: Path) -> None:
    limits = [json.loads(searched(tmp_path / str(trial), trial, 6.0))["limit_per_rank"] for trial in range(4)]
    # Where other tests run beside it the machine may serve a little less than the pipe carries, and never more.
    low, high = ([limit[end] for limit in limits] for end in ("low", "high"))
    assert sum((each or 0) <= READS_PER_S for each in low) >= 3, limits
    assert sum((each or float("inf")) >= 0.9 * READS_PER_S for each in high) >= 3, limits
