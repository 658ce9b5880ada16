"""Makes the comparison with the reference tool's result in docs/mlperf.md: `python docs/tables/mlperf_reference.py`.

It runs kvbench with the parameters of that result (tiny-1b, 8 users, 20 s, seed 42, no memory tier) on a tmpfs, once
for each of two read paths, and plays the workload without I/O for many seeds. The reference's result is read from
KVBENCH_DATA (or ../shared/data). It takes about two minutes, and 10 GiB of memory for the files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from kvbench.config.run_config import RunConfig, load_config
from kvbench.mlperf.play_through import Played, Rates, play
from kvbench.mlperf.trials.trial_results import RankTrial, ranks_of
from kvbench.records.schema import Op
from kvbench.units import GIB

SETTINGS: Final = (
    "model=tiny-1b",
    "workload.users=8",
    "io.threads=8",
    "io.max_concurrent_allocs=0",
    "duration_s=20",
    "calibration.seconds=0",
)
WORKERS: Final = 8
SEEDS: Final = 1000
SEED: Final = 42
"""Of the reference's result, and of our runs."""
READ_SHARE: Final = 0.66
"""Of the reference's storage time: its 375 reads at the mean that their percentiles suggest. The rest is writes."""
ALIKE_REQUESTS: Final = (38, 57)
ALIKE_INTERACTIVE: Final = 0.75
"""Samples that are like the reference's: as many requests within a fifth, mostly of interactive users."""


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser.add_argument("--reference", type=Path, default=data / "mlperf" / "reference_rank_result.json")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="a directory on a tmpfs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--memory", action="store_true", help="the table of the memory tier instead; runs nothing")
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory_table(arguments.seeds)
        return
    reference = json.loads(arguments.reference.read_text(encoding="utf-8"))
    theirs = figures_of_reference(reference)
    ours = {
        path: figures_of_run(measure(path, arguments.dir, arguments.seconds)) for path in ("double-copy", "buffered")
    }
    ours[f"played, seed {SEED}"] = play(config(SEED), 0, [1 << 50], rates(reference)).figures()
    samples = [play(config(seed), 0, [1 << 50], rates(reference)).figures() for seed in range(arguments.seeds)]
    alike = [sample for sample in samples if is_alike(sample)]
    print(f"| per request | reference | {' | '.join(ours)} | played, all | quantile | played, alike | quantile |")
    print("|---|---|" + "---|" * (len(ours) + 4))
    for name, value in theirs.items():
        cells = [name, shown(value), *(shown(run[name]) for run in ours.values())]
        for group in (samples, alike):
            values = np.array([sample[name] for sample in group])
            low, middle, high = np.percentile(values, [5, 50, 95])
            cells += [f"{shown(middle)} ({shown(low)} to {shown(high)})", f"{np.mean(values <= value):.2f}"]
        print("| " + " | ".join(cells) + " |")
    print(f"\n{len(samples)} samples, {len(alike)} of them alike.")


def print_memory_table(seeds: int) -> None:
    """Option 2, of which the reference fills 80 % of the memory, beside a tier that is filled."""
    print("| memory filled to | reads from storage | GiB demoted per request | hit rate of earlier turns |")
    print("|---|---|---|---|")
    for fill in (0.8, 0.95, 1.0):
        runs = [play(*option_2(seed, fill), Rates(read=1e9, write=0.5e9)) for seed in range(seeds)]
        reads = sum(run.read_bytes for run in runs)
        turns = sum(run.history_hits + run.history_misses for run in runs)
        print(
            f"| {fill:.0%} | {sum(run.storage_read_bytes for run in runs) / reads:.1%} of bytes"
            f" | {sum(run.demoted_bytes for run in runs) / GIB / sum(run.requests for run in runs):.3f}"
            f" | {sum(run.history_hits for run in runs) / turns:.3f} |"
        )


def option_2(seed: int, fill: float) -> tuple[RunConfig, int, list[int]]:
    """The preset for a minute, its rank, and the capacities of its tiers."""
    found = load_config("mlperf/option-2", (f"seed={seed}", f"tiers.0.fill={fill}", "duration_s=60"))
    memory = found.tiers[0].usable_bytes
    assert memory != "auto", "the preset says how large the memory is"
    return found, 0, [memory, 1 << 50]


def config(seed: int) -> RunConfig:
    """The parameters of the reference's result."""
    return load_config("mlperf/option-1", (*SETTINGS, f"seed={seed}"))


def rates(reference: dict[str, Any]) -> Rates:
    """How fast the reference's operations were, one by one, and what its workers did beside them."""
    summary, stats = reference["summary"], reference["summary"]["cache_stats"]
    storage_s = summary["total_storage_io_time"]
    return Rates(
        read=stats["total_read_bytes"] / (storage_s * READ_SHARE),
        write=stats["total_write_bytes"] / (storage_s * (1 - READ_SHARE)),
        make_s=(WORKERS * summary["elapsed_time"] - storage_s) / summary["total_requests"],
    )


def figures_of_reference(reference: dict[str, Any]) -> dict[str, float]:
    """The figures of `Played.figures`, from the reference's result."""
    summary, stats = reference["summary"], reference["summary"]["cache_stats"]
    played = Played(
        requests=summary["total_requests"],
        interactive=summary["qos_metrics"]["interactive"]["total_requests"],
        reads=stats["read_iops"],
        read_bytes=stats["total_read_bytes"],
        written=[stats["total_write_bytes"]],
        hits=stats["cache_hits"],
        misses=stats["cache_misses"],
        history_hits=reference["multi_turn_cache_hits"],
        history_misses=reference["multi_turn_cache_misses"],
        prompts=summary["prefix_cache_stats"]["prefix_hits"],
    )
    return played.figures()


def figures_of_run(trial: RankTrial) -> dict[str, float]:
    """The same from a run file; operations of requests that the end cut short do not count."""
    rows, look_ups = trial.rows, trial.rows.look_ups
    done = np.isin(rows.records["request"], rows.requests["request"])
    reads = done & (rows.records["op"] == Op.READ)
    started = look_ups["prompt_misses"] + look_ups["plain_requests"]
    played = Played(
        requests=len(rows.requests["request"]),
        interactive=int((rows.requests["qos"] == 0).sum()),
        reads=int(reads.sum()),
        read_bytes=int(rows.records["nbytes"][reads].sum()),
        written=rows.records["nbytes"][done & (rows.records["op"] == Op.WRITE)].tolist(),
        hits=look_ups["history_hits"] + look_ups["context_hits"],
        misses=look_ups["history_misses"] + look_ups["context_misses"] + look_ups["prompt_misses"],
        history_hits=look_ups["history_hits"],
        history_misses=look_ups["history_misses"],
    )
    figures = played.figures()
    # Look-ups are counted as requests come to them, of requests that were started.
    figures["earlier turns per request"] = (look_ups["history_hits"] + look_ups["history_misses"]) / started
    figures["system prompts per request"] = look_ups["prompt_misses"] / started
    return figures


def measure(read_path: str, directory: Path, seconds: float) -> RankTrial:
    """Run kvbench, and its one rank."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        out = Path(place) / "run.h5"
        command = [sys.executable, "-m", "kvbench", "run", "mlperf/option-1", "--dir", place, "--out", str(out)]
        for setting in (*SETTINGS, f"duration_s={seconds}", f"io.read_path={read_path}"):
            command += ["--set", setting]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (rank,) = ranks_of(out)
    read_gib = rank.rows.records["nbytes"][rank.storage(Op.READ)].sum() / GIB
    print(f"{read_path}: {read_gib / rank.rows.elapsed_s:.2f} GiB/s read", file=sys.stderr)
    return rank


def is_alike(sample: dict[str, float]) -> bool:
    """Whether a sample is like the reference's."""
    low, high = ALIKE_REQUESTS
    return low <= sample["requests"] <= high and sample["of interactive users"] >= ALIKE_INTERACTIVE


def shown(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
