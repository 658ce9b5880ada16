"""Whether what was promised was kept, and goodput, request by request."""

import json
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from computed import computing, counted
from condensing import condensed
from kvbench_analysis.figures.objectives import Objectives
from served import MS, request_row, served_run
from synthetic import END_NS, START_NS, SyntheticRun

from kvbench.errors import KvbenchError
from kvbench.records.schema import Phase, RequestState


def told(run: SyntheticRun, tmp_path: Path, *slo: str) -> Objectives:
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5", overwrite=True)), slo=slo).objectives
    assert found is not None
    return found


def one(run: SyntheticRun, tmp_path: Path, slo: str) -> dict[Any, Any]:
    return dict(told(run, tmp_path, slo).objectives.iloc[0])


def by_hand(rows: np.ndarray[Any, Any], figure: str) -> Any:
    if figure == "ttft":
        return rows["first_token_ns"] / 1e9
    if figure == "queue":
        return (rows["start_ns"] - rows["intended_ns"]) / 1e9
    if figure == "latency":
        return (rows["end_ns"] - rows["intended_ns"]) / 1e9
    if figure == "storage":
        return rows["storage_ns"] / 1e9
    if figure == "load":
        return rows["load_ns"][rows["hit_tokens"] > 0] / 1e9
    return rows["look_up_ns"] / 1e9


@pytest.mark.parametrize(
    "figure",
    [
        "ttft",
        "load",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("queue", "latency", "storage", "look_up")),
    ],
)
def test_a_value_is_the_percentile_of_its_figure(tmp_path: Path, figure: str) -> None:
    run = computing()
    values = by_hand(counted(run), figure)
    expected = np.percentile(values, 95)
    above, below = one(run, tmp_path, f"{figure}_p95<{expected * 1.01:.9f}s"), one(run, tmp_path, f"{figure}_p95<1e-9")
    assert above["value_s"] == pytest.approx(expected, rel=1e-9)
    assert (above["met"], below["met"]) == (True, False)
    assert above["requests"] == len(values)
    assert one(run, tmp_path, f"{figure}_mean<1h")["value_s"] == pytest.approx(values.mean())


def test_a_class_has_its_own_objective_and_its_own_goodput(tmp_path: Path) -> None:
    run = computing()
    rows = counted(run)
    mine = rows[rows["qos"] == 1]
    found = told(run, tmp_path, "responsive.ttft_p95<100ms", "load_p50<80ms")
    assert found.objectives["value_s"].iloc[0] == pytest.approx(np.percentile(mine["first_token_ns"], 95) / 1e9)
    assert found.objectives["requests"].iloc[0] == len(mine)
    good = {row["qos"]: row for row in found.goodput.to_dict("records")}
    assert set(good) == {"all", "interactive", "responsive", "batch"}
    within, inside = {0: 0, 1: 0, 2: 0}, 0.0
    for row in rows:
        kept = int(row["hit_tokens"]) == 0 or int(row["load_ns"]) < 80 * MS
        if row["qos"] == 1:
            kept = kept and int(row["first_token_ns"]) < 100 * MS
        within[int(row["qos"])] += kept
        start, end = int(row["start_ns"]), int(row["end_ns"])
        last = int(run.attributes["measure_end_ns"])
        inside += kept * (min(end, last) - max(start, START_NS)) / (end - start)
    assert [good[name]["within"] for name in ("interactive", "responsive", "batch")] == list(within.values())
    assert good["all"]["within"] == sum(within.values())
    assert 0 < good["all"]["within"] < len(rows)
    seconds = (int(run.attributes["measure_end_ns"]) - START_NS) / 1e9
    assert good["all"]["within_per_s"] == pytest.approx(inside / seconds, rel=1e-6)


def test_what_failed_kept_no_promise_and_what_was_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    states = [RequestState.DONE, RequestState.DONE, RequestState.FAILED, RequestState.CUT_SHORT]
    requests = [request_row(n, 10.0 * n, 5, 512, 1024, state=state) for n, state in enumerate(states)]
    requests.append(request_row(9, 0, 5, 512, 1024, phase=Phase.WARMUP))
    row = told(served_run(requests), tmp_path, "load_p99<1s").goodput.iloc[0]
    assert (row["done"], row["failed"], row["within"]) == (2, 1, 2)
    assert row["within_share"] == pytest.approx(2 / 3)
    assert row["within_per_s"] == pytest.approx(2 / ((END_NS - START_NS) / 1e9))


def test_a_time_per_output_token_is_of_the_tokens_behind_the_first(tmp_path: Path) -> None:
    requests = [request_row(0, 0, 5, 512, 1024), request_row(1, 10, 5, 512, 1024, output_tokens=1)]
    row = one(served_run(requests), tmp_path, "tpot_p50<10ms")
    assert (row["value_s"], row["requests"], row["met"], row["modelled"]) == (pytest.approx(0.008), 1, True, True)
    # An answer of one token breaks no promise about those behind it.
    assert told(served_run(requests), tmp_path, "tpot_p50<1ms").goodput["within"].iloc[0] == 1


def test_too_few_requests_behind_a_percentile_are_marked(tmp_path: Path) -> None:
    run = served_run([request_row(0, 0, 5, 512, 1024)])
    assert not one(run, tmp_path, "ttft_p95<1s")["enough"]
    assert one(run, tmp_path, "ttft_mean<1s")["enough"]
    summary = ka.summarize(ka.load(tmp_path / "run.h5"), slo=["ttft_p95<10s"])
    assert "ttft_p95<10s ~met" in summary.headlines[-1]
    assert "modelled in part" in summary.headlines[-1]


def test_of_a_sample_goodput_is_scaled_up(tmp_path: Path) -> None:
    whole = told(computing(), tmp_path, "load_p95<80ms")
    part = told(condensed(computing(), "sampled", 700), tmp_path, "load_p95<80ms")
    assert part.sampled_1_in > 1
    assert part.goodput["done"].iloc[0] < whole.goodput["done"].iloc[0]
    assert part.goodput["within_per_s"].iloc[0] == pytest.approx(whole.goodput["within_per_s"].iloc[0], rel=0.25)


def with_objectives(run: SyntheticRun, *objectives: str, **attributes: str) -> SyntheticRun:
    config = json.loads(str(run.attributes["config_json"])) | {"objectives": list(objectives)}
    return run.changed(attributes={"config_json": json.dumps(config), **attributes})


def test_those_of_the_configuration_count_where_none_are_given(tmp_path: Path) -> None:
    run = with_objectives(computing(), "load_p99<1h")
    assert list(told(run, tmp_path).objectives["objective"]) == ["load_p99<3600s"]
    assert list(told(run, tmp_path, "queue_p50<1s").objectives["objective"]) == ["queue_p50<1s"]
    assert ka.summarize(ka.load(computing().write(tmp_path / "none.h5"))).objectives is None


def test_what_a_run_does_not_have_is_said_and_given_it_is_an_error(tmp_path: Path) -> None:
    run = with_objectives(computing(), "ttft_p95<1s", "load_p95<1s", compute_model_json="")
    found = told(run, tmp_path)
    assert found.met is None
    assert found.goodput.empty
    assert "the run has no compute" in found.objectives["absent"].iloc[0]
    assert found.objectives["met"].tolist() == [None, True]
    content = json.loads(ka.to_json(ka.summarize(ka.load(tmp_path / "run.h5"))))
    assert content["objectives"]["met"] is None
    assert content["objectives"]["objectives"][0]["value_s"] is None
    assert "the run has no compute" in content["no_first_token"]
    with pytest.raises(KvbenchError, match="--slo tpot_p95<1s: tpot: the run has no compute"):
        told(run, tmp_path, "tpot_p95<1s")


@pytest.mark.parametrize(
    ("slo", "said"),
    [("ttft<2s", "is no objective"), ("gold.ttft_p95<2s", "unknown QoS class"), ("ttft_p95<0s", "above 0")],
)
def test_an_impossible_objective_is_one_clear_error(tmp_path: Path, slo: str, said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        told(computing(), tmp_path, slo)
