"""The measured window of a run: set-up is over before it, and one in which nothing was measured is no success."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kvbench_command import Ended, attributes, column, overrides

from kvbench.records.schema import Phase

Call = Callable[..., Ended]

MANY_USERS = overrides(
    "workload.users=6000", "pacing={mode: closed}", "workload.think_time_scale=0", "duration_s=0.3", "warmup_s=0"
)
"""Whose first requests take longer to make than the run is to take."""
IDLE = overrides("pacing.requests_per_s=0.0001", "duration_s=0.2")
"""No request is due as early as that."""


def test_the_clock_starts_when_the_first_requests_of_all_users_are_there(kvbench: Call, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    ended = kvbench("run", "null", "--out", out, *MANY_USERS)
    assert ended.code == 0, ended.err
    assert "operation that counts" not in ended.out
    start_ns = attributes(out)["measure_start_ns"]
    assert column(out, "requests/intended_ns").min() == start_ns
    measured = column(out, "records/phase") == Phase.MEASURE
    assert column(out, "ranks/begin_ns").tolist() == [column(out, "records/t_start_ns")[measured].min()]
    ends = column(out, "records/t_start_ns") + column(out, "records/wall_ns")
    assert column(out, "ranks/end_ns").tolist() == [ends[measured].max()]


def test_a_run_that_measured_nothing_fails_says_so_and_leaves_its_file(kvbench: Call, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    ended = kvbench("run", "null", "--out", out, *IDLE)
    assert ended.code == 1
    assert len(ended.messages) == 1
    assert "nothing was measured" in ended.messages[0]
    assert "no request of it began" in ended.messages[0]
    assert str(out) in ended.messages[0]
    assert attributes(out)["status"] == "complete"
    found = json.loads(kvbench("summary", out, "--json").out)
    assert [(w["code"], w["message"]) for w in found["warnings"] if "nothing was measured" in w["message"]]


def test_operations_before_the_window_are_no_measurement(kvbench: Call, tmp_path: Path) -> None:
    """Everything is due in the warm-up: what is carried out in the window belongs to it."""
    out = tmp_path / "run.h5"
    late = overrides("warmup_s=0.4", "duration_s=0.05", "pacing={mode: closed}", "workload.think_time_scale=0")
    ended = kvbench("run", "null", "--out", out, *late, *overrides("workload.users=3000"))
    assert ended.code == 1
    assert not np.count_nonzero(column(out, "records/phase") == Phase.MEASURE)
    operations = len(column(out, "records/op"))
    assert operations
    assert f"{operations} operations were of requests that were due before it" in ended.messages[0]
