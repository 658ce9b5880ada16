"""The what-if study: which runs it starts, in which order, what it keeps of them, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kvbench_analysis import load
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.commands.main import commands
from kvbench.config.load import load_config, parse_config
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.errors import KvbenchError
from kvbench.run import runner
from kvbench.run.order import Order, marks_of
from kvbench.studies import jobs
from kvbench.studies.whatif import WhatIfChoices, announced, plan_runs, questions_for, read_questions, run_whatif
from kvbench.studies.whatif_table import WhatIfTable

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from synthetic import synthetic_run


def choices(tmp_path: Path, **changes: Any) -> WhatIfChoices:
    values: dict[str, Any] = {
        "source": "smoke",
        "overrides": (),
        "place": str(tmp_path),
        "questions": read_questions(["device=2", "cores=2", "cores=4", "host=0.5"]),
        "control": True,
        "ranks": 2,
        "engine": "",
        "repeats": 5,
        "seed": 1,
        "out": tmp_path / "table.csv",
        "overwrite": False,
    }
    return WhatIfChoices(**(values | changes))


SMOKE = load_config("smoke")


def test_each_repeat_has_the_baseline_every_question_and_the_controls_that_these_need(tmp_path: Path) -> None:
    runs = plan_runs(choices(tmp_path), SMOKE)
    names = {"baseline", "device-2", "cores-2", "cores-4", "host-0.5", "nothing-2", "nothing-4"}
    blocks = [[run.name for run in runs[first : first + 7]] for first in range(0, 35, 7)]
    assert [set(block) for block in blocks] == [{f"{name}-{repeat}" for name in names} for repeat in range(5)]
    assert len({tuple(name.rpartition("-")[0] for name in block) for block in blocks}) > 1
    assert runs == plan_runs(choices(tmp_path), SMOKE)
    assert runs != plan_runs(choices(tmp_path, seed=2), SMOKE)
    alone = plan_runs(choices(tmp_path, control=False), SMOKE)
    assert {run.name for run in alone if run.repeat == 0} == {f"{n}-0" for n in names if not n.startswith("nothing")}


def test_storage_alone_needs_no_control_as_its_device_is_not_delayed(tmp_path: Path) -> None:
    runs = plan_runs(choices(tmp_path, questions=read_questions(["device"])), SMOKE)
    assert {run.text for run in runs} == {"as it is", "device x 2"}


def test_the_usual_questions_are_three_and_ask_for_copies_where_there_are_any(tmp_path: Path) -> None:
    usual = choices(tmp_path, questions=())
    file_alone = parse_config({"model": "tiny-1b", "tiers": [{"kind": "file"}]}, "test")
    assert [speed.part for speed in questions_for(usual, SMOKE)] == ["device", "copies", "cores"]
    assert [speed.part for speed in questions_for(usual, file_alone)] == ["device", "host", "cores"]
    copying = file_alone.model_copy(update={"io": file_alone.io.model_copy(update={"read_path": "mmap-copy"})})
    assert [speed.part for speed in questions_for(usual, copying)] == ["device", "copies", "cores"]
    with pytest.raises(KvbenchError, match=r"--faster copies: with io.read_path=buffered and no memory tier"):
        plan_runs(choices(tmp_path, questions=read_questions(["copies"])), file_alone)


def test_how_long_it_will_take_is_said_beforehand(tmp_path: Path) -> None:
    runs = plan_runs(choices(tmp_path, questions=read_questions(["device=3"])), SMOKE)
    assert announced(runs, SMOKE) == "10 runs, in which load runs for 20 s"
    endless = SMOKE.model_copy(update={"duration_s": None})
    assert announced(runs, endless) == "10 runs, which take as long as 20 of the load as it is"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("devise=2", "no part 'devise': did you mean device"),
        ("nothing=2", "no part 'nothing'"),
        ("device=two", "'two' is not how many times as fast, such as device=2"),
        ("device=", "'' is not how many times"),
        ("device=1", "--faster device=1: expected how many times"),
        ("device=nan", "expected how many times"),
        ("host=100", "from 0.1 to 10"),
        ("cores=0.5", "taskset"),
    ],
)
def test_a_question_that_is_none_is_refused(word: str, message: str) -> None:
    with pytest.raises(KvbenchError, match=message):
        read_questions([word])


def test_a_question_counts_once() -> None:
    assert read_questions(["device", "device=2", "device=2.0"]) == (VirtualSpeed("device", 2),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": ("records=histogram",)}, "records=full"),
        ({"overrides": ("namespace=shared",)}, "namespace=shared: ranks wait for each other"),
        ({"place": None}, "give the directory under test with --dir"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KvbenchError, match=message):
        run_whatif(choices(tmp_path, **changes), WhatIfTable(tmp_path / "table.csv").add, Console(quiet=True))
    assert not (tmp_path / "table-runs").exists()


def test_inside_a_launcher_it_says_to_start_it_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(KvbenchError, match="start it outside"):
        run_whatif(choices(tmp_path), lambda run, path: "", Console(quiet=True))


@pytest.fixture
def launches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """The order of each run that is started, which leaves a known run file; the twelfth fails."""
    run = synthetic_run(np.random.default_rng(1), ranks=1, nodes=1, operations=100)
    plain = run.write(tmp_path / "plain.h5")
    started: list[Order] = []

    def start(ranks: int, arguments: list[str], hosts: str | None, program: tuple[str, ...]) -> int:
        order = Order.from_json(json.loads(arguments[0]))
        started.append(order)
        if len(started) == 12:
            return 7
        if order.speed is None:
            shutil.copy(plain, order.out)
        else:
            delays = dict.fromkeys(("rank", "thread", "asleep_ns", "busy_ns"), np.zeros(1, np.int64))
            run.changed(attributes=marks_of(order.speed), tables={"delays": delays}).write(order.out)
        return 0

    monkeypatch.setattr(jobs, "start_ranks", start)
    return started


def test_a_run_that_fails_ends_the_study_and_the_table_keeps_those_before(
    tmp_path: Path, launches: list[Order]
) -> None:
    wanted = choices(tmp_path)
    with pytest.raises(KvbenchError, match=r"failed with exit code 7; .*; the 11 runs before it are in .*table\.csv"):
        run_whatif(wanted, WhatIfTable(wanted.out).add, Console(quiet=True))
    table = pd.read_csv(wanted.out)
    assert list(table["order"]) == list(range(11))
    for order, row in zip(launches, table.to_dict("records"), strict=False):
        speed = order.speed
        assert row["question"] == ("baseline" if speed is None else speed.part)
        assert row["factor"] == (1 if speed is None else speed.factor)
        assert row["stretch"] == (1 if speed is None else speed.stretch)
    base = table[table["question"] == "baseline"].iloc[0]
    device = table[table["question"] == "device"].iloc[0]
    assert device["p95_ns"] == pytest.approx(base["p95_ns"] / 2), "the same file, of which times are half as long"
    shown = CliRunner().invoke(commands, ["study", "show", str(wanted.out)])
    assert shown.exit_code == 0, shown.output
    assert "storage 2 times as fast" in shown.output


def test_a_real_run_of_a_question_is_marked_and_asks_for_the_same_work(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    line = '{{"timestamp": {}, "input_length": 512, "output_length": 2, "hash_ids": [{}]}}\n'
    trace.write_text("".join(line.format(number, number % 3) for number in range(12)), encoding="utf-8")
    workload = f"workload={{kind: trace, path: {trace}}}"
    overrides = ("duration_s=null", workload, "pacing={mode: asap}", "io.threads=1")
    fingerprints, requests = set(), []
    for speed in (None, VirtualSpeed("nothing", 2)):
        order = Order("smoke", str(tmp_path), tmp_path / "run.h5", overrides, overwrite=True, speed=speed)
        runner.run(SerialComm(), order, Console(quiet=True)).close()
        run = load(tmp_path / "run.h5")
        fingerprints.add(run.attributes["fingerprint"])
        requests.append(run.requests[["request", "context_tokens", "hit_tokens", "miss_tokens", "operations"]])
        assert ("virtual_speed_json" in run.attributes) == (speed is not None)
        assert len(run.delays) == (1 if speed else 0)
    assert len(fingerprints) == 1
    assert requests[0].equals(requests[1])
