"""Whole runs beside fio, in turns: GiB/s that `kvbench run` reads from files, and that fio's psync reads.

    python tests/perf/whole_runs.py /dev/shm --object 64KiB --object 1MiB
    python tests/perf/whole_runs.py /dev/shm --before OTHER/kvbench

Each rank is served chains that it finds whole, over and over: whole requests with decisions, look-ups, a file for each
block, rows, a spill file and sampled checks. fio reads as many files of the same size with a job for each rank. It
keeps them open, and reads into one buffer, which stays in the processor's cache; a run opens each, and reads into its
arena. So beside it stands a loop of preads (psync_loop.c) that reads those files into as much memory as the arena.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import hdf5plugin  # noqa: F401 - the records are compressed with it
import numpy as np

from kvbench.tiers.arena import MINIMUM_ARENA_BYTES
from kvbench.units import GIB, MIB, format_bytes, parse_bytes

_BLOCK_TOKENS: Final = 512
_RANKS: Final = 2
_WARM_UP_S: Final = 1.5


def main() -> int:
    """Print a line for each pair and size, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--object", action="append", default=[], help="bytes of a block; several")
    parser.add_argument("--kvbench", default=str(Path(sys.executable).with_name("kvbench")))
    parser.add_argument("--before", help="another kvbench, to be measured too")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of kvbench run")
    parser.add_argument("--fio", action="append", default=[], help="another option of fio")
    choices = parser.parse_args()
    print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}\n", flush=True)
    columns = ("object", "pair", "kvbench, GiB/s", "fio", "loop", "kvbench / fio", "kvbench / loop", "before / fio")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for size in choices.object or ["64KiB", "1MiB"]:
        measure(choices, parse_bytes(size))
    return 0


def measure(choices: argparse.Namespace, object_bytes: int) -> None:
    """All pairs of one size."""
    ratios = []
    with tempfile.TemporaryDirectory(prefix="kvbench-whole-", dir=choices.directory) as folder:
        trace = write_trace(Path(folder), object_bytes)
        for pair in range(choices.pairs):
            ways = {
                "kvbench": lambda: run(choices.kvbench, choices, trace, object_bytes),
                "fio": lambda: fio(choices, object_bytes, folder),
                "loop": lambda: loop(choices, object_bytes, folder),
            }
            if choices.before:
                ways["before"] = lambda: run(choices.before, choices, trace, object_bytes)
            names = list(ways) if pair % 2 else list(ways)[::-1]
            found = {name: ways[name]() for name in names}
            ratios.append([found["kvbench"] / found["fio"], found["kvbench"] / found["loop"]])
            ratios[-1].append(found.get("before", float("nan")) / found["fio"])
            cells = " | ".join(f"{each:.2f}" for each in (*(found[n] for n in ("kvbench", "fio", "loop")), *ratios[-1]))
            print(f"| {format_bytes(object_bytes)} | {pair + 1} | {cells} |", flush=True)
    medians = " | ".join(f"**{statistics.median(each):.2f}**" for each in zip(*ratios, strict=True))
    print(f"| {format_bytes(object_bytes)} | median | | | | {medians} |", flush=True)


def chains_of(object_bytes: int) -> tuple[int, int]:
    """Different chains, and blocks of each: 256 MiB a rank."""
    blocks = min(512, 32 * MIB // object_bytes)
    return _RANKS * max(1, 256 * MIB // (blocks * object_bytes)), blocks


def write_trace(folder: Path, object_bytes: int) -> Path:
    """Requests that ask for the same few chains in turn."""
    path = folder / "trace.jsonl"
    chains, blocks = chains_of(object_bytes)
    with path.open("w", encoding="utf-8") as file:
        for number in range(max(200, 128 * GIB // (blocks * object_bytes))):
            first = number % chains * blocks
            line = {
                "timestamp": number,
                "input_length": blocks * _BLOCK_TOKENS,
                "output_length": 1,
                "hash_ids": list(range(first, first + blocks)),
            }
            file.write(json.dumps(line) + "\n")
    return path


def run(command: str, choices: argparse.Namespace, trace: Path, object_bytes: int) -> float:
    """GiB/s of one run's reads, once all is written. Raises SystemExit where it fails."""
    out = trace.with_name("run.h5")
    head_dim = object_bytes // _BLOCK_TOKENS // 4
    settings = [
        f"model={{layers: 1, kv_heads: 1, head_dim: {head_dim}}}",
        f"workload={{kind: trace, path: {trace}}}",
        "pacing={mode: asap}",
        "calibration.seconds=0",
        "tiers.0.capacity_bytes=1GiB",
        "io.threads=2",
        f"io.arena_bytes={MINIMUM_ARENA_BYTES}",
        "io.drop_page_cache=false",
        f"warmup_s={_WARM_UP_S}",
        f"duration_s={choices.seconds}",
        *choices.set,
    ]
    config = trace.with_name("whole.yaml")
    config.write_text("tiers: [{kind: file}]\n", encoding="utf-8")
    files = ["--out", str(out), "--overwrite"]
    changes = [part for each in settings for part in ("--set", each)]
    done = subprocess.run(
        [command, "run", str(config), "--ranks", str(_RANKS), "--dir", str(choices.directory), *files, *changes],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    with h5py.File(out) as file:
        rows = {
            name: file[f"records/{name}"][:] for name in ("op", "phase", "t_start_ns", "wall_ns", "nbytes", "errno")
        }
    wanted = (rows["op"] == 0) & (rows["phase"] == 2) & (rows["errno"] == 0)
    starts = rows["t_start_ns"][wanted]
    window_ns = int((starts + rows["wall_ns"][wanted]).max() - starts.min())
    return float(np.sum(rows["nbytes"][wanted])) / window_ns * 1e9 / GIB


def fio(choices: argparse.Namespace, object_bytes: int, folder: str) -> float:
    """GiB/s that fio reads of as many files."""
    if shutil.which("fio") is None:
        raise SystemExit("fio is not installed: it is what is compared with")
    chains, blocks = chains_of(object_bytes)
    files = chains * blocks // _RANKS
    place = Path(folder) / "fio"
    place.mkdir(exist_ok=True)
    command: Sequence[str] = [
        "fio", "--name=reads", "--rw=read", f"--bs={min(object_bytes, MIB)}", "--ioengine=psync",
        f"--directory={place}", f"--nrfiles={files}", f"--filesize={object_bytes}", f"--openfiles={files}",
        "--file_service_type=sequential", f"--numjobs={_RANKS}", "--time_based", f"--runtime={choices.seconds}",
        "--group_reporting", "--invalidate=0", "--output-format=json", *choices.fio,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"fio ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    answer = json.loads(done.stdout[done.stdout.index("{") :])
    return float(answer["jobs"][0]["read"]["bw_bytes"]) / GIB


def loop(choices: argparse.Namespace, object_bytes: int, folder: str) -> float:
    """GiB/s that a loop of preads reads of fio's files, into as much memory as an arena."""
    program = Path(folder) / "psync_loop"
    if not program.exists():
        source = Path(__file__).with_name("psync_loop.c")
        subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    if not (Path(folder) / "fio").exists():
        fio(choices, object_bytes, folder)
    files = sorted(str(path) for path in (Path(folder) / "fio").iterdir())
    numbers = (choices.seconds, _RANKS, MINIMUM_ARENA_BYTES, object_bytes)
    command = [str(program), *map(str, numbers), *files]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / GIB


if __name__ == "__main__":
    sys.exit(main())
