"""What a rank does with a million requests of a trace before its clock starts, and to have each one at hand: seconds.

    python tests/perf/big_schedule.py [--requests 1000000] [--blocks 20]

One trace has hash ids, of `blocks` blocks a request on average, another none (as Azure's). Bound: 20 s a million, for
each line.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.run.checks.forecast import forecast_demand
from kvbench.workload.trace_schedule import TraceSchedule, deal
from kvbench.workload.traces.trace import Trace, trace_digest

_BOUND_S_PER_MILLION = 20.0
_UNIT = 512


def main() -> int:
    """Print the table. The exit code is 1 where a line is over the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--blocks", type=int, default=20)
    choices = parser.parse_args()
    print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}\n", flush=True)
    print("| what | with ids, s | without, s |\n|---|---|---|")
    columns = [seconds_of(trace_of(choices.requests, choices.blocks, ids)) for ids in (True, False)]
    for what, with_ids in columns[0].items():
        print(f"| {what} | {with_ids:.2f} | {columns[1][what]:.2f} |")
    bound = _BOUND_S_PER_MILLION * choices.requests / 1e6
    return int(any(seconds > bound for column in columns for seconds in column.values()))


def seconds_of(trace: Trace) -> dict[str, float]:
    """By what is done."""
    config = config_of()
    schedule, made = timed(lambda: TraceSchedule(config, trace))
    return {
        "digest": timed(lambda: trace_digest(trace))[1],
        "dealing, to one of 2 ranks": timed(lambda: trace.take(deal(trace, 2, "round-robin")[1]))[1],
        "schedule": made,
        "forecast": timed(lambda: forecast_demand(config, schedule, [10**12]))[1],
        "every request in turn": timed(lambda: sum(1 for _ in schedule.stream(0)))[1],
    }


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and how long it takes."""
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def config_of() -> RunConfig:
    """Of a run in open loop, to the end of the trace."""
    return parse_config(
        {
            "workload": {"kind": "trace", "path": "made up"},
            "pacing": {"mode": "open"},
            "tiers": [{"kind": "null", "capacity_bytes": 10**12}],
            "duration_s": None,
        },
        "big_schedule",
    )


def trace_of(requests: int, blocks: int, ids: bool) -> Trace:
    """Requests of which the first half of the blocks is one of 1000 beginnings."""
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 2 * blocks, requests)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    shared = place < np.repeat(counts, counts) // 2
    names = np.where(shared, np.repeat(rng.integers(0, 1000, requests), counts) * 4 * blocks + place, 0)
    names = np.where(shared, names, (1 << 40) + np.arange(offsets[-1])).astype(np.uint64)
    return Trace(
        number=np.arange(requests),
        arrival_ns=np.arange(requests) * 1_000_000,
        context_tokens=(counts * _UNIT).astype(np.int32),
        output_tokens=np.full(requests, 200, np.int32),
        hash_ids=names if ids else names[:0],
        hash_offsets=offsets if ids else np.zeros(requests + 1, np.int64),
        session=np.full(requests, -1),
        gap_ns=np.full(requests, -1),
        answer_counts=np.zeros(requests, np.int64),
        hash_block_tokens=_UNIT if ids else 0,
        source="made up",
        format="made up",
        digest="",
        token_counting="made up",
        bad_lines=0,
        first_bad_line="",
    )


if __name__ == "__main__":
    sys.exit(main())
