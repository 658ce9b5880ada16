"""Whatever a run is at when it is asked to end: it ends, says so, and leaves nothing but what was measured."""

import pkgutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kvbench_command import QUICK, Ended, attributes, column, overrides, remains

from kvbench.records.schema import Phase

Call = Callable[..., Ended]


@pytest.fixture
def interrupted(
    kvbench: Call, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, spills: Path
) -> Callable[..., Ended]:
    """Run `smoke` with further settings, and have a signal come while a function is called, `module.name` or
    `module:class.name`."""

    def call(where: str, *settings: str) -> Ended:
        path, _, name = where.rpartition(".")
        owner = pkgutil.resolve_name(path)
        function = getattr(owner, name)

        def asked(*positional: Any, **named: Any) -> Any:
            monkeypatch.setattr(owner, name, function)
            signal.raise_signal(signal.SIGINT)
            return function(*positional, **named)

        monkeypatch.setattr(owner, name, asked)
        words = ("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", "--spill", spills)
        return kvbench(*words, *overrides(*QUICK, *settings))

    return call


@pytest.mark.parametrize(
    ("where", "phase"),
    [
        ("kvbench.run.order.load_config", "plan"),
        ("kvbench.run.order.build_schedule", "plan"),
        ("kvbench.run.output.run_file.open_output", "check"),
        ("kvbench.run.checks.surroundings.place_group", "check"),
        ("kvbench.run.checks.sizes.forecast_demand", "check"),
        ("kvbench.run.bench.make_arena", "check"),
        ("kvbench.run.bench.check_paths", "check"),
        ("kvbench.run.bench.open_spill", "check"),
        ("kvbench.engine.engine:Engine.prepare", "set up"),
    ],
)
def test_before_the_load_a_run_ends_in_the_phase_it_is_in_and_leaves_nothing(
    interrupted: Callable[..., Ended], folder: Path, tmp_path: Path, spills: Path, where: str, phase: str
) -> None:
    ended = interrupted(where)
    assert (ended.code, ended.messages) == (1, [f"kvbench: interrupted during {phase}"])
    assert remains(folder) == []
    assert remains(spills) == []
    assert remains(tmp_path) == [folder.name]


@pytest.mark.parametrize(
    "figure",
    [
        "bench.memory_copy_gib_per_s",
        "calibration:CalibrationObject.write",
        "calibration:CalibrationObject.read_gib_per_s",
    ],
)
def test_a_calibration_of_many_minutes_ends_at_once_and_leaves_nothing(
    interrupted: Callable[..., Ended], folder: Path, tmp_path: Path, spills: Path, figure: str
) -> None:
    # The first figure is over when another one is asked for.
    seconds = 60 if figure == "bench.memory_copy_gib_per_s" else 0.001
    ended = interrupted(f"kvbench.run.{figure}", f"calibration.seconds={seconds}")
    assert (ended.code, ended.messages) == (1, ["kvbench: interrupted during calibrate"])
    assert remains(folder) == []
    assert remains(spills) == []
    assert remains(tmp_path) == [folder.name]


def test_what_was_filled_in_before_a_load_that_never_began_is_in_the_spill_file(
    interrupted: Callable[..., Ended], folder: Path, tmp_path: Path, spills: Path
) -> None:
    ended = interrupted("kvbench.run.runner._set_up", "workload.mode=decode")
    (message,) = ended.messages
    assert message.startswith("kvbench: interrupted during set up\n  the records of each rank are still in ")
    assert remains(folder) == []
    assert len(remains(spills)) == 1
    assert remains(tmp_path) == [folder.name]


@pytest.mark.parametrize("settings", [(), ("workload.mode=decode",)])
def test_in_the_load_and_in_the_filling_before_it_what_was_done_is_in_the_run_file(
    interrupted: Callable[..., Ended], folder: Path, tmp_path: Path, spills: Path, settings: tuple[str, ...]
) -> None:
    ended = interrupted("kvbench.engine.engine:Load.begin", "duration_s=600", *settings)
    assert (ended.code, ended.messages) == (1, ["kvbench: interrupted"])
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    if settings:
        assert not (column(tmp_path / "run.h5", "records/phase") == Phase.MEASURE).any()
    assert remains(folder) == []
    assert remains(spills) == []


@pytest.mark.parametrize(
    "where",
    [
        "kvbench.run.runner.gather_outcome",
        "kvbench.run.outcome.write_tables",
        "kvbench.run.runner.discard",
        "kvbench.tiers.file.run_directory:RunDirectory.remove",
    ],
)
def test_after_the_load_the_run_file_becomes_complete_and_the_run_still_ends_as_interrupted(
    interrupted: Callable[..., Ended], folder: Path, tmp_path: Path, spills: Path, where: str
) -> None:
    ended = interrupted(where)
    run_file = tmp_path / "run.h5"
    message = f"kvbench: interrupted, after all was measured: {run_file} is complete"
    assert (ended.code, ended.messages) == (1, [message])
    assert attributes(run_file)["status"] == "complete"
    assert remains(folder) == []
    assert remains(spills) == []
