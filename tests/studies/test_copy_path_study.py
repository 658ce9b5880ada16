"""A small study on two ranks: which cells are measured, when, and what their rows hold."""

import json
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kvbench_analysis import Run, load

from kvbench.commands.main import commands

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]

REPEATS = 5
PATHS = ["double-copy", "numpy", "mmap-touch"]


@pytest.fixture(scope="module")
def cells(study: Run) -> pd.DataFrame:
    return pd.DataFrame(study.columns(study.file.tables["cells"].columns, "cells"))


@pytest.fixture(scope="module")
def reads(study: Run, cells: pd.DataFrame) -> pd.DataFrame:
    """The records, each with the columns of its cell."""
    records = study.records.assign(end_ns=lambda rows: rows["t_start_ns"] + rows["wall_ns"])
    return records.merge(cells, left_on="user", right_on="cell", suffixes=("", "_of_cell"))


def test_every_combination_is_measured_once_in_every_repeat(cells: pd.DataFrame, places: list[Path]) -> None:
    columns = ["directory", "ranks", "threads", "object_bytes", "read_path", "mode", "repeat"]
    wanted = product([str(places[0])], [1, 2], [2], [65536], PATHS, ["isolated", "contended"], range(REPEATS))
    assert sorted(cells[columns].itertuples(index=False, name=None)) == sorted(wanted)
    assert list(cells["order"]) == list(range(len(cells)))


def test_cells_follow_each_other_in_the_shuffled_order(cells: pd.DataFrame) -> None:
    in_time = cells.sort_values("start_ns")
    assert list(in_time["order"]) == list(range(len(cells)))
    assert (in_time["end_ns"].to_numpy()[:-1] <= in_time["start_ns"].to_numpy()[1:]).all()
    assert in_time["repeat"].is_monotonic_increasing
    orders = [tuple(rows["cell"] % (len(cells) // REPEATS)) for _, rows in in_time.groupby("repeat")]
    assert len(set(orders)) == REPEATS


def test_rows_lie_within_their_cell(reads: pd.DataFrame, study: Run) -> None:
    slack_ns = int(study.attributes["clock_uncertainty_ns"])
    assert (reads["t_start_ns"] >= reads["start_ns"] - slack_ns).all()
    assert (reads["end_ns"] <= reads["end_ns_of_cell"] + slack_ns).all()


def test_isolated_ranks_never_read_at_the_same_time(reads: pd.DataFrame) -> None:
    pairs = 0
    for _, rows in reads[(reads["mode"] == "isolated") & (reads["ranks"] == 2)].groupby("cell"):
        spans = rows.groupby("rank").agg(first=("t_start_ns", "min"), last=("end_ns", "max"))
        assert len(spans) == 2
        assert spans["last"].to_numpy()[0] < spans["first"].to_numpy()[1]
        pairs += 1
    assert pairs == len(PATHS) * REPEATS


def test_contended_ranks_read_at_the_same_time(reads: pd.DataFrame) -> None:
    overlapping = []
    for _, rows in reads[(reads["mode"] == "contended") & (reads["ranks"] == 2)].groupby("cell"):
        spans = rows.groupby("rank").agg(first=("t_start_ns", "min"), last=("end_ns", "max"))
        assert len(spans) == 2
        overlapping.append(spans["first"].max() < spans["last"].min())
    # On an overcommitted machine a rank may be late for the whole of a cell of 20 ms.
    assert np.mean(overlapping) > 0.8


def test_only_the_ranks_of_the_cell_read_and_with_its_threads(reads: pd.DataFrame) -> None:
    for _, rows in reads.groupby("cell"):
        ranks, threads = rows["ranks"].iloc[0], rows["threads"].iloc[0]
        assert set(rows["rank"]) == set(range(ranks))
        assert set(zip(rows["rank"], rows["thread"], strict=True)) == set(product(range(ranks), range(threads)))


def test_every_row_is_a_measured_read_of_its_cell(reads: pd.DataFrame, study: Run) -> None:
    assert len(reads) == len(study.records)
    assert (reads["path"].astype(str) == reads["read_path"]).all()
    assert (reads["nbytes"] == reads["object_bytes"]).all()
    assert (reads["tier"].astype(str) == reads["directory"]).all()
    assert (reads["op"] == "read").all()
    assert (reads["phase"] == "measure").all()
    assert (reads["errno"] == 0).all()
    assert (reads["resident_pct"] <= 100).all()
    assert reads["inflight"].between(1, reads["threads"]).all()


def test_device_host_and_run_queue_add_up_to_wall(study: Run) -> None:
    rows = study.records
    assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()


def test_a_request_is_eight_reads_one_after_the_other_by_one_thread(reads: pd.DataFrame) -> None:
    for _, rows in reads.groupby(["cell", "rank", "request"]):
        assert len(rows) == 8
        assert (rows["thread"] == rows["thread"].iloc[0]).all()
        in_time = rows.sort_values("t_start_ns")
        assert (in_time["end_ns"].to_numpy()[:-1] <= in_time["t_start_ns"].to_numpy()[1:]).all()


def test_requests_of_a_rank_in_a_cell_are_numbered_without_gaps(reads: pd.DataFrame) -> None:
    numbers = reads.groupby(["cell", "rank"])["request"].agg(["min", "max", "nunique"])
    assert (numbers["min"] == 0).all()
    assert (numbers["max"] + 1 == numbers["nunique"]).all()


def test_memory_copies_are_measured_at_one_and_two_ranks_in_every_repeat(study: Run) -> None:
    table = pd.DataFrame(study.columns(["node", "ranks", "repeat", "copy_gib_per_s"], "roofline"))
    wanted = set(product([0], [1, 2], range(REPEATS)))
    assert set(table[["node", "ranks", "repeat"]].itertuples(index=False, name=None)) == wanted
    assert (table["copy_gib_per_s"] > 0).all()


def test_the_file_says_what_it_is(study: Run, places: list[Path]) -> None:
    assert study.attributes["kind"] == "study-copy-path"
    assert study.attributes["status"] == "complete"
    assert study.config["study"]["seed"] == 7
    assert list(study.tiers["name"]) == [str(places[0])]
    assert len(study.requests) == 0
    assert (study.ranks["verified_sectors"] > 0).all()
    assert (study.ranks["canceled_ops"] + study.ranks["failed_ops"] == 0).all()


def test_nothing_is_left_in_the_directories(study: Run, places: list[Path]) -> None:
    assert [list(place.iterdir()) for place in places] == [[], []]


def command(*arguments: object) -> str:
    """What a command of kvbench prints."""
    done = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_summary_and_show_print_the_table_of_a_study(study_path: Path) -> None:
    shown = command("study", "show", study_path)
    assert command("summary", study_path) == shown
    assert shown.count("the second copy costs") == 1
    assert "Memory copy of a node (roofline)" in shown


def test_another_model_only_changes_the_tokens(study_path: Path) -> None:
    small, large = (
        json.loads(command("study", "show", study_path, "--json", "--model", model))
        for model in ("tiny-1b", "llama3.1-8b")
    )
    assert len(small["table"]) == len(large["table"]) > 0
    for one, other in zip(small["table"], large["table"], strict=True):
        factor = 131072 / 24576 if one["metric"] == "tokens_per_s" else 1
        assert one["value"] == pytest.approx(other["value"] * factor)


def test_ranks_beyond_those_wanted_stand_by_on_every_directory(
    kvbench: Command, places: list[Path], tmp_path: Path
) -> None:
    directories = [option for place in places for option in ("--dir", place)]
    options = ["--ranks", "2", "--threads", "1", "--paths", "buffered", "--size", "4KiB", "--seconds", "5ms"]
    out = tmp_path / "s.h5"
    done = kvbench("study", "copy-path", *directories, *options, "--out", out, ranks=3)
    assert done.returncode == 0, done.stderr
    run = load(out)
    assert list(run.ranks["rows"] > 0) == [True, True, False]
    measured = run.columns(["directory"], "cells")["directory"]
    assert [list(measured).count(str(place)) for place in places] == [2 * REPEATS, 2 * REPEATS]
    reads = run.records.groupby("tier", observed=True)["user"].nunique()
    assert dict(reads) == {str(place): 2 * REPEATS for place in places}
    assert [list(place.iterdir()) for place in places] == [[], []]


def test_too_few_ranks_are_said_before_anything_is_written(
    kvbench: Command, places: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    done = kvbench("study", "copy-path", "--dir", places[0], "--ranks", "4", "--out", out, ranks=2)
    assert done.returncode != 0
    assert done.stderr.count("kvbench:") == 1
    assert "the study wants 4 ranks on each node, and 2 were started here" in done.stderr
    assert not out.exists()


def test_one_interrupted_rank_ends_the_study_on_all_and_what_was_measured_is_kept(
    kvbench: Command, places: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "s.h5"
    program = (str(Path(__file__).parent / "programs" / "interrupted.py"),)
    done = kvbench(places[0], out, ranks=2, program=program)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"rank 0: interrupted; what was measured until then is in {out}",
        "rank 1: ended too",
    ]
    kept = load(out)
    assert kept.attributes["status"] == "interrupted"
    tables = kept.file.tables
    # A level of memory copies is one row for the node.
    assert tables["cells"].rows + tables["roofline"].rows == 3
    assert [list(place.iterdir()) for place in places] == [[], []]
