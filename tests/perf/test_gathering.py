"""How fast records get from the ranks into the file, and what rank 0 needs for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import Figure

from kvbench.cluster.launch.mpirun import find_mpirun, mpirun_command, mpirun_environment

Report = Callable[[Figure], None]


def _gather(out: Path, rows: int) -> dict[str, float]:
    mpirun = find_mpirun()
    program = str(Path(__file__).with_name("rank_gathers.py"))
    command = [*mpirun_command(mpirun, 2), sys.executable, program, str(out), str(rows)]
    environment = mpirun_environment(mpirun, os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def test_records_are_gathered_fast_and_in_bounded_memory(tmp_path: Path, report: Report) -> None:
    """The memory that rank 0 needs to gather four times as many records is the same."""
    rates, memory = [], []
    for _ in range(5):
        few, many = _gather(tmp_path / "few.h5", 1_000_000), _gather(tmp_path / "many.h5", 4_000_000)
        rates.append(many["rows_per_s"] / 2e6)
        memory.append(many["gathering_bytes"] / few["gathering_bytes"])
    middle = sorted(rates)[2] * 2
    report(Figure("records a second, gathered and written / 2 million", rates, ">= 1", f"{middle:.2f} million/s"))
    figure = Figure("memory to gather 4 million records / 1 million", memory, "< 1.25", "")
    report(figure)
    assert figure.ratio < 1.25
