"""A kind of tier, a policy, a format of traces and a command are each one short file, and work without touching any
other."""

import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from kvbench_analysis import load
from test_policies import PolicyContract
from test_tier_contract import TierContract

from kvbench.cache import Policy
from kvbench.tiers.contract import Tier

PLUGINS = Path(__file__).parent / "plugins"
MOST_LINES = {"zip_tier": 60, "policy": 30, "trace_format": 20, "command": 15}

Kvbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_plugin_is_short(name: str) -> None:
    assert len((PLUGINS / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES[name]


def test_a_command_is_listed_called_and_explained(kvbench_with: Kvbench) -> None:
    assert "greet     Say hello to NAME." in kvbench_with("command", "--help").stdout
    assert kvbench_with("command", "greet", "you").stdout == "hello you\n"
    assert "Usage: kvbench greet [OPTIONS] NAME" in kvbench_with("command", "greet", "--help").stdout
    assert "Did you mean 'greet'?" in kvbench_with("command", "great").stderr


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Requests at 0, 10, 20 ms and so on, with a line that is none."""
    path = tmp_path / "trace"
    lines = [f"{number / 100} {512 * (1 + number % 3)} 8" for number in range(20)]
    path.write_text("\n".join([*lines[:7], "not a request", *lines[7:]]), encoding="utf-8")
    return path


def test_a_format_of_traces_is_recognised_read_and_complained_about(kvbench_with: Kvbench, trace: Path) -> None:
    told = kvbench_with("trace_format", "trace", "info", trace, "--skip-bad-lines").stdout
    assert {"format": "numbers", "requests": "20"}.items() <= {
        line.split()[0]: line.split()[-1] for line in told.splitlines()
    }.items()
    refused = kvbench_with("trace_format", "trace", "info", trace)
    assert refused.returncode == 1
    assert "line 8: expected SECONDS CONTEXT OUTPUT" in refused.stderr
    unknown = trace.with_name("other")
    unknown.write_text("one line of something else", encoding="utf-8")
    assert "three numbers" in kvbench_with("trace_format", "trace", "info", unknown).stderr


def test_a_trace_of_a_new_format_is_replayed(kvbench_with: Kvbench, trace: Path, tmp_path: Path) -> None:
    settings = ["workload.kind=trace", f"workload.path={trace}", "workload.format=numbers", "pacing.mode=asap"]
    config = tmp_path / "replay.yaml"
    config.write_text(
        f"workload: {{kind: trace, path: {trace}, format: numbers, skip_bad_lines: true}}\n"
        "pacing: {mode: asap}\ntiers: [{kind: 'null', capacity_bytes: 1GiB}]\n"
        "model: llama3.1-8b\ncalibration: {seconds: 0}\nio: {threads: 2, arena_bytes: 8MiB}\n",
        encoding="utf-8",
    )
    done = kvbench_with("trace_format", "run", config, "--out", tmp_path / "run.h5", "--no-spill")
    assert done.returncode == 0, done.stderr + str(settings)
    assert len(load(tmp_path / "run.h5").requests) == 20
    wrong = kvbench_with("trace_format", "datasize", config, "--set", "workload.format=numbrs")
    assert "did you mean numbers?" in wrong.stderr


def test_a_run_on_a_new_kind_of_tier_is_verified_and_leaves_nothing(kvbench_with: Kvbench, tmp_path: Path) -> None:
    directory = tmp_path / "under test"
    directory.mkdir()
    settings = ["tiers.1.kind=zip", "tiers.1.capacity_bytes=64MiB", "payload.verify=full"]
    words = ["--dir", directory, "--out", tmp_path / "run.h5", "--no-spill"]
    done = kvbench_with("zip_tier", "run", "smoke", *words, *(word for one in settings for word in ("--set", one)))
    assert done.returncode == 0, done.stderr
    run = load(tmp_path / "run.h5")
    assert dict(zip(run.tiers["kind"], run.tiers["storage"], strict=True)) == {"memory": False, "zip": True}
    assert run.ranks["verified_sectors"].sum() > 0
    assert list(run.nodes["directory"]) == [str(directory)]
    rows = run.records[run.records["tier"] == "zip"]
    assert set(rows["op"]) >= {"demote", "read", "delete"}
    assert (rows["errno"] == 0).all()
    assert (rows["timed_by"] == "python").all()
    assert np.array_equal(rows["device_ns"] + rows["host_ns"] + rows["runq_ns"], rows["wall_ns"])
    assert list(directory.iterdir()) == []


def test_a_new_kind_of_tier_is_offered_and_refused_what_it_cannot_do(kvbench_with: Kvbench) -> None:
    unknown = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.1.kind=zap")
    assert "expected one of memory, file, null, zip" in unknown.stderr
    above = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.0.kind=zip")
    assert "storage must be the last tier" in above.stderr
    shared = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.1.kind=zip", "--set", "namespace=shared")
    assert "shared needs a file tier" in shared.stderr
    nowhere = kvbench_with("zip_tier", "run", "smoke", "--set", "tiers.1.kind=zip")
    assert "has a zip tier: give the directory under test with --dir" in nowhere.stderr


class TestZipTier(TierContract):
    """What every tier must do, for objects in a zip file."""

    @pytest.fixture
    def tier(self, tmp_path: Path, new_in_tables: None) -> Iterator[Tier]:
        tier = import_module("zip_tier").ZipTier(str(tmp_path / "objects.zip"))
        yield tier
        tier.close()


@pytest.mark.usefixtures("new_in_tables")
class TestLargestFirst(PolicyContract):
    """What every policy must do, for the one that has the largest leave first."""

    def make(self) -> Policy:
        made: Policy = import_module("policy").LargestFirst()
        return made


def test_a_run_with_a_new_policy_evicts_as_it_says(kvbench_with: Kvbench, tmp_path: Path) -> None:
    directory = tmp_path / "under test"
    directory.mkdir()
    words = ["--dir", directory, "--out", tmp_path / "run.h5", "--no-spill", "--set", "cache.policy=largest-first"]
    done = kvbench_with("policy", "run", "smoke", *words, "--set", "payload.verify=full")
    assert done.returncode == 0, done.stderr
    run = load(tmp_path / "run.h5")
    assert run.config["cache"]["policy"] == "largest-first"
    moved = run.records.groupby("op", observed=True)["nbytes"]
    assert moved.min()["demote"] == moved.max()["write"], "blocks that are full leave before those that are not"
    assert moved.size()["read"] > 0
    assert (run.records["errno"] == 0).all()
    wrong = kvbench_with("policy", "datasize", "smoke", "--set", "cache.policy=largest-frist")
    assert "expected one of waterfall-lru, largest-first" in wrong.stderr
    assert "did you mean largest-first?" in wrong.stderr
