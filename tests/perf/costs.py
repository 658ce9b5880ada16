"""What the collective steps of a run cost at more and more ranks: counts beside their formulas, and times. Markdown.

    python tests/perf/costs.py                                  # 2, 4, 16, 64 and 256 ranks, then 20 million records
    python tests/perf/costs.py --ranks 2,4,16 --records 0       # only this

All ranks are on this machine; the square root of them stands for a node. 256 ranks want 16 GiB of memory and, on two
processors, some ten minutes in all. It ends with 1 where a count is not what its formula gives.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
from formulas import Check, checks

from kvbench.cluster.launch.mpirun import find_mpirun, mpirun_command, mpirun_environment
from kvbench.units import MIB

_HERE = Path(__file__).parent
_LOAD_S = 5
_REQUESTS_PER_S = 1
_ROWS = 10_000
_LIMIT_S = 900
Facts = dict[str, Any]


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4,16,64,256", help="numbers of ranks, separated by commas")
    parser.add_argument(
        "--records", type=int, default=20_000_000, help="records to gather from the most ranks; 0: none"
    )
    parser.add_argument("--seconds", type=int, default=_LOAD_S, help="of load in each of the counted runs")
    parser.add_argument("--run", type=int, default=256, help="ranks of one whole `kvbench run null`; 0: none")
    choices = parser.parse_args()
    sizes = [int(size) for size in choices.ranks.split(",")]
    with tempfile.TemporaryDirectory(prefix="kvbench-costs-") as folder:
        environment = _environment(Path(folder))
        print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}\n", flush=True)
        measured = [_measure(size, choices.seconds, Path(folder), environment) for size in sizes]
        found = [list(checks(facts)) for facts in measured]
        _print_counts(measured, found)
        _print_times(measured)
        if choices.run:
            _print_run(choices.run, Path(folder), environment)
        if choices.records:
            _print_gathering(max(sizes), choices.records, Path(folder), environment)
    wrong = [check for each in found for check in each if not check.agrees]
    for check in wrong:
        print(
            f"{check.step}, {check.figure}: {check.measured}, and {check.formula} is {check.expected}", file=sys.stderr
        )
    return 1 if wrong else 0


def _environment(folder: Path) -> dict[str, str]:
    """That of mpirun, with a place for byte code, as an installed kvbench has it: no rank compiles its source."""
    environment = mpirun_environment(find_mpirun(), os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "byte-code")
    subprocess.run(
        [sys.executable, "-c", "import kvbench.commands.run, kvbench.records.file, kvbench_analysis"],
        env=environment,
        check=True,
    )
    return environment


def _mpirun(ranks: int, program: Sequence[object], environment: Mapping[str, str]) -> str:
    command = [*mpirun_command(find_mpirun(), ranks), sys.executable, *map(str, program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _measure(ranks: int, seconds: int, folder: Path, environment: Mapping[str, str]) -> Facts:
    result = folder / f"{ranks}.json"
    begun_s, before_s = time.time(), _processor_s()
    arguments = (folder / f"{ranks}.h5", result, math.isqrt(ranks), seconds, _REQUESTS_PER_S, _ROWS)
    _mpirun(ranks, (_HERE / "rank_costs.py", *arguments), environment)
    facts: Facts = json.loads(result.read_text(encoding="utf-8"))
    facts["begun_s"], facts["ended_s"] = begun_s, time.time()
    facts["processor_s"] = _processor_s() - before_s
    return facts


def _print_counts(measured: Sequence[Facts], found: Sequence[Sequence[Check]]) -> None:
    heads = [f"R = {facts['ranks']}, N = {facts['nodes']}" for facts in measured]
    _row("step", "figure, rank 0", "formula", *heads)
    _row(*["---"] * (3 + len(heads)))
    for same in zip(*found, strict=True):
        cells = [f"{c.measured:,}".replace(",", " ") + ("" if c.agrees else f" **not {c.expected}**") for c in same]
        _row(same[0].step, same[0].figure, same[0].formula, *cells)
    print()


def _print_times(measured: Sequence[Facts]) -> None:
    _row("seconds, rank 0", *(f"R = {facts['ranks']}" for facts in measured))
    _row(*["---"] * (1 + len(measured)))
    _row("start of mpirun, Python, imports", *(f"{f['start_s'] - f['begun_s']:.2f}" for f in measured))
    _row("start of MPI", *(f"{f['mpi_s'] - f['start_s']:.2f}" for f in measured))
    for step in measured[0]["costs"]:
        what = f"{step} (the load among it)" if step == "other" else step
        _row(what, *(f"{f['costs'][step]['seconds']:.3f}" for f in measured))
    _row("end of MPI, Python, mpirun", *(f"{f['ended_s'] - f['run_s']:.2f}" for f in measured))
    _row("**start to end**", *(f"{f['ended_s'] - f['begun_s']:.1f}" for f in measured))
    _row("processor time of all ranks and mpirun", *(f"{f['processor_s']:.1f}" for f in measured))
    _row("rank 0's peak memory, MiB", *(f"{f['peak_bytes'] / MIB:.0f}" for f in measured))
    _row("load average at the end", *(f"{f['load']:.0f}" for f in measured))
    print()


def _print_run(ranks: int, folder: Path, environment: Mapping[str, str]) -> None:
    """A whole `kvbench run`, as a user starts it."""
    out = folder / "run.h5"
    begun_s, before_s = time.monotonic(), _processor_s()
    command = [sys.executable, "-m", "kvbench", "run", "null", "--ranks", str(ranks), "--out", str(out)]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=_LIMIT_S, check=True)
    took_s = time.monotonic() - begun_s
    with h5py.File(out) as file:
        records, peaks = len(file["records/op"]), file["ranks/peak_rss_bytes"][:]
    print(
        f"`kvbench run null --ranks {ranks}`: {took_s:.0f} s from start to end ({_processor_s() - before_s:.0f} s of "
        f"processor time), {records} records; peak resident memory {peaks[0] / MIB:.0f} MiB on rank 0, at most "
        f"{peaks[1:].max() / MIB:.0f} MiB on the others; load average {os.getloadavg()[0]:.0f} at the end.\n",
        flush=True,
    )


def _print_gathering(ranks: int, records: int, folder: Path, environment: Mapping[str, str]) -> None:
    """So many made-up records into a run file."""
    program = (_HERE / "rank_gathers.py", folder / "gathered.h5", records, math.isqrt(ranks))
    figures = json.loads(_mpirun(ranks, program, environment).splitlines()[-1])
    print(
        f"{records} made-up records of {ranks} ranks into a run file, by {figures['way']}: "
        f"{figures['seconds']:.1f} s; rank 0's peak resident memory {figures['peak_bytes'] / MIB:.0f} MiB, "
        f"{figures['gathering_bytes'] / MIB:.0f} MiB of it for this; load average {os.getloadavg()[0]:.0f} at the end.",
        flush=True,
    )


def _processor_s() -> float:
    """Processor time of all that was started from here and has ended: what a busy machine does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
