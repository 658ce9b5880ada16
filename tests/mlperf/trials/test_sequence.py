"""The order of a sequence, what it records, what becomes of trials that fail, and where it may run at all."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sequence_harness import Done, choices_in

from kvbench.cluster.agree import RunInterrupted
from kvbench.cluster.comm import SerialComm
from kvbench.errors import KvbenchError
from kvbench.mlperf.trials import surroundings
from kvbench.mlperf.trials.choices import Choices
from kvbench.mlperf.trials.measuring import run_sequence
from kvbench.records.outputs import Written
from kvbench.records.reader import open_run
from kvbench.run import runner
from kvbench.tiers.file.filesystem import filesystem_of

QUIET = Console(quiet=True)


def run(choices: Choices) -> Path:
    return run_sequence(SerialComm(), choices, QUIET)


def trials_of(sequence: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for option in sequence["options"] for trial in option["trials"]]


def test_options_and_trials_come_in_their_order_one_after_the_other(done: Done) -> None:
    sequence = done.read("kvbench_sequence.json")
    assert [option["option"] for option in sequence["options"]] == [1, 2, 3]
    trials = trials_of(sequence)
    assert [trial["trial"] for trial in trials] == [0, 1] * 3
    times = [trial[key] for trial in trials for key in ("started_at", "ended_at")]
    assert times == sorted(times)
    assert {trial["status"] for trial in trials} == {"complete"}
    assert not any(trial["repeated"] for trial in trials)


def test_the_sequence_records_what_was_asked_for_and_where_it_ran(done: Done) -> None:
    sequence = done.read("kvbench_sequence.json")
    assert sequence["format"] == "kvbench-mlperf-sequence"
    assert (sequence["division"], sequence["system"], sequence["submitter"]) == ("open", "box", "Example")
    assert sequence["invocation"] == ["kvbench", "mlperf", "run"]
    assert (sequence["npernode"], sequence["total_ranks"], sequence["hosts"]) == (1, 1, [socket.gethostname()])
    assert sequence["seed"] == 42
    assert (sequence["autoscaling"], sequence["config_file"], sequence["rehearsal"]) == (False, None, False)
    settings = sequence["options"][1]["settings"]
    assert settings["users"] == 6
    assert settings["duration_s"] == 0.8
    (place,) = sequence["filesystems"]
    assert place["cache"]["type"] == "tmpfs"
    assert place["cache"]["mount_point"] == "/dev/shm"
    assert place["results"]["device"] == filesystem_of(done.directory).device
    assert sequence["nodes"][0]["host"] == socket.gethostname()
    assert (sequence["page_cache_dropped"], sequence["cache_emptied"]) == (True, True)


def test_a_trial_is_a_run_of_its_own_and_the_same_work_as_the_others_of_its_option(done: Done) -> None:
    sequence = done.read("kvbench_sequence.json")
    assert len({trial["run_id"] for trial in trials_of(sequence)}) == 6
    for option in sequence["options"]:
        assert len({trial["fingerprint"] for trial in option["trials"]}) == 1
        for trial in option["trials"]:
            path = done.directory / f"option_{option['option']}" / f"trial_{trial['trial']}" / "kvbench_run.h5"
            assert open_run(path).attributes["run_id"] == trial["run_id"]


def test_each_rank_has_its_own_cache_directory_which_is_gone_afterwards(done: Done) -> None:
    kept = done.read("option_1", "trial_0", "rank_0", "kvcache_results_*.json")["kvbench"]
    run_id = done.read("kvbench_sequence.json")["options"][0]["trials"][0]["run_id"]
    assert kept["cache_directory"] == str(done.choices.cache / f"kvbench-{run_id}" / "rank-0")
    assert list(done.choices.cache.iterdir()) == []
    assert (kept["users"], kept["max_concurrent_allocs"], kept["rehearsal"]) == (6, 16, False)


def test_names_carry_times_as_the_rules_write_them(done: Done) -> None:
    stamp = r"\d{8}_\d{6}"
    assert re.fullmatch(stamp, done.directory.name)
    assert [path.name for path in done.directory.glob("kvcache_run_summary_*")] == [
        f"kvcache_run_summary_{done.directory.name}.json"
    ]
    results = list(done.directory.glob("option_*/trial_*/rank_*/*"))
    assert len(results) == 6
    assert all(re.fullmatch(rf"kvcache_results_{stamp}\.json", path.name) for path in results)


def test_progress_says_option_trial_and_the_time_left_in_the_whole_sequence(done: Done) -> None:
    headings = re.findall(r"^option (\d), trial (\d) of 2, (\d+) s left in the sequence$", done.said, re.MULTILINE)
    assert [(option, trial) for option, trial, _ in headings] == [(o, t) for o in "123" for t in "12"]
    left = [int(seconds) for *_, seconds in headings]
    assert left[-1] < left[0]


def test_the_page_cache_is_dropped_before_every_trial_where_that_is_allowed(done: Done, drop_switch: Path) -> None:
    assert drop_switch.read_text(encoding="ascii") == "1"
    sequence = done.read("kvbench_sequence.json")
    assert all(trial["page_cache_dropped"] for trial in trials_of(sequence))
    assert sequence["page_cache_dropped_between_trials"] is True


def test_a_node_that_does_not_let_us_drop_it_is_recorded(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "DROP_CACHES", tmp_path / "nowhere" / "drop_caches")
    directory = run(choices_in(shm, tmp_path / "results", options=(1,), trials=1, trial_seconds=0.2))
    sequence = Done(directory, choices_in(shm, tmp_path), "").read("kvbench_sequence.json")
    assert sequence["page_cache_dropped_between_trials"] is False
    assert sequence["page_cache_dropped"] is True, "every file, before it is read"


def test_a_failed_trial_is_repeated_alone_and_a_complete_one_is_left_as_it_is(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = choices_in(shm, tmp_path, options=(1,), trial_seconds=0.2)
    really, calls = runner.run, []

    def fails_once(*arguments: Any) -> Written:
        calls.append(arguments)
        if len(calls) == 2:
            raise KvbenchError("the drive is gone")
        return really(*arguments)

    monkeypatch.setattr(runner, "run", fails_once)
    with pytest.raises(KvbenchError, match=r"option 1, trial 2 of 2: the drive is gone\nThe same command goes on with"):
        run(choices)
    (directory,) = (tmp_path / "kv_cache").iterdir()
    done = Done(directory, choices, "")
    first, second = trials_of(done.read("kvbench_sequence.json"))
    assert (first["status"], second["status"], second["message"]) == ("complete", "failed", "the drive is gone")
    assert done.read("kvcache_run_summary_*.json")["partial_failure"] is True
    before = {path: path.read_bytes() for path in (directory / "option_1" / "trial_0").rglob("*") if path.is_file()}

    assert run(choices) == directory
    assert len(calls) == 3, "the complete trial was not run again"
    assert {path: path.read_bytes() for path in before} == before
    first, second = trials_of(done.read("kvbench_sequence.json"))
    assert (second["status"], second["repeated"], first["repeated"]) == ("complete", True, False)
    summary = done.read("kvcache_run_summary_*.json")
    assert (summary["partial_failure"], summary["options"]["1"]["missing_files"]) == (False, [])
    assert not list(directory.rglob("*.unfinished"))


def test_an_interrupted_trial_says_so_and_the_next_start_goes_on(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = choices_in(shm, tmp_path, options=(1,), trials=1, trial_seconds=0.2)
    with monkeypatch.context() as patch:

        def interrupted(*arguments: Any) -> Path:
            raise RunInterrupted("interrupted")

        patch.setattr(runner, "run", interrupted)
        with pytest.raises(KvbenchError, match="interrupted"):
            run(choices)
    (directory,) = (tmp_path / "kv_cache").iterdir()
    assert trials_of(Done(directory, choices, "").read("kvbench_sequence.json"))[0]["status"] == "interrupted"
    assert run(choices) == directory
    sequence = Done(directory, choices, "").read("kvbench_sequence.json")
    assert trials_of(sequence)[0]["status"] == "complete"
    assert [again["invocation"] for again in sequence["resumed"]] == [["kvbench", "mlperf", "run"]]


def test_a_sequence_that_asks_for_something_else_begins_anew(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Path:
        raise KvbenchError("the drive is gone")

    monkeypatch.setattr(runner, "run", fails)
    for changes in ({"system": "one"}, {"system": "two"}, {"system": "two"}):
        with pytest.raises(KvbenchError, match="the drive is gone"):
            run(choices_in(shm, tmp_path / str(changes["system"]), options=(1,), **changes))
    assert [len(list((tmp_path / name / "kv_cache").iterdir())) for name in ("one", "two")] == [1, 1]
    with pytest.raises(KvbenchError, match="the drive is gone"):
        run(choices_in(shm, tmp_path / "one", options=(1,), system="one", trial_seconds=0.3))
    sequences = [Done(path, choices_in(shm, tmp_path), "") for path in (tmp_path / "one" / "kv_cache").iterdir()]
    durations = [each.read("kvbench_sequence.json")["options"][0]["settings"]["duration_s"] for each in sequences]
    assert sorted(durations) == [0.3, 0.8]


def test_cache_and_results_on_one_filesystem_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with pytest.raises(KvbenchError, match=r"rule 6\.4\.1 kvcachePosixCacheDir wants them on different filesystems"):
        run(choices_in(tmp_path / "cache", tmp_path / "results"))
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "results" / "kv_cache").exists()
