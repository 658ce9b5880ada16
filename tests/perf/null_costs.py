"""What an operation costs kvbench itself, of two kvbench commands beside each other: operations per second of processor
time, of `run null` as fast as it can.

    python tests/perf/null_costs.py OTHER/.venv/bin/kvbench .venv/bin/kvbench

The tier `null` moves nothing: what is left is decisions, hand-overs, the stopwatch and records. The two take turns, so
that whatever else the machine does meets both. Counted is what lies between two readings of the processor time of all
processes of a run, well inside its load: neither the start of Python nor the run file.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import hdf5plugin  # noqa: F401 - the records are compressed with it
import numpy as np
import psutil

_POLL_S: Final = 0.1
_MARGIN_S: Final = 0.5
"""At both ends of the load: some threads begin, and some end, beside the first and the last operation."""
_USUAL: Final = ("pacing={mode: asap}", "records=full")


def main() -> int:
    """Print a line for each pair, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a kvbench command")
    parser.add_argument("after", type=Path, help="another")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the load of a run")
    parser.add_argument("--config", default="null", help="of both: a configuration with a null tier")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for both, as of kvbench run")
    parser.add_argument("--at-least", type=float, default=1.0, help="the ratio below which the exit code is 1")
    choices = parser.parse_args()
    print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}\n", flush=True)
    print("| pair | before, operations per processor second | after | ratio |\n|---|---|---|---|", flush=True)
    ratios = []
    for pair in range(choices.pairs):
        before = operations_per_processor_s(choices.before, choices.config, choices.seconds, choices.set)
        after = operations_per_processor_s(choices.after, choices.config, choices.seconds, choices.set)
        ratios.append(after / before)
        print(f"| {pair + 1} | {before:,.0f} | {after:,.0f} | {ratios[-1]:.2f} |".replace(",", " "), flush=True)
    ratio = statistics.median(ratios)
    print(f"\nmedian ratio {ratio:.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
    return 0 if ratio >= choices.at_least else 1


def operations_per_processor_s(
    command: Path, config: str, seconds: float, settings: Sequence[str], options: Sequence[str] = ()
) -> float:
    """Run the command once, with these `options`. Raises SystemExit where it fails."""
    with tempfile.TemporaryDirectory(prefix="kvbench-null-") as folder:
        out = Path(folder) / "run.h5"
        changes = [part for each in (*_USUAL, f"duration_s={seconds}", *settings) for part in ("--set", each)]
        readings = watched([str(command.absolute()), "run", config, *changes, "--out", str(out), *options], folder)
        with h5py.File(out) as file:
            starts_ns = file["records/t_start_ns"][:]
    first_ns, last_ns = int(starts_ns.min() + _MARGIN_S * 1e9), int(starts_ns.max() - _MARGIN_S * 1e9)
    inside = [reading for reading in readings if first_ns <= reading[0] <= last_ns]
    if len(inside) < 2:
        raise SystemExit(f"{command}: the load is over before its processor time was read twice; give more --seconds")
    (from_ns, from_s), (until_ns, until_s) = inside[0], inside[-1]
    return np.count_nonzero((from_ns <= starts_ns) & (starts_ns < until_ns)) / (until_s - from_s)


def watched(command: Sequence[str], folder: str) -> list[tuple[int, float]]:
    """Readings of the node's clock (ns, as in the records of a single rank) and of processor time so far (s)."""
    readings = []
    with open(f"{folder}/said", "w+", encoding="utf-8") as said:
        process = psutil.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            readings.append((time.monotonic_ns(), processor_s(process)))
            time.sleep(_POLL_S)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()}")
    return readings


def processor_s(process: psutil.Popen) -> float:
    """Of the process and of those below it."""
    used = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
            used += times.user + times.system
        except psutil.NoSuchProcess:  # it has just ended, and is waited for by whoever started it
            continue
    return used


if __name__ == "__main__":
    sys.exit(main())
