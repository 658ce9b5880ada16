"""summary.json: the figures of the options as the rules define them, and beside them ours.

The rules add up and average figures of ranks, and take the largest of their percentiles (6.3.4). Figures are of trials
in which every rank has its result: what is left of one in which ranks died is added up nowhere. Below `kvbench` stand
percentiles of all operations of all ranks and trials together, the times that the kernel accounts, and each node.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from kvbench.mlperf.aggregation import FIGURES, Figure
from kvbench.mlperf.tree.parts import RUN_FILE_NAME
from kvbench.mlperf.tree.untrusted import dig, number, read_json
from kvbench.mlperf.trials.rank_figures import percentiles
from kvbench.mlperf.trials.sequence import TrialSequence
from kvbench.mlperf.trials.trial_results import KERNEL_TIMES, RankTrial, ranks_of
from kvbench.records.schema import Op
from kvbench.units import GIB

SCHEMA_VERSION: Final = "1.0"
_OPERATIONS: Final = (("read", Op.READ), ("write", Op.WRITE), ("demote", Op.DEMOTE))


def summary_of(sequence: TrialSequence) -> dict[str, Any]:
    """The content of the summary, from the files of the trials that are there. Raises KvbenchError."""
    told = sequence.content
    options = {str(option): _option(sequence, option) for option in sequence.options}
    return {
        "schema_version": SCHEMA_VERSION,
        "run_datetime": sequence.stamp,
        "npernode": told["npernode"],
        "host_count": len(told["hosts"]),
        "total_ranks": told["total_ranks"],
        "trials_per_option": max(len(option["trials"]) for option in told["options"]),
        "options": options,
        "partial_failure": any(option["partial_failure"] for option in options.values()),
        "trial_failures": sequence.failures(),
        "kvbench": {
            "rehearsal": told["rehearsal"],
            "division": told["division"],
            "system": told["system"],
            "submitter": told["submitter"],
        },
    }


def rank_result_path(sequence: TrialSequence, option: int, trial: int, rank: int) -> Path | None:
    """The result of a rank, None where it is missing."""
    folder = sequence.trial_directory(option, trial) / f"rank_{rank}"
    return next(iter(sorted(folder.glob("kvcache_results_*.json"))), None)


def within_trials(trials: Sequence[Sequence[Mapping[str, Any]]], figure: Figure) -> float | None:
    """A figure over the ranks of each trial and then over the trials; None without a trial. A rank that never touched
    storage has no percentile, and counts as 0."""
    values = [
        figure.within(number(dig(result, *figure.source.split("."))) or 0.0 for result in results) for results in trials
    ]
    return float(figure.across(values)) if values else None


def _option(sequence: TrialSequence, option: int) -> dict[str, Any]:
    trials: list[list[Mapping[str, Any]]] = []
    missing: list[str] = []
    in_memory: list[str] = []
    numbers = [trial["trial"] for trial in sequence.option(option)["trials"]]
    for trial in numbers:
        results: list[Mapping[str, Any]] = []
        for rank in range(sequence.content["total_ranks"]):
            path = rank_result_path(sequence, option, trial, rank)
            if path is None:
                place = sequence.trial_directory(option, trial) / f"rank_{rank}"
                missing.append(str(place.relative_to(sequence.directory)))
                continue
            result = _without_lists(read_json(path))
            if dig(result, "summary", "cache_stats", "storage_entries") == 0:
                in_memory.append(str(path.relative_to(sequence.directory)))
            results.append(result)
        if len(results) == sequence.content["total_ranks"]:
            trials.append(results)
    return {
        "option": option,
        **{figure.name: within_trials(trials, figure) for figure in FIGURES},
        "rank_count": sequence.content["total_ranks"],
        "trial_count": len(trials),
        "partial_failure": bool(missing),
        "missing_files": missing,
        "cpu_tier_ranks": in_memory,
        "kvbench": _ours(sequence, option, numbers),
    }


def _without_lists(result: Any) -> Mapping[str, Any]:
    """A rank's result without what grows with the number of requests."""
    if not isinstance(result, dict):
        return {}
    return {name: value for name, value in result.items() if not isinstance(value, list)}


def _ours(sequence: TrialSequence, option: int, trials: Sequence[int]) -> dict[str, Any]:
    """Over all trials: every operation counts once, whichever rank and trial it is of."""
    times: dict[tuple[str, str], list[np.ndarray[Any, Any]]] = defaultdict(list)
    overlapping: set[str] = set()
    per_node: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        path = sequence.trial_directory(option, trial) / RUN_FILE_NAME
        if not path.exists():
            continue
        gib_per_s: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for rank in ranks_of(path):
            for name, kind, values_ns in _times(rank):
                times[name, kind].append(values_ns)
            overlapping |= {name for name, op in _OPERATIONS if rank.overlaps(op)}
            for name, op in _OPERATIONS:
                nbytes = int(rank.rows.records["nbytes"][rank.storage(op)].sum())
                gib_per_s[rank.host][name] += nbytes / GIB / rank.rows.elapsed_s
        for host, figures in gib_per_s.items():
            for name, value in figures.items():
                per_node[host][name].append(value)
    population = {
        f"storage_{name}_{kind}": {"operations": len(values), **percentiles(values / 1e6, "", "_ms")}
        for (name, kind), parts in times.items()
        for values in [np.concatenate(parts)]
        if len(values) and not (name in overlapping and kind.startswith("kernel_"))
    }
    return {
        "population": population,
        "per_node": {
            host: {f"storage_{name}_gib_per_s": float(np.mean(values)) for name, values in figures.items()}
            for host, figures in per_node.items()
        },
    }


def _times(rank: RankTrial) -> Iterator[tuple[str, str, np.ndarray[Any, Any]]]:
    """(operation, kind of time, ns) of a rank's storage operations. The kernel's device time is what the thread was
    blocked; the rules' device time is the span."""
    for name, op in _OPERATIONS:
        chosen = rank.storage(op)
        for kind in ("wall", "span"):
            yield name, kind, rank.rows.records[f"{kind}_ns"][chosen]
        for kind in () if rank.overlaps(op) else KERNEL_TIMES:
            yield name, f"kernel_{kind}", rank.rows.records[f"{kind}_ns"][chosen]
