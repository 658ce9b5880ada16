"""A summary as people and programs get it."""

import io
import json
from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.text import units
from rich.console import Console
from synthetic import SyntheticRun, empty_run, synthetic_run


def printed(path: Path, width: int = 80) -> str:
    stream = io.StringIO()
    ka.print_summary(ka.summarize(ka.load(path)), Console(file=stream, width=width))
    return stream.getvalue()


def test_the_tables_fit_into_eighty_columns(run_path: Path) -> None:
    text = printed(run_path)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for number in ("1 204", "4 816", "P99.9", "cut short", "client1"):
        assert number in text


def test_the_headline_comes_before_the_warnings_and_these_before_the_tables(run_path: Path) -> None:
    text = printed(run_path)
    assert text.index("storage reads:") < text.index("Warnings") < text.index("Operations of the measured phase")


def test_percentiles_with_too_few_operations_are_marked(run_path: Path) -> None:
    wall = next(line for line in printed(run_path).splitlines() if line.strip().startswith("wall"))
    assert wall.count("~") == 1
    assert wall.split()[-2].startswith("~")


def test_of_many_ranks_the_slowest_are_shown(tmp_path: Path) -> None:
    path = synthetic_run(np.random.default_rng(1), ranks=40, operations=20).write(tmp_path / "run.h5")
    assert "the 16 of 40 ranks with the highest P95" in " ".join(printed(path, width=200).split())


def test_an_empty_run_is_printed(tmp_path: Path) -> None:
    text = printed(empty_run().write(tmp_path / "run.h5"))
    assert "no reads or writes were measured" in text
    assert "Requests: none in the measured phase." in text


def test_text_of_the_file_reaches_the_terminal_as_plain_text(truth: SyntheticRun, tmp_path: Path) -> None:
    run = truth.changed(attributes={"status": "failed", "status_message": "[bold]\x1b[2J[/nothing]"})
    text = printed(run.write(tmp_path / "run.h5"))
    assert "[bold]?[2J[/nothing]" in text


def test_the_json_has_the_figures_of_the_tables(run_path: Path) -> None:
    summary = ka.summarize(ka.load(run_path))
    content = json.loads(ka.to_json(summary))
    assert (content["format"], content["version"]) == ("kvbench-summary", 2)
    assert content["operations"][1]["gib_per_s"] == summary.operations["gib_per_s"].iloc[1]
    assert content["run"]["window_s"] == 10
    assert content["warnings"][0]["code"] == "failed-operations"


def test_what_was_found_and_what_was_offered_are_printed_without_a_common_hit_rate(
    truth: SyntheticRun, run_path: Path, tmp_path: Path
) -> None:
    text = printed(run_path)
    assert "Prefixes of contexts" in text
    assert "not found" in text
    assert "Load that came (offered)" in text
    reference = truth.changed(attributes={"config_json": json.dumps({"pacing": {"mode": "closed"}})})
    text = printed(reference.write(tmp_path / "run.h5"))
    assert "does not tell apart what was looked up" in text
    assert "users wait for answers, so that none is offered" in text
    assert "hit" not in text


def test_what_there_is_not_is_null_in_the_json(tmp_path: Path) -> None:
    content = json.loads(ka.to_json(ka.summarize(ka.load(empty_run().write(tmp_path / "run.h5")))))
    assert content["prefix"][0]["token_share"] is None


def test_the_summary_document_names_every_key_of_the_json(run_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "summary.md").read_text()
    content = json.loads(ka.to_json(ka.summarize(ka.load(run_path))))
    keys = set(content) | {
        key for rows in content.values() if isinstance(rows, list) for row in rows[:1] for key in row if len(key) > 1
    }
    assert [key for key in sorted(keys) if key not in text] == []


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.duration(850), "850 ns"),
        (units.duration(999_900), "1.00 ms"),
        (units.duration(21_000_000), "21.0 ms"),
        (units.duration(float("nan")), "-"),
        (units.size(64 * 2**20), "64 MiB"),
        (units.size(1020 * 2**20), "1020 MiB"),
        (units.size(1.5 * 2**30), "1.5 GiB"),
        (units.digits(3.2104), "3.21"),
        (units.digits(0.0001), "0.0001"),
        (units.digits(1_234_567.8), "1 234 568"),
        (units.share(0.7), "70 %"),
        (units.share(0.0043), "0.4 %"),
        (units.count(1204), "1 204"),
    ],
)
def test_numbers_are_shown_with_three_digits_and_their_unit(shown: str, text: str) -> None:
    assert shown == text
