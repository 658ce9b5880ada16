"""The order of a sequence, what it records, what becomes of trials that fail, and where it may run at all."""

import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sequence_harness import Done, choices_in, leaves_in

from kvbench.cluster.agree import RunInterrupted
from kvbench.cluster.comm import SerialComm
from kvbench.errors import KvbenchError
from kvbench.mlperf.trials import measuring, surroundings
from kvbench.mlperf.trials.choices import Choices
from kvbench.mlperf.trials.measuring import run_sequence
from kvbench.mlperf.trials.sequence import TrialSequence
from kvbench.records.outputs import Written
from kvbench.records.reader import open_run
from kvbench.run import runner
from kvbench.run.order import Order
from kvbench.tiers.file.filesystem import filesystem_of

QUIET = Console(quiet=True)


def run(choices: Choices) -> Path:
    return run_sequence(SerialComm(), choices, QUIET)


def fails(*arguments: Any) -> Path:
    """In the place of a run."""
    raise KvbenchError("the drive is gone")


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
    assert done.directory.parts[-4:-1] == ("kv_cache", "custom", "run")
    assert sorted(path.name for path in done.directory.iterdir() if path.is_file() and path.name[0] != ".") == [
        f"kv_cache_{done.directory.name}_metadata.json",
        "kvbench_sequence.json",
        "summary.json",
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
    (directory,) = leaves_in(tmp_path)
    done = Done(directory, choices, "")
    first, second = trials_of(done.read("kvbench_sequence.json"))
    assert (first["status"], second["status"], second["message"]) == ("complete", "failed", "the drive is gone")
    summary = done.read("summary.json")
    assert (summary["partial_failure"], summary["options"]["1"]["trial_count"]) == (True, 1)
    assert summary["trial_failures"] == {"option_1/trial_1": "failed: the drive is gone"}
    before = {path: path.read_bytes() for path in (directory / "option_1" / "trial_0").rglob("*") if path.is_file()}

    assert run(choices) == directory
    assert len(calls) == 3, "the complete trial was not run again"
    assert {path: path.read_bytes() for path in before} == before
    first, second = trials_of(done.read("kvbench_sequence.json"))
    assert (second["status"], second["repeated"], first["repeated"]) == ("complete", True, False)
    summary = done.read("summary.json")
    assert (summary["partial_failure"], summary["options"]["1"]["missing_files"]) == (False, [])
    assert (summary["trial_failures"], second["earlier_attempts"][0]["message"]) == ({}, "the drive is gone")
    assert not list(directory.rglob("*.unfinished"))


def test_an_unfinished_sequence_of_another_commit_is_left_as_it_is_and_said_so(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = choices_in(shm, tmp_path, options=(1,), trials=1, trial_seconds=0.2)
    monkeypatch.setattr("kvbench.mlperf.trials.sequence.git_sha", lambda: "a" * 40)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "run", fails)
        with pytest.raises(KvbenchError, match="the drive is gone"):
            run(choices)
    (first,) = leaves_in(tmp_path)
    before = (first / "kvbench_sequence.json").read_bytes()
    monkeypatch.setattr("kvbench.mlperf.trials.sequence.git_sha", lambda: "b" * 40)
    heard = StringIO()
    second = run_sequence(SerialComm(), choices, Console(file=heard, width=1000))
    assert leaves_in(tmp_path) == [first, second]
    assert (first / "kvbench_sequence.json").read_bytes() == before
    why = f"git_sha is '{'b' * 40}', was '{'a' * 40}'"
    assert f"{first} is not complete, and left as it is: {why}\nbeginning {second} " in heard.getvalue()


def test_an_option_of_which_no_trial_is_complete_has_no_figures(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", fails)
    choices = choices_in(shm, tmp_path, options=(1,), trials=1)
    with pytest.raises(KvbenchError, match="the drive is gone"):
        run(choices)
    option = Done(leaves_in(tmp_path)[0], choices, "").read("summary.json")["options"]["1"]
    assert {value for key, value in option.items() if key.startswith("aggregated_")} == {None}
    assert option["missing_files"] == ["option_1/trial_0/rank_0"]


def test_a_trial_without_the_records_of_every_client_fails_and_nothing_is_summed_over_the_others(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "clients_per_node", lambda topology: 2)
    choices = choices_in(shm, tmp_path, options=(1,), trials=1, trial_seconds=0.2)
    with pytest.raises(KvbenchError, match="has records of 1 of 2 clients, and a trial counts with all or not"):
        run(choices)
    done = Done(leaves_in(tmp_path)[0], choices, "")
    assert trials_of(done.read("kvbench_sequence.json"))[0]["status"] == "failed"
    assert done.read("summary.json")["options"]["1"]["aggregated_read_bandwidth_gbps"] is None


def test_a_trial_whose_job_ended_without_a_word_is_lost_and_what_it_left_is_removed(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = choices_in(shm, tmp_path, options=(1,), trials=1, trial_seconds=0.2)
    left = []

    class Killed(BaseException):
        pass

    def is_killed(comm: object, order: Order, *others: object) -> Path:
        # In a process that ends, as the locks on it end with that.
        make = f"from kvbench.tiers.kinds import target_at; target_at({str(shm)!r}).area({order.run_id!r}, 0).create()"
        subprocess.run([sys.executable, "-c", make], check=True)
        left.append(choices.cache / f"kvbench-{order.run_id}")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run", is_killed)
        with pytest.raises(Killed):
            run(choices)
    assert left[0].is_dir()
    directory = run(choices)
    assert not left[0].exists()
    (trial,) = trials_of(Done(directory, choices, "").read("kvbench_sequence.json"))
    assert (trial["status"], trial["repeated"]) == ("complete", True)
    (attempt,) = trial["earlier_attempts"]
    assert (attempt["status"], f"kvbench-{attempt['run_id']}") == ("lost", left[0].name)
    assert trial["run_id"] != attempt["run_id"]


def test_results_of_a_trial_that_was_not_noted_as_complete_are_made_anew(shm: Path, tmp_path: Path) -> None:
    choices = choices_in(shm, tmp_path, options=(1,), trials=1, trial_seconds=0.2)
    path = run(choices) / "kvbench_sequence.json"
    first = trials_of(json.loads(path.read_text(encoding="utf-8")))[0]["run_id"]
    # As if the job had ended between the trial's getting its name and its being noted.
    sequence = json.loads(path.read_text(encoding="utf-8"))
    trials_of(sequence)[0]["status"] = "running"
    path.write_text(json.dumps(sequence), encoding="utf-8")
    directory = run(choices)
    (result,) = (directory / "option_1" / "trial_0").glob("rank_0/*.json")
    assert json.loads(result.read_text(encoding="utf-8"))["kvbench"]["run_id"] != first


@pytest.mark.parametrize(("gone_by_s", "waited_s"), [(20, 70), (100, 0), (-5, 90)])
def test_a_sequence_that_goes_on_keeps_the_delay_between_options(gone_by_s: int, waited_s: int, tmp_path: Path) -> None:
    ended = datetime.now(UTC) - timedelta(seconds=gone_by_s)
    trial = {"trial": 0, "status": "complete", "ended_at": ended.isoformat()}
    options = [
        {"option": 1, "settings": {"duration_s": 300}, "trials": [trial]},
        {"option": 2, "settings": {"duration_s": 300}, "trials": [{"trial": n, "status": "pending"} for n in (0, 1)]},
    ]
    content = {"options": options, "delay_between_options_s": 90, "delay_between_trials_s": 0}
    first, second = TrialSequence(tmp_path, content).steps()
    assert first.delay_s == pytest.approx(waited_s, abs=2)
    assert (second.delay_s, first.repeated, second.repeated) == (0, True, False)


def test_the_metadata_says_what_ran_and_nothing_that_did_not(done: Done) -> None:
    metadata = done.read("*_metadata.json")
    sequence = done.read("kvbench_sequence.json")
    assert (metadata["benchmark_type"], metadata["command"], metadata["model"]) == ("kv_cache", "run", "custom")
    assert (metadata["run_datetime"], metadata["num_processes"]) == (done.directory.name, 1)
    assert metadata["result_dir"] == str(done.directory)
    options = metadata["parameters"]["options"]
    assert {option: values["num_users"] for option, values in options.items()} == {"1": 6, "2": 6, "3": 6}
    assert options["2"]["duration"] == 0.8
    assert metadata["parameters"]["sequence"] == {
        "seed": 42,
        "trials": 2,
        "inter_option_delay_s": 0,
        "config": "default",
    }
    (host,) = metadata["system_info"]["hosts"]
    assert host["memory"]["total"] == metadata["system_info"]["total_memory_bytes"]
    assert host["system"]["kernel_version"] == sequence["nodes"][0]["kernel"]
    started, ended = (datetime.fromisoformat(metadata[f"invocation_{name}_time"]) for name in ("start", "end"))
    assert started.strftime("%Y%m%d_%H%M%S") == done.directory.name
    assert (ended - started).total_seconds() == metadata["runtime"]


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
    (directory,) = leaves_in(tmp_path)
    assert trials_of(Done(directory, choices, "").read("kvbench_sequence.json"))[0]["status"] == "interrupted"
    assert run(choices) == directory
    sequence = Done(directory, choices, "").read("kvbench_sequence.json")
    assert trials_of(sequence)[0]["status"] == "complete"
    assert [again["invocation"] for again in sequence["resumed"]] == [["kvbench", "mlperf", "run"]]


def test_a_sequence_that_asks_for_something_else_begins_anew(
    shm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", fails)
    for changes in ({"system": "one"}, {"system": "two"}, {"system": "two"}):
        with pytest.raises(KvbenchError, match="the drive is gone"):
            run(choices_in(shm, tmp_path / str(changes["system"]), options=(1,), **changes))
    assert [len(leaves_in(tmp_path / name)) for name in ("one", "two")] == [1, 1]
    with pytest.raises(KvbenchError, match="the drive is gone"):
        run(choices_in(shm, tmp_path / "one", options=(1,), system="one", trial_seconds=0.3))
    sequences = [Done(path, choices_in(shm, tmp_path), "") for path in leaves_in(tmp_path / "one")]
    durations = [each.read("kvbench_sequence.json")["options"][0]["settings"]["duration_s"] for each in sequences]
    assert sorted(durations) == [0.3, 0.8]


def test_cache_and_results_on_one_filesystem_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with pytest.raises(KvbenchError, match=r"rule 6\.4\.1 kvcachePosixCacheDir wants them on different filesystems"):
        run(choices_in(tmp_path / "cache", tmp_path / "results"))
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "results" / "kv_cache").exists()
