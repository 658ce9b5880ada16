"""The runs of many run files as one table: what is found, what is skipped and why, and how each differs from the one
before."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from condensing import condensed, within_window
from kvbench_analysis.figures.storage_moves import DIRECTIONS
from kvbench_analysis.history.changes import changes
from kvbench_analysis.history.history import RUN_COLUMNS, History, Wanted, history
from synthetic import STORAGE, SyntheticRun, empty_run, synthetic_run

from kvbench.commands.main import commands
from kvbench.errors import KvbenchError
from kvbench.records.unfinished import MARK_BYTES, mark_of


def a_run(number: int, *, slower: int = 1, **attributes: str | int | float) -> SyntheticRun:
    run = synthetic_run(np.random.default_rng(number), ranks=2, operations=400)
    on_storage = run.records["tier"] == STORAGE
    for name in ("device_ns", "wall_ns"):
        run.records[name][on_storage] += (slower - 1) * run.records["device_ns"][on_storage]
    told = {"run_id": f"run-{number}", "started_at": f"2026-03-{number + 1:02d}T08:00:00Z"}
    return run.changed(attributes=told | attributes)


def config(name: str) -> str:
    return json.dumps({"name": name, "workload": {"kind": "trace", "serving": "engine"}})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs of two fingerprints, the third of which is slow, whose names have another order than their times."""
    place = tmp_path_factory.mktemp("runs")
    (place / "older").mkdir()
    a_run(0).write(place / "z.h5")
    a_run(1, fingerprint="ffff0000", config_json=config("other")).write(place / "older" / "y")
    a_run(2, slower=3).write(place / "x.h5")
    a_run(3, status="interrupted").write(place / "w.hdf5")
    return place


def names(found: History) -> list[str]:
    return [past.path.name for past in found.runs]


def reasons(found: History) -> dict[str, str]:
    return {path.name: reason for path, reason in found.skipped}


def test_every_run_file_is_found_whatever_it_is_called_in_the_order_of_time(folder: Path) -> None:
    found = history([folder])
    assert names(found) == ["z.h5", "y", "x.h5", "w.hdf5"]
    assert not found.skipped
    table = found.table()
    assert list(table) == list(RUN_COLUMNS)
    assert table["status"].tolist() == ["complete", "complete", "complete", "interrupted"]
    assert table["hosts"].tolist() == [["client0", "client1"]] * 4
    assert table["configuration"].tolist() == ["synthetic", "other", "synthetic", "synthetic"]


def of_summary(path: Path) -> dict[str, tuple[int, float, float]]:
    totals = ka.summarize(ka.load(path)).totals
    return {
        str(row["op"]): (row["operations"], row["gib_per_s"], row["wall_p95_ns"])
        for row in totals[(totals["storage"] == "storage") & totals["op"].isin(list(DIRECTIONS))].to_dict("records")
    }


@pytest.mark.parametrize("mode", ["full", "sampled", "histogram"])
def test_figures_are_those_of_the_summary(truth: SyntheticRun, tmp_path: Path, mode: Any) -> None:
    run = truth if mode == "full" else condensed(within_window(truth), mode, 900)
    path = run.write(tmp_path / "run.h5")
    (past,) = history([path]).runs
    expected = of_summary(path)
    assert set(past.moves) == {"read", "write"}
    for op, (operations, gib_per_s, wall_p95_ns) in expected.items():
        moves = past.moves[op]
        assert (moves.operations, moves.wall_p95_ns) == (operations, wall_p95_ns)
        assert moves.gib_per_s == pytest.approx(gib_per_s, rel=1e-12)


def test_a_run_that_moved_nothing_has_no_figures(tmp_path: Path) -> None:
    empty_run().write(tmp_path / "run.h5")
    found = history([tmp_path])
    assert found.runs[0].moves == {}
    assert found.table()["read_gib_per_s"].isna().all()


def test_without_figures_no_rows_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("kvbench_analysis.figures.storage_moves.storage_moves")
    assert names(history([folder], figures=False)) == ["z.h5", "y", "x.h5", "w.hdf5"]


def moment(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(since=moment("2026-03-02 08:00")), ["y", "x.h5", "w.hdf5"]),
        (Wanted(before=moment("2026-03-02 08:00")), ["z.h5"]),
        (Wanted(since=moment("2026-03-02"), before=moment("2026-03-04")), ["y", "x.h5"]),
        (Wanted(host="client1"), ["z.h5", "y", "x.h5", "w.hdf5"]),
        (Wanted(host="client"), []),
        (Wanted(configuration="oth*"), ["y"]),
        (Wanted(fingerprint="ffff"), ["y"]),
        (Wanted(fingerprint="0123", configuration="other"), []),
    ],
)
def test_runs_that_are_asked_for(folder: Path, wanted: Wanted, expected: list[str]) -> None:
    found = history([folder], wanted, figures=False)
    assert names(found) == expected
    assert found.left_out == 4 - len(expected)


def test_a_run_that_does_not_say_when_comes_last_and_is_of_no_time(tmp_path: Path) -> None:
    a_run(0, started_at="some day").write(tmp_path / "a.h5")
    a_run(1).write(tmp_path / "b.h5")
    assert names(history([tmp_path])) == ["b.h5", "a.h5"]
    assert names(history([tmp_path], Wanted(since=moment("2000-01-01")))) == ["b.h5"]


@pytest.fixture(scope="module")
def strange(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file among what is none."""
    place = tmp_path_factory.mktemp("strange")
    good = (folder / "z.h5").read_bytes()
    (place / "good.h5").write_bytes(good)
    (place / "copy.h5").write_bytes(good)
    (place / "hard.h5").hardlink_to(place / "good.h5")
    (place / "link.h5").symlink_to(place / "good.h5")
    (place / "nowhere.h5").symlink_to(place / "missing")
    (place / "loop").symlink_to(place)
    (place / "cut.h5").write_bytes(good[: len(good) // 2])
    (place / "text.h5").write_text("text")
    (place / "page.html").write_text("<html>")
    (place / "run-1-0.h5.partial").write_bytes(mark_of("20260301-080000-abcdef").ljust(MARK_BYTES + 100))
    shutil.copy(Path(__file__).parents[1] / "records" / "version-0.1" / "run.h5", place / "old.h5")
    os.mkfifo(place / "pipe.h5")
    with h5py.File(place / "foreign.h5", "w") as file:
        file["data"] = [1, 2, 3]
    return place


def test_what_is_no_run_file_is_named_and_skipped(strange: Path) -> None:
    found = history([strange])
    assert set(names(found)) == {"copy.h5", "old.h5"}
    told = reasons(found)
    assert set(told) == {"good.h5", "cut.h5", "text.h5", "run-1-0.h5.partial", "foreign.h5"}
    assert told["good.h5"] == f"of the same run as {strange / 'copy.h5'}"
    assert "truncated or damaged" in told["cut.h5"]
    assert told["text.h5"] == "no HDF5 file, or damaged"
    assert "not finished" in told["run-1-0.h5.partial"]
    assert "format_version is missing, so kvbench did not write it" in told["foreign.h5"]


def test_damage_where_the_rows_are_is_found_when_they_are_read(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "z.h5", tmp_path / "z.h5")
    with h5py.File(tmp_path / "z.h5") as file:
        chunk = file["records/wall_ns"].id.get_chunk_info(0)
    with (tmp_path / "z.h5").open("r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\xff\x00\xff\x00")
    found = history([tmp_path])
    assert names(found) == []
    assert "damaged" in reasons(found)["z.h5"]


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"cannot look into .*nowhere: No such file"):
        history([tmp_path / "nowhere"])


def test_each_run_is_compared_with_the_one_before_of_its_fingerprint(folder: Path) -> None:
    found = changes(history([folder], figures=False).runs)
    pairs = found.metrics[["before", "path"]].drop_duplicates()
    assert [(Path(row["before"]).name, Path(row["path"]).name) for row in pairs.to_dict("records")] == [
        ("z.h5", "x.h5"),
        ("x.h5", "w.hdf5"),
    ]
    verdicts = {
        (Path(str(row["path"])).name, row["op"], row["metric"]): row["verdict"]
        for row in found.metrics.to_dict("records")
    }
    for op in DIRECTIONS:
        assert verdicts["x.h5", op, "wall_p95_ns"] == "worse"
        assert verdicts["w.hdf5", op, "wall_p95_ns"] == "better"
        assert verdicts["x.h5", op, "gib_per_s"] == "same"
    assert [(Path(row["source"]).name, row["code"]) for row in found.warnings.to_dict("records")] == [
        ("w.hdf5", "interrupted")
    ]


def test_changes_are_what_compare_says(folder: Path) -> None:
    found = changes(history([folder], Wanted(fingerprint="0123"), figures=False).runs).metrics
    expected = ka.compare({"a": [folder / "z.h5"], "b": [folder / "x.h5"]}).metrics.set_index(["metric", "tier", "op"])
    mine = found[found["path"] == str(folder / "x.h5")].set_index(["metric", "tier", "op"])
    assert len(mine) == 4
    for column in ("ratio", "low", "high", "significant"):
        assert mine[column].tolist() == expected.loc[list(mine.index), column].tolist()


def test_a_pair_that_cannot_be_compared_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("z.h5", "x.h5"):
        shutil.copy(folder / name, tmp_path / name)
    runs = history([tmp_path], figures=False).runs
    (tmp_path / "x.h5").write_text("replaced meanwhile")
    found = changes(runs)
    assert found.metrics.empty
    ((path, reason),) = found.skipped
    assert path.name == "x.h5"
    assert f"not compared with {tmp_path / 'z.h5'}" in reason


def call(*words: object) -> Result:
    return CliRunner().invoke(commands, ["history", *map(str, words)])


def test_the_command_prints_runs_changes_and_what_it_skipped(folder: Path, strange: Path) -> None:
    done = call(folder, strange, "--compare")
    assert done.exit_code == 0, done.output
    assert "5 runs" in done.output
    assert f"skipped: {strange / 'text.h5'}: no HDF5 file" in done.output
    assert "01234567: each run against the one before" in done.output
    assert "worse" in done.output


def test_the_command_prints_json(folder: Path) -> None:
    told = json.loads(call(folder, "--json", "--compare", "--since", "2026-03-03", "--until", "2026-03-03").output)
    (run,) = told["runs"]
    assert run["path"] == str(folder / "x.h5")
    assert (told["left_out"], told["skipped"], told["changes"], told["warnings"]) == (3, [], [], [])


def test_the_command_says_that_there_is_nothing(folder: Path, tmp_path: Path) -> None:
    assert "no run file is there" in call(tmp_path).output
    assert "none of 4 runs is asked for" in call(folder, "--host", "elsewhere").output
    assert "no two of these runs did the same work" in call(folder, "--config", "other", "--compare").output


@pytest.mark.parametrize("words", [("--since", "soon"), ("--until", "2026-13-01"), ("--until", "9999-12-31")])
def test_the_command_says_how_times_are_given(folder: Path, words: tuple[str, str]) -> None:
    done = call(folder, *words)
    assert done.exit_code == 2
    assert words[1] in done.output


def test_times_that_contradict_each_other_are_refused(folder: Path) -> None:
    done = call(folder, "--since", "2026-03-03T10:00", "--until", "2026-03-02")
    assert done.exit_code == 1
    assert "no time lies between --since and --until" in done.output


def test_names_in_files_cannot_drive_the_terminal(tmp_path: Path) -> None:
    a_run(0, config_json=config("\x1b[2J")).write(tmp_path / "run.h5")
    assert "\x1b" not in call(tmp_path).output
