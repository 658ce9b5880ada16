"""The formulas in docs/scale.md are what a run really sends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvbench.cluster.launch.mpirun import Mpirun

pytestmark = pytest.mark.slow

COSTS = Path(__file__).resolve().parents[1] / "perf" / "costs.py"


def test_every_collective_step_costs_what_its_formula_says(mpirun: Mpirun) -> None:
    """Four ranks on two nodes; the program ends with 1 where a count differs."""
    command = [sys.executable, str(COSTS), "--ranks", "4", "--seconds", "1", "--run", "0", "--records", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| made-up rows by nodes")]
    assert rows[0].split("|")[2:5] == [" messages at rank 0 ", " (L - 1) k + (N - 1) K ", " 2 "]
    assert "not" not in done.stdout
