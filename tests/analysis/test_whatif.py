"""The figures of runs with virtual speeds, what a what-if study makes of them, and who takes them for no others."""

import io
import json
import math
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.history.history import history
from kvbench_analysis.report import write_report
from kvbench_analysis.tables.load import load
from kvbench_analysis.tables.virtual import virtual_speed
from kvbench_analysis.whatif.print import print_whatif
from kvbench_analysis.whatif.run_figures import whatif_run
from kvbench_analysis.whatif.study import FIGURES, WhatIfFigures, load_table, to_json, whatif_figures
from rich.console import Console
from synthetic import SyntheticRun, run_attributes, run_tables, synthetic_run

from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.records.reader import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Phase, RequestState, TimedBy
from kvbench.run.order import marks_of

MS = 1_000_000
SPEED = VirtualSpeed("device", 2)
DELAYS = {
    "rank": np.array([0, 0]),
    "thread": np.array([0, 1]),
    **{name: np.array([10, 20]) for name in ("batches", "device_ns", "host_ns", "copy_ns", "between_ns")},
    "asleep_ns": np.array([10**9, 2 * 10**9]),
    "busy_ns": np.array([10**9, 0]),
}


def virtual(run: SyntheticRun, speed: VirtualSpeed = SPEED) -> SyntheticRun:
    return run.changed(attributes=marks_of(speed), tables={"delays": DELAYS})


@pytest.fixture(scope="module")
def plain() -> SyntheticRun:
    return synthetic_run(np.random.default_rng(3), ranks=1, nodes=1, operations=600)


@pytest.fixture(scope="module")
def delayed_file(plain: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return virtual(plain).write(tmp_path_factory.mktemp("virtual") / "device-2-0.h5")


# One run


def known_run(tmp_path: Path, speed: VirtualSpeed | None = None, config: dict[str, Any] | None = None) -> Any:
    """A hundred requests, number i of which loaded for i ms after looking up for 1 ms, and took twice that in all."""
    rows = np.zeros(103, REQUEST_DTYPE)
    rows["phase"], rows["state"] = Phase.MEASURE, RequestState.DONE
    rows["request"] = np.arange(103)
    rows["intended_ns"] = rows["start_ns"] = 6_000 * MS
    rows["look_up_ns"], rows["load_ns"] = 1 * MS, np.arange(103) * MS
    rows["first_token_ns"] = 3 * rows["load_ns"]
    rows["end_ns"] = rows["start_ns"] + 2 * rows["load_ns"]
    rows["hit_tokens"] = 100
    rows["hit_tokens"][0] = 0
    rows["phase"][101], rows["state"][102] = Phase.WARMUP, RequestState.CUT_SHORT
    records = np.zeros(3, RECORD_DTYPE)
    records["phase"] = Phase.MEASURE, Phase.MEASURE, Phase.WARMUP
    records["wall_ns"], records["device_ns"], records["host_ns"], records["runq_ns"] = 100, 60, 30, 10
    records["copy_ns"] = 20
    attributes = run_attributes(1, 1) if config is None else run_attributes(1, 1, config_json=json.dumps(config))
    run = SyntheticRun(records, rows, attributes, run_tables(records, rows, 1, 1))
    return load((run if speed is None else virtual(run, speed)).write(tmp_path / "run.h5", overwrite=True))


def test_a_run_says_what_a_load_took_where_requests_are_served_as_an_engine_does(tmp_path: Path) -> None:
    figures = whatif_run(known_run(tmp_path))
    assert (figures.metric, figures.requests) == ("load", 100)
    assert (figures.p50_ns, figures.p95_ns) == (51.5 * MS, np.percentile(np.arange(2, 102), 95) * MS)
    assert figures.requests_per_s == pytest.approx(101 / 10)
    shares = figures.device_share, figures.host_share, figures.runq_share, figures.copy_share
    assert shares == pytest.approx((0.6, 0.3, 0.1, 0.2))
    assert (figures.asleep_s, figures.busy_s) == (0, 0)


def test_the_time_of_what_overlaps_is_that_of_its_batches(tmp_path: Path) -> None:
    records = np.zeros(3, RECORD_DTYPE)
    records["phase"], records["wall_ns"] = Phase.MEASURE, 100
    # Two reads in flight together for 100 of a batch of 120; and a write by itself.
    records["timed_by"][:2] = TimedBy.URING
    records["device_ns"][2], records["host_ns"][2], records["copy_ns"][2] = 40, 60, 10
    rows = np.zeros(1, REQUEST_DTYPE)
    rows["phase"], rows["state"], rows["end_ns"] = Phase.MEASURE, RequestState.DONE, 100
    rows["hit_tokens"] = 1
    columns = {
        "rank": 0, "tier": 0, "op": Op.READ, "phase": Phase.MEASURE, "timed_by": TimedBy.URING, "batches": 1,
        "operations": 2, "errors": 0, "nbytes": 0,
        "wall_ns": 120, "device_ns": 90, "host_ns": 20, "runq_ns": 10, "copy_ns": 0,
        "helper_ns": 5,
    }  # fmt: skip
    splits = {name: np.array([value]) for name, value in columns.items()}
    made = SyntheticRun(records, rows, run_attributes(1, 1), run_tables(records, rows, 1, 1))
    told = whatif_run(load(made.changed(tables={"splits": splits}).write(tmp_path / "told.h5")))
    assert (told.device_share, told.host_share, told.runq_share, told.copy_share) == pytest.approx(
        (130 / 220, 80 / 220, 10 / 220, 10 / 220)
    )
    assert math.isnan(whatif_run(load(made.write(tmp_path / "untold.h5"))).device_share)


def test_times_of_a_run_that_was_stretched_are_of_what_they_stand_for(tmp_path: Path) -> None:
    plain, stretched = whatif_run(known_run(tmp_path)), whatif_run(known_run(tmp_path, VirtualSpeed("cores", 4)))
    assert stretched.p95_ns == plain.p95_ns / 4
    assert stretched.mean_ns == plain.mean_ns / 4
    assert stretched.requests_per_s == 4 * plain.requests_per_s
    assert (stretched.asleep_s, stretched.busy_s) == (3, 1)
    assert whatif_run(known_run(tmp_path, VirtualSpeed("device", 0.5))).p95_ns == plain.p95_ns


@pytest.mark.parametrize(
    ("config", "metric", "times"),
    [
        ({"compute": {"gpu": "h100-sxm"}, "workload": {"kind": "sessions"}}, "first_token", 3),
        ({"workload": {"kind": "personas"}}, "latency", 2),
    ],
)
def test_what_is_looked_at_depends_on_what_there_is(
    tmp_path: Path, config: dict[str, Any], metric: str, times: int
) -> None:
    figures = whatif_run(known_run(tmp_path, config=config))
    assert figures.metric == metric
    there = np.arange(1 if metric == "first_token" else 0, 101) * times * MS
    assert figures.p95_ns == np.percentile(there, 95)


def test_a_run_without_every_row_or_without_a_request_is_refused(plain: SyntheticRun, tmp_path: Path) -> None:
    nothing = SyntheticRun(plain.records, np.empty(0, REQUEST_DTYPE), plain.attributes, plain.tables)
    with pytest.raises(KvbenchError, match="no request of the measured phase has a load of a request"):
        whatif_run(load(nothing.write(tmp_path / "nothing.h5")))


# Others do not take it for an ordinary run


def test_its_file_says_so_and_has_a_version_that_older_readers_refuse(delayed_file: Path) -> None:
    run = load(delayed_file)
    assert run.attributes["format_version"] == 2
    found = virtual_speed(run)
    assert found is not None
    assert (found.part, found.factor, found.stretch) == ("device", 2, 2)
    assert list(run.delays["asleep_ns"]) == [10**9, 2 * 10**9]


def test_an_ordinary_run_has_version_1_and_says_nothing_of_it(plain: SyntheticRun, tmp_path: Path) -> None:
    run = load(plain.write(tmp_path / "plain.h5"))
    assert run.attributes["format_version"] == 1
    assert virtual_speed(run) is None
    assert not any(caution.code == "virtual-speed" for caution in ka.summarize(run).warnings)


def test_what_the_file_says_wrongly_is_damage(plain: SyntheticRun, tmp_path: Path) -> None:
    run = load(plain.changed(attributes={"virtual_speed_json": '{"part": 1}'}).write(tmp_path / "bad.h5"))
    with pytest.raises(KvbenchError, match="damaged: the attribute virtual_speed_json"):
        virtual_speed(run)


def test_compare_refuses_it_whatever_is_forced(plain: SyntheticRun, delayed_file: Path, tmp_path: Path) -> None:
    other = plain.changed(attributes={"run_id": "another"}).write(tmp_path / "plain.h5")
    for force in (False, True):
        with pytest.raises(KvbenchError, match=r"device-2-0.h5 is a run of `kvbench study whatif` \(device 2 times"):
            ka.compare({"a": [other], "b": [delayed_file]}, force=force)


def test_history_skips_it_and_says_why(delayed_file: Path) -> None:
    found = history([delayed_file.parent])
    assert not found.runs
    assert "full of delays that were put in on purpose" in found.skipped[0].reason


def test_the_first_warning_of_its_summary_and_report_says_what_it_is(delayed_file: Path, tmp_path: Path) -> None:
    run = load(delayed_file)
    first = ka.summarize(run).warnings[0]
    assert first.code == "virtual-speed"
    assert "no figure here is of an ordinary run; times of requests are 2 times as long" in first.message
    page = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "no figure here is of an ordinary run" in page


# The study


def study_table(**ratios: tuple[float, float]) -> pd.DataFrame:
    """Five repeats in which everything is slower by as much as its number; a question's name gives the ratio of its
    times and of its rates to the baseline's of the same repeat."""
    rows: list[dict[str, Any]] = []
    for repeat in range(5):
        for name, (time, rate) in {"baseline": (1.0, 1.0), **ratios}.items():
            question, _, factor = name.partition("_")
            base = 100 * MS * (1 + 0.2 * repeat)
            times = dict.fromkeys(("p95_ns", "p50_ns", "mean_ns"), base * time)
            rows.append(
                {"question": question, "factor": float(factor or 1), "repeat": repeat, "order": len(rows)}
                | {"stretch": 1.0, "metric": "load", "requests": 1000, "requests_per_s": 10 * rate, **times}
                | {"device_share": 0.7, "host_share": 0.2, "runq_share": 0.1, "copy_share": 0.1}
            )
    return pd.DataFrame(rows)


def figures_of(table: pd.DataFrame) -> WhatIfFigures:
    return whatif_figures(table, np.random.default_rng(1))


def of(figures: WhatIfFigures, question: str, figure: str = "p95_ns") -> dict[str, Any]:
    rows = figures.questions[(figures.questions["question"] == question) & (figures.questions["figure"] == figure)]
    (row,) = rows.to_dict("records")
    return {str(name): value for name, value in row.items()}


def test_a_question_is_answered_by_pairs_of_runs_of_the_same_repeat() -> None:
    figures = figures_of(study_table(device_2=(0.6, 1.5)))
    row = of(figures, "device")
    assert row["ratio"] == pytest.approx(0.6)
    assert (row["low"], row["high"]) == pytest.approx((0.6, 0.6)), "what all of a repeat share is in no interval"
    assert row["predicted"] == pytest.approx(0.6 * 140 * MS)
    assert of(figures, "device", "requests_per_s")["ratio"] == pytest.approx(1.5)
    assert figures.sentences == (
        "With storage 2 times as fast: load of a request P95 -40 % (-40 % to -40 %); requests/s +50 % (+50 % to +50 %) "
        "(predicted).",
    )


def test_where_a_device_was_delayed_what_delays_do_by_themselves_is_no_part_of_the_answer() -> None:
    table = study_table(device_2=(0.6, 1.0), cores_2=(0.4, 1.0), nothing_2=(0.8, 1.0), cores_4=(0.4, 1.0))
    figures = figures_of(table)
    assert of(figures, "device")["ratio"] == pytest.approx(0.6)
    assert not of(figures, "device")["corrected"]
    cores = figures.questions[(figures.questions["question"] == "cores") & (figures.questions["figure"] == "p95_ns")]
    assert list(cores["factor"]) == [2, 4]
    assert list(cores["corrected"]) == [True, False], "a control has the factor of its question"
    assert list(cores["ratio"]) == pytest.approx([0.5, 0.4])
    assert list(cores["predicted"]) == pytest.approx([0.5 * 140 * MS, 0.4 * 140 * MS])
    assert figures.controls[figures.controls["figure"] == "p95_ns"]["ratio"].tolist() == pytest.approx([0.8])
    assert any("delays alone (2 times, nothing faster) changed P95 by -20 %" in note for note in figures.notes)


def test_a_change_within_chance_is_called_so() -> None:
    table = study_table(host_2=(1.0, 1.0))
    noise = np.array([0.7, 1.3, 0.9, 1.2, 0.95])
    table.loc[table["question"] == "host", "p95_ns"] *= noise
    (sentence,) = figures_of(table).sentences
    assert "load of a request P95 no change that can be told from chance (" in sentence


def test_a_study_that_was_ended_is_told_by_the_repeats_that_have_both() -> None:
    table = study_table(device_2=(0.6, 1.0), cores_2=(0.5, 1.0), nothing_2=(1.0, 1.0))
    table = table[~((table["repeat"] == 4) & table["question"].isin(["device", "nothing"]))]
    figures = figures_of(table)
    assert (of(figures, "device")["repeats"], of(figures, "cores")["repeats"], figures.repeats) == (4, 4, 5)
    alone = figures_of(table[table["question"].isin(["baseline"]) | (table["order"] == 1)])
    assert math.isnan(of(alone, "device")["low"])
    assert "-40 %;" in alone.sentences[0]


def test_few_requests_and_parts_that_take_no_time_are_named() -> None:
    table = study_table(copies_2=(1.0, 1.0), device_2=(1.0, 1.0)).assign(requests=20, copy_share=0.001)
    notes = figures_of(table).notes
    assert any(note.startswith("few: a P95 of 20 requests") for note in notes)
    assert any(note.startswith("copies in user space: 0.1 % of the time of operations") for note in notes)
    assert not any(note.startswith("storage") for note in notes)


def test_json_has_every_figure_and_null_for_none() -> None:
    table = study_table(device_2=(0.6, 1.5), nothing_2=(1.0, 1.0)).assign(copy_share=float("nan"))
    content = json.loads(to_json(figures_of(table)))
    assert (content["format"], content["version"], content["metric"]) == ("kvbench-whatif", 1, "load")
    assert content["baseline"]["copy_share"] is None
    assert [row["figure"] for row in content["predicted"]] == list(FIGURES)
    assert content["predicted"][0]["ratio"] == pytest.approx(0.6)
    assert len(content["controls"]) == len(FIGURES)


def test_the_table_fits_80_columns_and_says_that_it_is_predicted() -> None:
    table = study_table(device_2=(0.6, 1.5), copies_2=(0.99, 1.0), cores_2=(0.5, 2), host_0_5=(2, 1), nothing_2=(1, 1))
    table["factor"] = table["factor"].replace({5.0: 0.5})
    table.loc[table["question"] == "host", "factor"] = 0.5
    out = io.StringIO()
    print_whatif(figures_of(table), Console(file=out, width=80))
    text = out.getvalue()
    assert max(len(line) for line in text.split("Time of threads")[0].splitlines()) <= 80
    assert "Predicted by experiment" in text
    assert "delays alone" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="p95_ns"), "lacks the columns p95_ns"),
        (lambda table: table[table["question"] != "baseline"], "lacks a baseline"),
        (lambda table: table.assign(p50_ns="many"), "p50_ns does not hold numbers"),
        (lambda table: table.assign(metric="speed"), "no figure in common"),
    ],
)
def test_what_is_no_table_of_a_what_if_study_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "table.csv"
    change(study_table(device_2=(0.6, 1.5))).to_csv(path, index=False)
    with pytest.raises(KvbenchError, match=message):
        load_table(path)
