"""What `kvbench run --metrics` costs a run: operations per second of processor time, of `run null` as fast as it can,
with live figures that are asked for every second and without any.

    python tests/perf/metrics_costs.py .venv/bin/kvbench

The two take turns (null_costs.py says how it is counted). Prometheus asks once a minute unless
it is told otherwise.
"""

import argparse
import os
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from null_costs import operations_per_processor_s


def main() -> int:
    """Print a line for each pair, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", type=Path, help="a kvbench command")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the load of a run")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two requests")
    parser.add_argument("--at-least", type=float, default=0.98, help="the ratio below which the exit code is 1")
    choices = parser.parse_args()
    print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}\n", flush=True)
    print(
        "| pair | without, operations per processor second | with | ratio | answers |\n|---|---|---|---|---|",
        flush=True,
    )
    ratios = []
    for pair in range(choices.pairs):
        without = operations_per_processor_s(choices.command, "null", choices.seconds, [])
        port = free_port()
        with asking(port, choices.every) as answers:
            asked = operations_per_processor_s(choices.command, "null", choices.seconds, [], ["--metrics", f":{port}"])
        ratios.append(asked / without)
        print(f"| {pair + 1} | {without:,.0f} | {asked:,.0f} | {ratios[-1]:.3f} | {len(answers)} |", flush=True)
        if not answers:
            raise SystemExit("nobody answered: nothing was measured")
    ratio = statistics.median(ratios)
    print(f"\nmedian ratio {ratio:.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")
    return 0 if ratio >= choices.at_least else 1


def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def asking(port: int, every_s: float) -> Iterator[list[int]]:
    """Ask for the figures of whoever listens at `port`; the lengths of all answers."""
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(every_s):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    answers.append(len(answer.read()))
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
