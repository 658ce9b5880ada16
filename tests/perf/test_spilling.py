"""What it costs a run that its records go to a spill file while it runs, and what a rank's memory is for it."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import kvbench_analysis as ka
import numpy as np
import pytest
from conftest import Figure

from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.stream import INTERVAL_S, RowStream
from kvbench.records.tables import SAMPLE_DTYPE
from kvbench.records.tally import Tally

Report = Callable[[Figure], None]

PAIRS = 5
SECONDS = 8
BUSY = ("pacing={mode: asap}", "calibration.seconds=0", "io.threads=2", "io.arena_bytes=32MiB")
"""As many operations as one rank can hand out."""


@dataclass(frozen=True)
class Done:
    """What one run did."""

    operations_per_s: float
    processor_ns: float
    """Processor time of the whole process, from its start to its end, for each operation."""
    p95_ns: float
    peak_bytes: float
    operations: int


def run(out: Path, words: list[str], seconds: float) -> Done:
    """`kvbench run WORDS` as one rank, and what stands in its file of the measured phase."""
    settings = [word for setting in (*BUSY, f"duration_s={seconds}") for word in ("--set", setting)]
    command = [sys.executable, "-m", "kvbench", "run", *words, *settings, "--out", str(out), "--overwrite"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loaded = ka.load(out)
    columns = loaded.columns(["wall_ns", "phase", "errno"])
    counted = columns["wall_ns"][(columns["phase"] == 2) & (columns["errno"] == 0)]
    peak = float(loaded.ranks["peak_rss_bytes"][0])
    operations = len(columns["wall_ns"])
    tail = float(np.percentile(counted, 95))
    return Done(len(counted) / seconds, processor_s * 1e9 / operations, tail, peak, operations)


def pairs(one: Callable[[], Done], other: Callable[[], Done]) -> list[tuple[Done, Done]]:
    """Both measured in turns, `PAIRS` times, each of them first in every other pair."""
    found = []
    for number in range(PAIRS):
        if number % 2:
            second, first = other(), one()
        else:
            first, second = one(), other()
        found.append((first, second))
    return found


def test_spilling_costs_a_run_little(tmpfs: Path, disk: Path, tmp_path: Path, report: Report) -> None:
    """With its spill file on a disk and without: operations that move nothing (kvbench alone), and 1.5 MiB each."""
    out = tmp_path / "run.h5"
    for what, words in (("no bytes (null)", ["null"]), ("1.5 MiB on tmpfs", ["smoke", "--dir", str(tmpfs)])):
        spilled = [*words, "--spill", str(disk)]
        kept = [*words, "--no-spill"]
        found = pairs(partial(run, out, spilled, SECONDS), partial(run, out, kept, SECONDS))
        costs = [a.processor_ns / b.processor_ns for a, b in found]
        rates = [a.operations_per_s / b.operations_per_s for a, b in found]
        tails = [a.p95_ns / b.p95_ns for a, b in found]
        cost = median(b.processor_ns for _, b in found) / 1e3
        report(Figure(f"processor time of an operation with / without, {what}", costs, "<= 1.05", f"{cost:.1f} us"))
        rate = median(b.operations_per_s for _, b in found)
        report(Figure(f"operations/s with / without a spill file, {what}", rates, ">= 0.97", f"{rate:.0f}/s without"))
        tail = median(b.p95_ns for _, b in found) / 1e3
        report(Figure(f"P95 of an operation with / without, {what}", tails, "<= 1.03", f"{tail:.1f} us without"))
        assert median(costs) < 1.1


@pytest.mark.parametrize("rows", [40, 2000, 8000])
def test_the_spill_thread_takes_little_of_a_processor(disk: Path, report: Report, rows: int) -> None:
    """Processor time of a round (its own thread's, kernel included) over the time between two rounds."""
    store, requests = RowStore(RECORD_DTYPE, 4096), RowStore(REQUEST_DTYPE, 4096)
    writer = SpillWriter(disk / f"{rows}.spill", {}, SAMPLE_DTYPE)
    stream = RowStream([store], requests, [Tally()], writer, pytest.fail)
    shares, walls_s = [], []
    for _ in range(60):
        for _ in range(rows):
            store.reserve()
            store.commit()
        processor_s, began_s = time.thread_time(), time.monotonic()
        stream.hand_on()
        walls_s.append(time.monotonic() - began_s)
        shares.append((time.thread_time() - processor_s) / INTERVAL_S)
    writer.remove()
    times = f"{median(shares) * INTERVAL_S * 1e3:.2f} ms of processor, {median(walls_s) * 1e3:.1f} ms in all"
    figure = Figure(f"share of a processor, {rows} rows a round", [share * 100 for share in shares], "< 2 %", times)
    report(figure)
    assert figure.ratio < 2


def test_memory_does_not_grow_with_the_run(disk: Path, tmp_path: Path, report: Report) -> None:
    """The peak of memory of a run of 64 s over that of one of 16 s, by when all buffers are full; with and without."""
    out = tmp_path / "run.h5"
    ratios: dict[str, list[float]] = {}
    operations = []
    for how in (["--spill", str(disk)], ["--no-spill"]):
        for _ in range(3):
            short, long = run(out, ["null", *how], 16), run(out, ["null", *how], 64)
            ratios.setdefault(how[0], []).append(long.peak_bytes / short.peak_bytes)
            operations.append(long.operations)
    many = f"{median(operations) / 1e6:.1f} million operations"
    figure = Figure("peak memory, 64 s / 16 s, with a spill file", ratios["--spill"], "< 1.25", many)
    report(figure)
    report(Figure("peak memory, 64 s / 16 s, without", ratios["--no-spill"], "", many))
    assert figure.ratio < 1.25


def test_recovering_takes_the_same_memory_however_many_rows_there_are(disk: Path, report: Report) -> None:
    """The memory that recovering 4 million records takes, over that of 1 million."""
    found = []
    for number in range(3):
        sizes = []
        for rows in (1_000_000, 4_000_000):
            program = str(Path(__file__).with_name("big_spill.py"))
            command = [sys.executable, program, str(disk / f"{number}-{rows}"), str(rows)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            sizes.append(json.loads(done.stdout))
        found.append(sizes)
    rate = median(many["rows_per_s"] for _, many in found) / 1e6
    ratios = [many["bytes"] / few["bytes"] for few, many in found]
    figure = Figure("memory to recover 4 million records / 1 million", ratios, "< 1.25", f"{rate:.2f} million/s")
    report(figure)
    assert figure.ratio < 1.25
