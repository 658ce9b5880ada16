"""Files beside objects, as the comparison on the test bed does it: the same work is proven, or there is no table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import SyntheticRun, record_rows, request_rows, run_attributes, run_tables

from kvbench.records.schema import Op

PROGRAM = Path(__file__).parents[2] / "launch" / "testbed" / "compare_objects.py"


def a_run(kind: str, *, seed: int = 1, more_tokens: int = 0, users: int = 8) -> SyntheticRun:
    """Reads and writes of one rank in a tier of `kind`; the last write has `more_tokens`."""
    rng = np.random.default_rng(seed)
    records = np.concatenate([record_rows(rng, 80), record_rows(rng, 40, op=Op.WRITE)])
    requests = request_rows(rng, 20)
    records["user"], records["request"] = 0, np.arange(len(records)) % len(requests)
    requests["user"] = 0
    records["tokens"][-1] += more_tokens
    config = {"name": kind, "workload": {"users": users}, "tiers": [{"kind": kind}]}
    attributes = {"config_json": json.dumps(config), "fingerprint": kind}
    return SyntheticRun(records, requests, run_attributes(1, 1, **attributes), run_tables(records, requests, 1, 1))


def compared(folder: Path, files: SyntheticRun, objects: SyntheticRun) -> "subprocess.CompletedProcess[str]":
    one, other = files.write(folder / "local-direct-1.h5"), objects.write(folder / "s3-requests-1.h5")
    words: list[str | Path] = ["--split", one, other, "--files", one, "--objects", other]
    return subprocess.run([sys.executable, PROGRAM, *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_same_operations_are_the_same_work_though_the_fingerprints_differ(tmp_path: Path) -> None:
    done = compared(tmp_path, a_run("file"), a_run("object"))
    assert done.returncode == 0, done.stderr
    assert (
        "Same work: of 1 pairs of runs, the configurations differ in tiers.0.kind alone, and all 20 requests that "
        "ended in both runs of a pair asked for the same 120 operations."
    ) in done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row[0] in ("| local", "| s3")] == ["| local", "| local", "| s3", "| s3"]
    assert [row[-1] for row in rows if row[:2] == ["| read", "GiB/s"]] == ["1 (1 to 1) |"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"more_tokens": 1}, "request 19 of rank 0 asked"),
        ({"users": 9}, "the runs did not do the same work: workload.users differ"),
    ],
    ids=["another size", "another configuration"],
)
def test_other_work_has_no_table(tmp_path: Path, other: dict[str, int], said: str) -> None:
    done = compared(tmp_path, a_run("file"), a_run("object", **other))
    assert done.returncode == 1
    assert said in done.stderr
    assert "GiB/s" not in done.stdout
