"""How well a storage model predicts loads that it was not fitted to: `kvbench model fit` and `kvbench plan --storage`.

    python tests/perf/storage_model.py /var/tmp --rounds 3 --trace TRACES --keep FOLDER
    python tests/perf/storage_model.py --keep FOLDER

In each round all loads are run, one after the other: some that a model is fitted to (1, 4 and 16 threads; blocks of
two sizes, a token being 256 bytes), and some that are held out: other threads, another size of blocks, and with --trace
another trace. Each round has a model of its own, which predicts that round's held-out loads; the other rounds' runs of
the same load say how much a load differs from itself (noise). With --keep the run files stay, and rounds that are there
are not measured again; without a directory nothing is measured. Wanted: P50 of load times within 15 %, P95 within 25 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import kvbench_analysis as ka
import numpy as np

from kvbench.records.schema import Phase, RequestState

WANTED: Final = {50: 0.15, 95: 0.25}
_FIT_THREADS: Final = (1, 4, 16)


class Load(NamedTuple):
    """A load: its name, and what is said to `kvbench run` and `kvbench plan` alike."""

    name: str
    said: tuple[str, ...]
    is_held_out: bool


def main() -> int:
    """Measure what is to be measured, and print a line for each held-out load of each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--speedup", type=float, default=40.0, help="of the sessions' time")
    parser.add_argument("--users", type=int, default=15, help="of the sessions; fewer for a slow storage")
    parser.add_argument("--tokens", type=int, nargs=2, default=[512, 4096], help="of the blocks that are fitted to")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds")
    parser.add_argument("--trace", type=Path, help="a folder of agentic traces, for another trace")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of kvbench run, for all")
    parser.add_argument("--keep", type=Path, help="a folder for the run files")
    parser.add_argument("--kvbench", default=str(Path(sys.executable).with_name("kvbench")))
    choices = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvbench-model-") as made:
        folder = choices.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        loads = list(loads_of(choices))
        if choices.directory is not None:
            print(f"{os.cpu_count()} processors, load average before {os.getloadavg()[0]:.1f}", flush=True)
            for number in range(1, choices.rounds + 1):
                measure(choices, folder, loads, number)
        evaluate(choices, folder, loads)
    return 0


def loads_of(choices: argparse.Namespace) -> Iterator[Load]:
    """Those to fit, and those that are held out."""

    def sessions(threads: int, tokens: int) -> tuple[str, ...]:
        pace = f"pacing.speedup={choices.speedup}"
        return said("sessions", threads, tokens, pace, f"workload.users={choices.users}")

    def said(config: str, threads: int, tokens: int, *more: str) -> tuple[str, ...]:
        settings = (
            "model={layers: 1, kv_heads: 1, head_dim: 64}", f"cache.block_tokens={tokens}", f"io.threads={threads}",
            "compute={gpu: h100-sxm, parameters_billion: 0.5, attention_heads: 8, qk_head_dim: 64, v_head_dim: 64}",
            f"duration_s={choices.seconds}", f"warmup_s={choices.warmup}", "calibration.seconds=0", *more, *choices.set,
        )  # fmt: skip
        return (config, *(word for setting in settings for word in ("--set", setting)))

    small, large = choices.tokens
    for tokens in choices.tokens:
        for threads in _FIT_THREADS:
            yield Load(f"fit-{threads}-{tokens}", sessions(threads, tokens), False)
    yield Load("2 threads", sessions(2, small), True)
    yield Load("8 threads", sessions(8, large), True)
    yield Load("another size", sessions(4, large // 2), True)
    if choices.trace is not None:
        trace = f"workload.path={choices.trace.absolute()}"
        yield Load("agentic trace", said("agentic", 4, large, trace, f"pacing.speedup={choices.speedup / 2}"), True)


def measure(choices: argparse.Namespace, folder: Path, loads: Sequence[Load], number: int) -> None:
    """Run all loads of a round that are not there."""
    for load in loads:
        out = run_file(folder, load, number)
        if not out.exists():
            command = [choices.kvbench, "run", *load.said, "--dir", str(choices.directory), "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{load.name}: {done.stderr or done.stdout}")


def run_file(folder: Path, load: Load, number: int) -> Path:
    """Where a run is."""
    return folder / f"{load.name.replace(' ', '-')}-r{number}.h5"


def evaluate(choices: argparse.Namespace, folder: Path, loads: Sequence[Load]) -> None:
    """Print a table: measured, predicted, off by how much, and how far the runs of a load are from each other."""
    held_out = [load for load in loads if load.is_held_out]
    numbers = [
        number
        for number in range(1, choices.rounds + 1)
        if all(run_file(folder, load, number).exists() for load in loads)
    ]
    measured = {
        (load.name, number): percentiles_ms(run_file(folder, load, number)) for load in held_out for number in numbers
    }
    columns = ("held out", "round", *(f"P{p} measured, predicted (90 %), off" for p in WANTED), "utilisation")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    off: dict[str, list[list[float]]] = {load.name: [] for load in held_out}
    for number in numbers:
        model = folder / f"r{number}.storage"
        fit = [str(run_file(folder, load, number)) for load in loads if not load.is_held_out]
        called(choices, "model", "fit", *fit, "-o", str(model))
        for load in held_out:
            plan = json.loads(called(choices, "plan", *load.said, "--storage", str(model), "--json"))["predicted"]
            cells, errors = [], []
            if "load" not in plan:
                print(f"| {load.name} | {number} | predicted: nothing is done in time | | |", flush=True)
                continue
            for p, was in zip(WANTED, measured[load.name, number], strict=True):
                said = plan["load"][f"p{p}_s"]
                errors.append(1e3 * said["predicted"] / was - 1)
                low, high = 1e3 * said["low"], 1e3 * said["high"]
                cells.append(
                    f"{was:.1f}, {1e3 * said['predicted']:.1f} ms ({low:.1f} to {high:.1f}), {errors[-1]:+.0%}"
                )
            off[load.name].append(errors)
            busy = f"{plan['utilisation']['predicted']:.0%}"
            print(f"| {load.name} | {number} | {' | '.join(cells)} | {busy} |", flush=True)
    print(f"\n| held out | {' | '.join(f'P{p}: off, median; noise' for p in WANTED)} |\n|---|{'---|' * len(WANTED)}")
    for load in (load for load in held_out if off[load.name]):
        cells = []
        for at, (_, wanted) in enumerate(WANTED.items()):
            errors = [one[at] for one in off[load.name]]
            values = [measured[load.name, number][at] for number in numbers]
            within = sum(abs(error) <= wanted for error in errors)
            noise = f"x{max(values) / min(values):.2f} between rounds" if len(values) > 1 else "one round"
            cells.append(f"{np.median(errors):+.0%}; {within} of {len(errors)} within {wanted:.0%}; {noise}")
        print(f"| {load.name} | {' | '.join(cells)} |", flush=True)


def percentiles_ms(path: Path) -> list[float]:
    """Of the load times of the measured phase, at WANTED."""
    columns = ka.load(path).columns(["load_ns", "phase", "state"], "requests")
    done = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE) & (columns["load_ns"] >= 0)
    found: list[float] = (np.percentile(columns["load_ns"][done], list(WANTED)) / 1e6).tolist()
    return found


def called(choices: argparse.Namespace, *words: str) -> str:
    """What kvbench prints."""
    done = subprocess.run([choices.kvbench, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"kvbench {' '.join(words)}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
