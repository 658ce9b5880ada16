"""A small and whole command line for every command of the table, with what it reads and where it writes."""

from collections.abc import Mapping
from pathlib import Path

from kvbench_command import QUICK, overrides

OLD = Path(__file__).parents[2] / "records" / "version-0.1"
RUN_FILE = OLD / "run.h5"
(SPILL,) = OLD.glob("*.spill")

TREE = Path(__file__).parent / "tree"
"""Of a submission, with a run that holds a summary and nothing else."""
TRACE = Path(__file__).parent / "trace.jsonl"
SESSIONS = Path(__file__).parent / "sessions.jsonl"
"""A trace that has them."""

OUTPUT = "OUTPUT"
"""Stands where a command line names the file that the command makes."""

_TINY = (
    "model={layers: 1, kv_heads: 1, head_dim: 64}",
    "workload.users=6",
    "io.threads=6",
    "io.arena_bytes=24MiB",
    "calibration.seconds=0",
    "tiers.0.capacity_bytes=8MiB",
)
_STUDY = ("--ranks", "1", "--threads", "1", "--size", "64KiB", "--seconds", "0.02", "--paths", "buffered,numpy")


def makers_of_files(folder: Path, spills: Path) -> Mapping[str, tuple[object, ...]]:
    """Of every command that makes a file: its command line, in which OUTPUT stands for the file."""
    return {
        "run": (
            *("run", "smoke", "--dir", folder, "--spill", spills, "--out", OUTPUT, "--overwrite"),
            *overrides(*QUICK),
        ),
        "recover": ("recover", SPILL, "-o", OUTPUT, "--overwrite"),
        "report": ("report", RUN_FILE, "-o", OUTPUT),
        "model fit": ("model", "fit", RUN_FILE, "-o", OUTPUT, "--overwrite"),
        "mlperf audit": ("mlperf", "audit", TREE, "-o", OUTPUT),
        "trace fit": ("trace", "fit", SESSIONS, "-o", OUTPUT, "--overwrite"),
        "trace generate": (
            *("trace", "generate", "sessions", "-o", OUTPUT, "--overwrite"),
            *overrides("duration_s=30"),
        ),
        "trace convert": ("trace", "convert", TRACE, "-o", OUTPUT, "--overwrite"),
        "trace sample": ("trace", "sample", TRACE, "-n", "2", "-o", OUTPUT, "--overwrite"),
        "trace slice": ("trace", "slice", TRACE, "--requests", "1:", "-o", OUTPUT, "--overwrite"),
        "search": (
            *("search", "smoke", "--dir", folder, "--spill", spills, "--out", OUTPUT, "--overwrite"),
            *("--vary", "workload.users", "--objective", "max-throughput", "--probes", "4", "--warmup", "0.1"),
            *overrides(*QUICK),
        ),
        "study copy-path": ("study", "copy-path", "--dir", folder, *_STUDY, "--out", OUTPUT, "--overwrite"),
        "study scaling": (
            *("study", "scaling", "smoke", "--dir", folder, "--ranks", "1", "--strong", "--out", OUTPUT, "--overwrite"),
            *overrides(*QUICK),
        ),
    }


def study_of_engines(folder: Path) -> tuple[object, ...]:
    """Five short runs of one engine; OUTPUT stands for the table."""
    return (
        *("study", "engines", "--dir", folder, "--engines", "lmcache-disk", "--out", OUTPUT, "--overwrite"),
        *overrides("model={layers: 1, kv_heads: 1, head_dim: 16}", "workload.users=1", "tiers.0.capacity_bytes=16MiB"),
        *overrides("calibration.seconds=0"),
    )


def what_if_study(folder: Path) -> tuple[object, ...]:
    """Ten short runs; OUTPUT stands for the table."""
    return (
        *("study", "whatif", "smoke", "--dir", folder, "--faster", "device", "--out", OUTPUT, "--overwrite"),
        *overrides(*QUICK),
    )


def rehearsal(cache: Path, results: Path) -> tuple[object, ...]:
    """A sequence of MLPerf Storage with one trial of one option."""
    words = ("--division", "open", "--system", "box", "--submitter", "Example", "--rehearsal")
    trial = ("--option", "1", "--trials", "1", "--trial-seconds", "0.8")
    return ("mlperf", "run", *words, "--dir", cache, "--results", results, *trial, *overrides(*_TINY))


def makers_of_folders(folder: Path, results: Path, done: Path) -> Mapping[str, tuple[object, ...]]:
    """Of every command that makes files in a folder: its command line, in which OUTPUT stands for the folder.

    `done` are results of a rehearsal."""
    return {
        "report --png": ("report", RUN_FILE, "-o", results / "page.html", "--png", OUTPUT),
        "mlperf run": rehearsal(folder, Path(OUTPUT)),
        "export": ("export", RUN_FILE, "-o", OUTPUT),
        "mlperf package": ("mlperf", "package", done, "-o", OUTPUT),
    }


def only_printing(folder: Path, made: Mapping[str, Path]) -> Mapping[str, tuple[object, ...]]:
    """Of every command that leaves nothing but what it prints, with what `made` has of the others."""
    return {
        "clean": ("clean", folder),
        "compare": ("compare", RUN_FILE, "--vs", made["run"], "--force"),
        "configs": ("configs",),
        "datasize": ("datasize", "smoke"),
        "doctor": ("doctor",),
        "history": ("history", made["run"]),
        "mlperf check": ("mlperf", "check", made["mlperf package"] / "Example"),
        "mlperf table": ("mlperf", "table", made["mlperf package"] / "Example"),
        "model show": ("model", "show", made["model fit"]),
        "plan": ("plan", "mooncake", *overrides(f"workload.path={made['trace']}")),
        "study show": ("study", "show", made["study copy-path"]),
        "summary": ("summary", RUN_FILE),
        "trace info": ("trace", "info", made["trace"]),
    }


def placed(words: tuple[object, ...], output: object) -> list[str]:
    """`words` with the file or folder that the command makes."""
    return [str(output) if str(word) == OUTPUT else str(word) for word in words]
