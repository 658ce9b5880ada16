"""Run files of a storage whose times are known: every operation in flight advances alike, and how fast is said here.

One request after the other reads `blocks` objects with a number of threads. The simulation is written out, and knows
nothing of the one that it is to be compared with.
"""

import json
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import START_NS, SyntheticRun, run_attributes, run_tables

from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, RESIDENT_UNKNOWN, Op, Path, Phase, TimedBy

SecondsAt = Callable[[int], float]
"""The mean time of an operation where so many are in flight."""


def times(
    rng: np.random.Generator, blocks: int, threads: int, seconds_at: SecondsAt, constant: bool
) -> tuple[list[tuple[float, float, int]], float]:
    """(start, end, thread) of each of `blocks` operations in seconds, and the end of the last."""
    now, begun, done = 0.0, 0, []
    left: dict[int, tuple[float, float]] = {}
    while begun < blocks or left:
        for thread in range(threads):
            if thread not in left and begun < blocks:
                left[thread] = (now, 1.0 if constant else float(rng.exponential()))
                begun += 1
        step = min(work for _, work in left.values())
        now += step * seconds_at(len(left))
        for thread, (start, work) in list(left.items()):
            if work <= step:
                done.append((start, now, thread))
                del left[thread]
            else:
                left[thread] = (start, work - step)
    return done, now


def known_run(
    rng: np.random.Generator,
    *,
    threads: int,
    nbytes: int,
    seconds_at: SecondsAt,
    blocks: int = 40,
    requests: int = 60,
    op: Op = Op.READ,
    constant: bool = False,
    **attributes: str | int | float,
) -> SyntheticRun:
    """A run of that storage; requests come one after the other and never wait."""
    rows: list[NDArray[Any]] = []
    asked, now_ns = np.zeros(requests, REQUEST_DTYPE), START_NS
    for request in range(requests):
        done, end = times(rng, blocks, threads, seconds_at, constant)
        for start, ended, thread in done:
            row = np.zeros(1, RECORD_DTYPE)
            row["t_start_ns"], row["wall_ns"] = now_ns + round(start * 1e9), round((ended - start) * 1e9)
            row["device_ns"], row["queue_ns"] = row["wall_ns"], round(start * 1e9)
            row["request"], row["thread"], row["batch"] = request, thread, len(rows)
            rows.append(row)
        mine = asked[request]
        mine["request"], mine["intended_ns"], mine["start_ns"] = request, now_ns, now_ns
        mine["end_ns"], mine["load_ns"] = now_ns + round(end * 1e9), round(end * 1e9)
        mine["hit_objects"], mine["phase"] = blocks, Phase.MEASURE
        now_ns += round(end * 1e9) + 1_000_000
    records: NDArray[Any] = np.concatenate(rows)
    records["nbytes"], records["op"], records["tier"], records["path"] = nbytes, op, 0, Path.BUFFERED
    records["phase"], records["timed_by"] = Phase.MEASURE, TimedBy.EXTENSION
    records["resident_pct"] = RESIDENT_UNKNOWN
    config = {
        "name": "known",
        "seed": 42,
        "io": {"threads": threads, "engine": "sync"},
        "workload": {"kind": "sessions"},
    }
    tiers = [{"name": "file", "kind": "file", "capacity_bytes": 2**36, "storage": True}]
    of_run = run_attributes(1, 1, config_json=json.dumps(config), tiers_json=json.dumps(tiers), layout="file")
    return SyntheticRun(records, asked, of_run | attributes, run_tables(records, asked, 1, 1))


def write_runs(folder: FilePath, runs: dict[str, SyntheticRun]) -> list[FilePath]:
    """The run files, by their names."""
    return [run.write(folder / f"{name}.h5") for name, run in runs.items()]
