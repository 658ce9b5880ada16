"""What the closed division refuses, naming the rule, and what a rehearsal and the open division may."""

from pathlib import Path
from typing import Any

import pytest
from sequence_harness import choices_in

from kvbench.errors import KvbenchError
from kvbench.mlperf.option_table import OPTIONS, wanted_settings
from kvbench.mlperf.rules import RULES
from kvbench.mlperf.rules.workload import DELAY_S
from kvbench.mlperf.trials.choices import Choices, check_choices


def closed(**changes: Any) -> Choices:
    as_the_rules_say: dict[str, Any] = {
        "division": "closed",
        "trials": 3,
        "delay_s": DELAY_S,
        "trial_seconds": None,
        "changes": (),
    }
    return choices_in(Path("cache"), Path("results"), **(as_the_rules_say | changes))


def test_a_sequence_as_the_rules_say_is_not_refused() -> None:
    choices = closed()
    check_choices(choices)
    assert choices.options == OPTIONS
    for option in OPTIONS:
        config = choices.config(option)
        assert config.duration_s == wanted_settings(option).duration_s
        assert config.seed == 42


@pytest.mark.parametrize(
    ("changes", "said", "rule"),
    [
        ({"changes": ("workload.users=10",)}, "--set workload.users=10", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
        ({"changes": ("model=tiny-1b",)}, "--set model=tiny-1b", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
        ({"changes": ("tiers.0.fill=1",)}, "--set tiers.0.fill=1", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
        ({"changes": ("io.max_concurrent_allocs=0",)}, "io.max_concurrent", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
        ({"changes": ("seed=7",)}, "--set seed=7", "6.3.2.1 kvcacheClosedSequenceLocks"),
        ({"changes": ("io.read_path=direct",)}, "--set io.read_path=direct", "6.6.1 kvcacheClosedImmutable"),
        ({"trials": 2}, "--trials 2, not 3", "6.3.2.1 kvcacheClosedSequenceLocks"),
        ({"delay_s": 20}, "--delay 20, not 90", "6.3.2.1 kvcacheClosedSequenceLocks"),
        ({"trial_seconds": 10.0}, "--trial-seconds 10 without --rehearsal", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
        ({"options": (1,)}, "--option 1 without --rehearsal", "6.3.1.1 kvcacheFixedWorkloadPerOption"),
    ],
)
def test_closed_refuses_every_other_setting_and_names_the_rule(changes: dict[str, Any], said: str, rule: str) -> None:
    with pytest.raises(KvbenchError) as refused:
        check_choices(closed(**changes))
    (line,) = [line for line in str(refused.value).splitlines() if line.startswith("  ")]
    assert said in line
    assert line.endswith(f": rule {rule}")


def test_all_that_is_refused_is_said_at_once() -> None:
    with pytest.raises(KvbenchError) as refused:
        check_choices(closed(changes=("seed=1", "model=tiny-1b"), trials=1, delay_s=1))
    assert str(refused.value).count(": rule ") == 4


def test_the_rules_that_are_named_are_rules_of_the_checker() -> None:
    known = {f"{rule.number} {rule.id}" for rule in RULES.values()}
    with pytest.raises(KvbenchError) as refused:
        check_choices(closed(changes=("seed=1", "model=tiny-1b", "io.io_bytes=4KiB")))
    assert {line.rpartition(": rule ")[2] for line in str(refused.value).splitlines() if ": rule " in line} <= known


def test_all_clients_have_one_cache_directory_whatever_it_is_called() -> None:
    with pytest.raises(KvbenchError, match=r"one cache directory \(rule 6\.4\.1 kvcachePosixCacheDir\)"):
        check_choices(choices_in(Path("/mnt/nv{local_rank}"), Path("results")))
    check_choices(choices_in(Path("/mnt/{mine}"), Path("results")))


def test_a_rehearsal_may_be_short_and_partial_and_nothing_else() -> None:
    check_choices(closed(rehearsal=True, trial_seconds=1.0, options=(2,), delay_s=0))
    for changes in ({"changes": ("seed=1",)}, {"trials": 2}):
        with pytest.raises(KvbenchError, match="no other setting"):
            check_choices(closed(rehearsal=True, **changes))


def test_the_open_division_may_change_what_is_a_configuration() -> None:
    check_choices(choices_in(Path("cache"), Path("results")))
    with pytest.raises(KvbenchError, match=r"unknown key workload\.userz"):
        check_choices(choices_in(Path("cache"), Path("results"), changes=("workload.userz=3",)))


@pytest.mark.parametrize(("name", "fitting"), [("My System", "My-System"), ("a/b", "a-b"), ("..", "NAME"), ("-x", "x")])
def test_names_that_cannot_be_directories_are_refused_with_one_that_can(name: str, fitting: str) -> None:
    for changes in ({"system": name}, {"submitter": name}):
        with pytest.raises(KvbenchError, match=f"use {fitting}$"):
            check_choices(closed(**changes))
