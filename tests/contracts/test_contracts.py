"""A kind of tier, a policy, a format of traces and a command are each one short file, and work without touching any
other."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from kvbench_analysis import load
from test_policies import PolicyContract
from tier_contract import TierContract

from kvbench.cache import Policy
from kvbench.tiers.contract import Tier
from kvbench.units import SECTOR_BYTES

PLUGINS = Path(__file__).parent / "plugins"
MOST_LINES = {"zip_tier": 60, "policy": 30, "trace_format": 20, "command": 15}

Kvbench = Callable[..., Result]


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_plugin_is_short(name: str) -> None:
    assert len((PLUGINS / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= MOST_LINES[name]


def test_a_command_is_listed_called_and_explained(kvbench_with: Kvbench) -> None:
    assert "greet     Say hello to NAME." in kvbench_with("command", "--help").stdout
    assert kvbench_with("command", "greet", "you").stdout == "hello you\n"
    assert "Usage: kvbench greet [OPTIONS] NAME" in kvbench_with("command", "greet", "--help").stdout
    assert "Did you mean 'greet'?" in kvbench_with("command", "great").stderr


GEOMETRY = "{layers: 1, kv_heads: 1, head_dim: 1024, dtype: fp8}"
"""2 KiB a token, 1 MiB a block of 512."""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Requests at 0, 10, 20 ms and so on, with a line that is none."""
    path = tmp_path / "trace"
    lines = [f"{number / 100} {512 * (1 + number % 3)} 8" for number in range(20)]
    path.write_text("\n".join([*lines[:7], "not a request", *lines[7:]]), encoding="utf-8")
    return path


@pytest.fixture
def replay(tmp_path: Path) -> Path:
    """The configuration of a run that ends with its trace: 60 requests, each with one of four beginnings, whose blocks
    find room in memory for a while, then in a file tier, then nowhere."""
    lines = [
        {
            "timestamp": number,
            "input_length": 512 * 8 - number % 100,
            "output_length": 8,
            "hash_ids": [*range(100 * (number % 4), 100 * (number % 4) + 5), *range(1000 * number, 1000 * number + 3)],
        }
        for number in range(1, 61)
    ]
    (tmp_path / "replayed.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    config = tmp_path / "replay.yaml"
    config.write_text(
        f"""
workload: {{kind: trace, path: replayed.jsonl, serving: reference}}
pacing: {{mode: asap}}
model: {GEOMETRY}
cache: {{layout: block, block_tokens: 512}}
tiers: [{{kind: memory, capacity_bytes: 8MiB}}, {{kind: file, capacity_bytes: 24MiB}}]
io: {{threads: 2, arena_bytes: 8MiB}}
payload: {{verify: full}}
calibration: {{seconds: 0}}
duration_s: null
""",
        encoding="utf-8",
    )
    return config


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory under test."""
    made = tmp_path / "under test"
    made.mkdir()
    return made


def test_a_format_of_traces_is_recognised_read_and_complained_about(kvbench_with: Kvbench, trace: Path) -> None:
    told = kvbench_with("trace_format", "trace", "info", trace, "--skip-bad-lines").stdout
    assert {"format": "numbers", "requests": "20"}.items() <= {
        line.split()[0]: line.split()[-1] for line in told.splitlines()
    }.items()
    refused = kvbench_with("trace_format", "trace", "info", trace)
    assert refused.exit_code == 1
    assert "line 8: expected SECONDS CONTEXT OUTPUT" in refused.stderr
    unknown = trace.with_name("other")
    unknown.write_text("one line of something else", encoding="utf-8")
    assert "three numbers" in kvbench_with("trace_format", "trace", "info", unknown).stderr


def test_a_trace_of_a_new_format_is_replayed(kvbench_with: Kvbench, trace: Path, tmp_path: Path) -> None:
    config = tmp_path / "replay.yaml"
    config.write_text(
        f"workload: {{kind: trace, path: {trace}, format: numbers, skip_bad_lines: true}}\n"
        f"pacing: {{mode: asap}}\nmodel: {GEOMETRY}\ntiers: [{{kind: 'null', capacity_bytes: 1GiB}}]\n"
        "calibration: {seconds: 0}\nio: {threads: 2, arena_bytes: 8MiB}\nduration_s: null\n",
        encoding="utf-8",
    )
    done = kvbench_with("trace_format", "run", config, "--out", tmp_path / "run.h5", "--no-spill")
    assert done.exit_code == 0, done.stderr
    assert len(load(tmp_path / "run.h5").requests) == 20
    wrong = kvbench_with("trace_format", "datasize", config, "--set", "workload.format=numbrs")
    assert "did you mean numbers?" in wrong.stderr


def test_a_run_on_a_new_kind_of_tier_is_verified_and_leaves_nothing(
    kvbench_with: Kvbench, replay: Path, directory: Path, tmp_path: Path
) -> None:
    words = ["--dir", directory, "--out", tmp_path / "run.h5", "--no-spill", "--set", "tiers.1.kind=zip"]
    done = kvbench_with("zip_tier", "run", replay, *words)
    assert done.exit_code == 0, done.stderr
    run = load(tmp_path / "run.h5")
    assert dict(zip(run.tiers["kind"], run.tiers["storage"], strict=True)) == {"memory": False, "zip": True}
    assert list(run.nodes["directory"]) == [str(directory)]
    rows = run.records[run.records["tier"] == "zip"]
    assert set(rows["op"]) == {"demote", "read", "delete"}
    read = rows.loc[rows["op"] == "read", "nbytes"].sum()
    assert read > 0
    assert run.ranks["verified_sectors"].sum() >= read // SECTOR_BYTES
    assert (rows["errno"] == 0).all()
    assert (rows["timed_by"] == "python").all()
    assert np.array_equal(rows["device_ns"] + rows["host_ns"] + rows["runq_ns"], rows["wall_ns"])
    assert list(directory.iterdir()) == []


def test_a_new_kind_of_tier_is_offered_and_refused_what_it_cannot_do(kvbench_with: Kvbench) -> None:
    unknown = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.1.kind=zap")
    assert "expected one of memory, gpu, file, object, null, zip" in unknown.stderr
    above = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.0.kind=zip")
    assert "storage must be the last tier" in above.stderr
    shared = kvbench_with("zip_tier", "datasize", "smoke", "--set", "tiers.1.kind=zip", "--set", "namespace=shared")
    assert "shared needs a file tier" in shared.stderr
    nowhere = kvbench_with("zip_tier", "run", "smoke", "--set", "tiers.1.kind=zip")
    assert "has a zip tier: give the directory under test with --dir" in nowhere.stderr


class TestZipTier(TierContract):
    """What every tier must do, for objects in a zip file."""

    @pytest.fixture
    def tier(self, tmp_path: Path, plugged: Callable[[str], Any]) -> Iterator[Tier]:
        tier: Tier = plugged("zip_tier").ZipTier(str(tmp_path / "objects.zip"))
        yield tier
        tier.close()


class TestLargestFirst(PolicyContract):
    """What every policy must do, for the one that has the largest leave first."""

    @pytest.fixture(autouse=True)
    def _plug(self, plugged: Callable[[str], Any]) -> None:
        self._policy = plugged("policy").LargestFirst

    def make(self) -> Policy:
        made: Policy = self._policy()
        return made


@pytest.mark.slow
def test_a_run_with_a_new_policy_evicts_as_it_says(
    kvbench_with: Kvbench, replay: Path, directory: Path, tmp_path: Path
) -> None:
    words = ["--dir", directory, "--out", tmp_path / "run.h5", "--no-spill", "--set", "cache.policy=largest-first"]
    done = kvbench_with("policy", "run", replay, *words)
    assert done.exit_code == 0, done.stderr
    run = load(tmp_path / "run.h5")
    assert run.config["cache"]["policy"] == "largest-first"
    full = run.records["nbytes"] == run.records["nbytes"].max()
    share = full.groupby(run.records["op"], observed=True).mean()
    assert 0.8 < share["write"] < share["demote"], "blocks that are full leave before those that are not"
    assert (run.records["errno"] == 0).all()
    wrong = kvbench_with("policy", "datasize", replay, "--set", "cache.policy=largest-frist")
    assert "waterfall-lru, largest-first (given" in wrong.stderr
    assert "did you mean largest-first?" in wrong.stderr
