"""A sequence of MLPerf trials over two nodes that share a GlusterFS volume: one node lost in the middle, and gone on
with; then the tree of it, which is checked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kvbench_command import KVBENCH, Command, Ended
from node_bed import NodeBed

pytestmark = pytest.mark.slow

TRIAL_S = 3
LOST = (2, 0)
"""The option and the trial that are running when the node is lost."""
CHANGES = (
    "model={layers: 1, kv_heads: 1, head_dim: 64}",
    "workload.users=6",
    "io.threads=6",
    "io.arena_bytes=24MiB",
    "calibration.seconds=0",
    "tiers.0.capacity_bytes=8MiB",
)
"""So small that some seconds are enough for reads from storage, also in option 2."""


@pytest.fixture
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rank 0 writes: nodes have /tmp in common with this machine, and not /dev/shm."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def begin(bed: NodeBed, results: Path) -> Callable[[], Command]:
    """Start the sequence: two options, two trials each, on 2 x 2 clients."""

    def start() -> Command:
        words: list[object] = [
            *KVBENCH,
            "mlperf",
            "run",
            "--division",
            "open",
            "--system",
            "bed",
            "--submitter",
            "Example",
        ]
        words += ["--dir", bed.shared, "--results", results, "--ranks", 4, "--hostfile", bed.hostfile]
        words += ["--option", 1, "--option", 2, "--trials", 2, "--trial-seconds", TRIAL_S, "--delay", 3]
        words += [word for change in CHANGES for word in ("--set", change)]
        return Command(words, bed.environment, timeout_s=150)

    return start


def sequence_in(results: Path) -> dict[str, Any]:
    """The content of the sequence's file; {} where there is none yet."""
    found = list(results.glob("kv_cache/*/run/*/kvbench_sequence.json"))
    content: dict[str, Any] = json.loads(found[0].read_text(encoding="utf-8")) if found else {}
    return content


def trial_of(results: Path, option: int, trial: int) -> dict[str, Any]:
    for told in sequence_in(results).get("options", ()):
        if told["option"] == option:
            found: dict[str, Any] = told["trials"][trial]
            return found
    return {}


def call(*words: object) -> Ended:
    """A kvbench command to its end."""
    return Command([*KVBENCH, *words], {}, timeout_s=60).ended()


def test_a_node_lost_in_the_middle_costs_the_trial_that_ran_and_the_tree_is_sound(
    begin: Callable[[], Command], bed: NodeBed, results: Path
) -> None:
    first = begin()
    try:
        first.wait_for(lambda: trial_of(results, *LOST).get("status") == "running")
        run_id = trial_of(results, *LOST)["run_id"]
        first.wait_for(lambda: f"kvbench-{run_id}" in bed.files(1, bed.shared))
        bed.call("kill", 2)
        ended = first.ended()
    finally:
        first.kill()
    bed.call("start", 2)
    assert ended.code != 0
    assert f"{bed.name}-n2" in ended.err or f"{bed.subnet}.2" in ended.err
    (leaf,) = results.glob("kv_cache/*/run/*")
    assert ended.messages[-1] == f"kvbench: the same command goes on with {leaf}, without what is complete"
    summary = json.loads((leaf / "summary.json").read_text(encoding="utf-8"))
    assert summary["options"]["1"]["partial_failure"] is False
    assert summary["options"]["2"]["aggregated_read_bandwidth_gbps"] is None, "nothing is summed over survivors"
    kept = {path: path.read_bytes() for path in (leaf / "option_1").rglob("*") if path.is_file()}

    second = begin()
    try:
        ended = second.ended()
    finally:
        second.kill()
    assert ended.code == 0, ended.err
    assert f"going on with {leaf}" in ended.out
    assert {path: path.read_bytes() for path in kept} == kept, "complete trials are left as they are"
    again = trial_of(results, *LOST)
    (attempt,) = again["earlier_attempts"]
    assert (again["status"], again["repeated"], attempt["status"], attempt["run_id"]) == (
        "complete",
        True,
        "lost",
        run_id,
    )
    assert bed.files(1, bed.shared) == [], "what the lost trial left is gone"
    summary = json.loads((leaf / "summary.json").read_text(encoding="utf-8"))
    assert (summary["partial_failure"], summary["trial_failures"]) == (False, {})
    assert (summary["npernode"], summary["host_count"], summary["total_ranks"]) == (2, 2, 4)

    tree = results / "tree"
    packaged = call("mlperf", "package", results, "-o", tree)
    assert packaged.code == 0, packaged.err
    checked = call("mlperf", "check", tree / "Example")
    assert checked.code == 0, checked.out
    (audited,) = json.loads(call("mlperf", "audit", tree / "Example", "--json").out)
    found = {finding["kind"]: finding["what"] for finding in audited["findings"]}
    assert found.pop("dropped-runs") == "option 2: trial 0 was carried out 2 times, before this: lost"
    assert not set(found) & {"outlived-trial", "lost-ranks", "delay", "preloaded-library", "hosts", "twin-leaf"}
