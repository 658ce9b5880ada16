"""What ranks of the null tier take of a machine's memory: `rank_memory.py RANKS [OPTIONS of kvbench run]`, as Markdown.

The run is looked at every few seconds: of each process its own memory (private pages) and its share of what it has in
common with others (Pss, whose sum over all processes counts every page once). What is told is the moment at which that
sum is largest.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from kvbench.units import GIB, MIB

_EVERY_S = 3.0


def memory_of(process: psutil.Process) -> tuple[int, int]:
    """(private, proportional) bytes; (0, 0) of one that is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0), sizes.get("Pss", 0)


def main() -> int:
    """Run, look, print; returns the exit code of the run."""
    ranks, options = int(sys.argv[1]), sys.argv[2:]
    best: tuple[int, list[int]] = (0, [])
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        words = ["kvbench", "run", "null", "--ranks", str(ranks), "--out", f"{folder}/run.h5", *options]
        least = available = psutil.virtual_memory().available
        with subprocess.Popen(words) as run:
            while run.poll() is None:
                found = [memory_of(each) for each in psutil.Process(run.pid).children(recursive=True)]
                least = min(least, psutil.virtual_memory().available)
                if (together := sum(pss for _, pss in found)) > best[0]:
                    best = together, [private for private, _ in found]
                time.sleep(_EVERY_S)
    took_s = time.monotonic() - started_s
    own = np.sort(best[1])[-ranks:] / MIB
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    print(
        "| ranks | start to end, s | processes' memory together, GiB | own of a rank, MiB: median, largest | for each "
        "rank, MiB | memory available before, least, GiB | load average |\n|---|---|---|---|---|---|---|"
    )
    print(
        f"| {ranks} | {took_s:.0f} | {best[0] / GIB:.2f} | {np.median(own):.1f}, {own.max():.1f} | "
        f"{best[0] / MIB / ranks:.1f} | {available / GIB:.1f}, {least / GIB:.1f} | {load} |"
    )
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
