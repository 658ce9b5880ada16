"""How often the interval of `kvbench search` holds the truth, over real runs on storage with a known limit.

    python tests/perf/search_coverage.py [--trials 50] [--seconds 6] [--at-once 4]

Each trial is a whole search, from another first load and with other arrivals, on a tier whose reads pass through a pipe
of 50 a second: the highest load is known to be 50 requests/s. It prints a line for each trial and the share of
intervals that hold it, and fails below 90 %.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIMIT = 50.0
"""`throttled.READS_PER_S`."""
sys.path.insert(0, str(HERE.parent / "studies" / "harness"))


def one(arguments: list[str]) -> dict[str, Any]:
    """A search in a process of its own; its figures."""
    done = subprocess.run([sys.executable, __file__, "--one", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def carry_out(folder: str, trial: str, seconds: str) -> None:
    """The search itself."""
    import throttled  # noqa: PLC0415 - kvbench, in the process that searches
    from throttled_search import searched  # noqa: PLC0415

    throttled.plug()
    print(searched(Path(folder), int(trial), float(seconds)))


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        carry_out(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--at-once", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.at_once) as pool:
        every = [[f"{folder}/{trial}", str(trial), str(asked.seconds)] for trial in range(asked.trials)]
        held = 0
        for trial, figures in enumerate(pool.map(one, every)):
            limit = figures["limit_per_rank"]
            low, high = limit["low"] or 0.0, limit["high"] or float("inf")
            holds = low <= LIMIT <= high
            held += holds
            print(
                f"{trial:3} {limit['estimate'] or float('nan'):7.1f} ({low:.1f} to {high:.1f}) "
                f"{len(figures['probes']):3} probes, {figures['outcome']}{'' if holds else '  MISSED'}",
                flush=True,
            )
    print(f"{held} of {asked.trials} intervals hold the {LIMIT:g} requests/s of the pipe")
    sys.exit(held < 0.9 * asked.trials)


if __name__ == "__main__":
    main()
