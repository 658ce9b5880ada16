"""The scaling study: which runs it starts, what it keeps of them, and what it refuses."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_analysis import load
from rich.console import Console

from kvbench.config.load import parse_config
from kvbench.errors import KvbenchError
from kvbench.studies import jobs
from kvbench.studies.scaling import BOTH, ScalingChoices, ScalingRun, node_counts, plan_runs, run_scaling
from kvbench.studies.scaling_table import COLUMNS, ScalingTable

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from synthetic import synthetic_run


def choices(tmp_path: Path, **changes: Any) -> ScalingChoices:
    values: dict[str, Any] = {
        "source": "smoke",
        "overrides": (),
        "directory": tmp_path,
        "ranks": (1, 2, 4),
        "hosts": (),
        "nodes": (1,),
        "scalings": BOTH,
        "repeats": 5,
        "seconds": None,
        "seed": 1,
        "out": tmp_path / "table.csv",
        "overwrite": False,
    }
    return ScalingChoices(**(values | changes))


def plan(wanted: ScalingChoices, **config: Any) -> list[ScalingRun]:
    return plan_runs(wanted, parse_config({"workload": {"users": 6}, **config}, "test"))


def users(runs: Sequence[ScalingRun], which: str) -> dict[int, int]:
    return {run.ranks: run.users_per_rank for run in runs if run.scaling == which}


def test_weak_scaling_keeps_the_users_of_a_rank_and_strong_scaling_those_of_all(tmp_path: Path) -> None:
    runs = plan(choices(tmp_path))
    assert users(runs, "weak") == {1: 6, 2: 6, 4: 6}
    assert users(runs, "strong") == {1: 24, 2: 12, 4: 6}


def test_sessions_grow_and_are_divided_by_their_users(tmp_path: Path) -> None:
    runs = plan(choices(tmp_path), workload={"kind": "sessions", "users": 6}, pacing={"mode": "asap"})
    assert users(runs, "weak") == {1: 6, 2: 6, 4: 6}
    assert users(runs, "strong") == {1: 24, 2: 12, 4: 6}
    assert {run.overrides for run in runs if run.ranks == 1} == {("workload.users=6",), ("workload.users=24",)}


def test_strong_scaling_divides_arrivals_as_it_does_users(tmp_path: Path) -> None:
    runs = plan(choices(tmp_path), pacing={"mode": "open", "requests_per_s": 3})
    rates = {run.ranks: run.overrides[0] for run in runs if run.scaling == "strong"}
    assert rates == {n: f"pacing.requests_per_s={12 / n}" for n in (1, 2, 4)}


def test_every_repeat_holds_every_run_once_in_an_order_that_the_seed_decides(tmp_path: Path) -> None:
    wanted = choices(tmp_path, nodes=(1, 2), hosts=("a", "b"))
    runs = plan(wanted)
    blocks = [runs[start : start + 12] for start in range(0, 60, 12)]
    assert all({run.repeat for run in block} == {repeat} for repeat, block in enumerate(blocks))
    found = [[(run.scaling, run.nodes, run.ranks_per_node) for run in block] for block in blocks]
    assert all(len(set(block)) == 12 for block in found)
    assert len({tuple(block) for block in found}) == 5
    assert plan(wanted) == runs
    assert plan(choices(tmp_path, nodes=(1, 2), hosts=("a", "b"), seed=2)) != runs


def test_nodes_go_from_one_to_all() -> None:
    assert node_counts(0) == (1,)
    assert node_counts(3) == (1, 2, 3)
    assert node_counts(24) == (1, 2, 4, 8, 16, 24)


def test_users_that_cannot_be_divided_are_refused_with_a_number_that_can(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"cannot be divided among 4 ranks; set workload.users to a multiple of 4"):
        plan(choices(tmp_path, ranks=(4, 5)), workload={"users": 1})


def test_a_trace_cannot_grow_with_the_ranks(tmp_path: Path) -> None:
    trace = {"workload": {"kind": "trace", "path": "t.csv"}, "pacing": {"mode": "asap"}}
    with pytest.raises(KvbenchError, match="give --strong alone"):
        plan(choices(tmp_path), **trace)
    assert users(plan(choices(tmp_path, scalings=("strong",)), **trace), "strong") == {1: 0, 2: 0, 4: 0}


def test_inside_a_launcher_it_says_to_start_it_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(KvbenchError, match="start it outside"):
        run_scaling(choices(tmp_path), lambda done: "", Console(quiet=True))


@pytest.fixture
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """(ranks, hosts) of each launch, which leaves a known run file instead of running anything; the fourth fails."""
    known = synthetic_run(np.random.default_rng(1)).write(tmp_path / "known.h5")
    started: list[tuple[int, str]] = []

    def start(ranks: int, arguments: list[str], hosts: str, program: tuple[str, ...]) -> int:
        started.append((ranks, hosts))
        if len(started) == 4:
            return 7
        (out,) = [word for word in arguments[0].split('"') if word.endswith(".h5")]
        shutil.copy(known, out)
        return 0

    monkeypatch.setattr(jobs, "start_ranks", start)
    return started


def test_a_run_that_fails_ends_the_study_and_the_table_keeps_those_before(
    tmp_path: Path, launches: list[tuple[int, str]]
) -> None:
    wanted = choices(tmp_path, hosts=("a", "b"), nodes=(1, 2))
    with pytest.raises(KvbenchError, match=r"failed with exit code 7; .*; the 3 runs before it are in .*table\.csv"):
        run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    table = pd.read_csv(wanted.out)
    assert tuple(table.columns) == COLUMNS
    assert list(table["order"]) == [0, 1, 2]
    for (ranks, hosts), row in zip(launches, table.to_dict("records"), strict=False):
        assert ranks == row["ranks"] == row["nodes"] * row["ranks_per_node"]
        assert hosts == ",".join(f"{host}:{row['ranks_per_node']}" for host in "ab"[: row["nodes"]])
        assert Path(row["run_file"]).exists()


def test_the_table_holds_the_rates_of_the_summary(tmp_path: Path, launches: list[tuple[int, str]]) -> None:
    wanted = choices(tmp_path, ranks=(1,), scalings=("weak",), repeats=1)
    run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    truth = synthetic_run(np.random.default_rng(1))
    row = pd.read_csv(wanted.out).iloc[0]
    records = truth.records[
        (truth.records["phase"] == 2) & (truth.records["errno"] == 0) & (truth.records["tier"] == 1)
    ]
    moved = records[np.isin(records["op"], [0, 1])]
    # Few of its operations cross an edge of the measured window of 10 s.
    assert row["storage_gib_per_s"] == pytest.approx(moved["nbytes"].sum() / 2**30 / 10, rel=0.01)


def test_an_existing_table_is_not_replaced(tmp_path: Path, launches: list[tuple[int, str]]) -> None:
    wanted = choices(tmp_path)
    wanted.out.write_text("mine")
    with pytest.raises(KvbenchError, match="exists"):
        run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    assert wanted.out.read_text() == "mine"
    assert launches == []


def test_run_files_of_an_earlier_study_are_not_replaced(tmp_path: Path, launches: list[tuple[int, str]]) -> None:
    wanted = choices(tmp_path, ranks=(1,), scalings=("weak",), repeats=2)
    run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    wanted.out.rename(tmp_path / "kept.csv")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "table-runs").iterdir()}
    launches.clear()
    with pytest.raises(KvbenchError, match=r"table-runs/.*\.h5 exists"):
        run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    assert launches == []
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "table-runs").iterdir()} == before


@pytest.mark.slow
def test_runs_are_ordinary_runs_that_last_as_long_as_asked(tmp_path: Path, fast_directory: Path) -> None:
    wanted = choices(tmp_path, directory=fast_directory, ranks=(2,), scalings=("strong",), repeats=1, seconds=0.2)
    run_scaling(wanted, ScalingTable(wanted.out).add, Console(quiet=True))
    run = load(pd.read_csv(wanted.out)["run_file"][0])
    assert run.attributes["status"] == "complete"
    assert run.attributes["ranks"] == 2
    assert run.config["duration_s"] == 0.2
    assert run.config["workload"]["users"] == 2
