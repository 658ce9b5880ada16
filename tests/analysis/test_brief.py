"""What a run says of itself at its end: one screen, whatever it was."""

import io
import re
from dataclasses import replace
from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.summary.caution import Caution
from rich.console import Console
from synthetic import SyntheticRun, empty_run, synthetic_run


def printed(summary: ka.Summary, width: int = 80) -> list[str]:
    stream = io.StringIO()
    ka.print_brief(summary, Console(file=stream, width=width))
    return stream.getvalue().splitlines()


def summary_of(run: SyntheticRun, folder: Path) -> ka.Summary:
    return ka.summarize(ka.load(run.write(folder / "run.h5")))


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "operations"), [(2, 1200), (300, 20)])
def test_it_fits_one_screen_at_any_number_of_ranks(tmp_path: Path, ranks: int, operations: int) -> None:
    summary = summary_of(synthetic_run(np.random.default_rng(1), ranks=ranks, operations=operations), tmp_path)
    lines = printed(replace(summary, source="kvbench-out/run.h5"))
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"kvbench-out/run.h5: {ranks} ranks, 2 nodes, llama3.1-8b, 10.0 s measured"
    split = r"\(device [\d.]+, host [\d.]+, run queue [\d.]+ %\)"
    assert re.fullmatch(rf"storage reads: [\d.]+ GiB/s, P95 ~?[\d.]+ m?s {split}", lines[1])
    assert lines[-1] == "all figures: kvbench summary kvbench-out/run.h5"


def test_the_figures_are_those_of_the_summary(run_path: Path) -> None:
    summary = ka.summarize(ka.load(run_path))
    lines = printed(summary)
    rate, p95 = re.search(r"reads: (\S+) GiB/s, P95 (\S+ \S+) per", summary.headlines[0]).groups()  # type: ignore[union-attr]
    assert f"{rate} GiB/s, P95 {p95} (device" in " ".join(lines)
    reads = next(line.split() for line in lines if line.split()[:2] == ["storage", "read"])
    assert "".join(reads[2:4]) == str(
        summary.operations.query("tier == 'storage' and op == 'read'")["operations"].sum()
    )
    assert (reads[4], " ".join(reads[5:7])) == (rate, p95)
    assert sum(line.lstrip().startswith("──") for line in lines) == 1, "one table"


def test_of_many_warnings_the_gravest_are_shown_and_the_others_counted(run_path: Path) -> None:
    summary = ka.summarize(ka.load(run_path))
    warnings = tuple(Caution("x", f"warning {number} " + "of many words " * 8) for number in range(40))
    lines = printed(replace(summary, warnings=warnings))
    assert len(lines) <= 24
    shown = sum(line.startswith("- warning ") for line in lines)
    assert shown >= 1
    assert next(line for line in lines if line.startswith("- warning ")).startswith("- warning 0 ")
    assert f"- and {40 - shown} more warnings" in lines
    assert not any("more warning" in line for line in printed(replace(summary, warnings=warnings[:1])))


def test_an_empty_run_says_so_in_a_line(tmp_path: Path) -> None:
    lines = printed(summary_of(empty_run(), tmp_path), width=200)
    assert lines[1] == "no reads or writes were measured"
    assert len(lines) <= 8


def test_percentiles_that_are_of_a_sample_are_told(run_path: Path) -> None:
    summary = ka.summarize(ka.load(run_path))
    sampled = replace(summary, run=summary.run | {"records": "sampled", "percentiles_are": "of 1 in 8"})
    assert "percentiles: of 1 in 8" in printed(sampled)
    assert not any(line.startswith("percentiles: ") for line in printed(summary))


def test_text_of_the_file_reaches_the_terminal_as_plain_text(truth: SyntheticRun, tmp_path: Path) -> None:
    run = truth.changed(attributes={"model": "[bold]\x1b[2J[/nothing]"})
    assert "[bold]?[2J[/nothing]" in printed(summary_of(run, tmp_path), width=300)[0]
