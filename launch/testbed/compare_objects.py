"""Files beside objects: whether the runs did the same work, what they reached, and where the time went.

    compare_objects.py --split STORAGE-PATH-TURN.h5 ... --files RUN.h5 ... --objects RUN.h5 ...

A tier of objects is another configuration than one of files, with another fingerprint, so `kvbench compare` refuses
them and pairs none of their figures. Here it is shown instead that their configurations differ only in how bytes move,
and that the requests which ended in both asked for the same operations of the same sizes; the program ends with 1 where
that is not so. The runs of `--files` and `--objects` are pairs of the same minutes: a ratio comes with the range of its
pairs. First, the split of the wall time of every storage of `--split`: over all runs of it, and their range.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from kvbench_analysis import Run, Summary, load, summarize
from kvbench_analysis.compare.comparability import differences

from kvbench.errors import KvbenchError

HOW_BYTES_MOVE = {"tiers.0.kind", "io.read_path", "io.write_path", "io.depth"}
"""Keys in which the configurations may differ."""
CAPACITY = "capacity_bytes (resolved)"
FIGURES = (("GiB/s", "gib_per_s", 1.0), ("P50, ms", "p50_ns", 1e-6), ("P95, ms", "p95_ns", 1e-6))
PARTS = ("device", "host", "runq", "helper")

Request = tuple[int, int, int]
"""Rank, user, number."""
Operations = dict[Request, Counter[tuple[str, int, int]]]
"""What each request asked for: how often which operation of how many tokens and bytes."""


def asked_for(run: Run) -> Operations:
    """Of the requests that ended; deletes go with the request that needed the room."""
    requests = run.requests
    found: Operations = {}
    for rank, user, number in rows_of(requests[requests["state"] == "done"], ["rank", "user", "request"]):
        found[rank, user, number] = Counter()
    for rank, user, number, *operation in rows_of(run.records, ["rank", "user", "request", "op", "tokens", "nbytes"]):
        if (rank, user, number) in found:
            found[rank, user, number][tuple(operation)] += 1
    return found


def rows_of(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """Its rows as tuples of these columns."""
    return zip(*(table[name].tolist() for name in columns), strict=True)


def check_same(files: Sequence[Run], objects: Sequence[Run]) -> str:
    """Raise KvbenchError where the work was not the same; else what was compared, as a sentence."""
    found = differences({"files": files, "objects": objects})
    capacities = {str(run.tiers["capacity_bytes"].iloc[-1]) for run in (*files, *objects)}
    keys = [str(key) for key in found["key"].unique() if not str(key).endswith(CAPACITY)]
    others = sorted(set(keys) - HOW_BYTES_MOVE)
    if others or len(capacities) > 1:
        raise KvbenchError(f"the runs did not do the same work: {', '.join(others) or 'other capacities'} differ")
    requests = operations = 0
    for one, other in zip(files, objects, strict=True):
        first, second = asked_for(one), asked_for(other)
        for request in first.keys() & second.keys():
            if first[request] != second[request]:
                raise KvbenchError(
                    f"request {request[2]} of rank {request[0]} asked {one.path} for {dict(first[request])} and "
                    f"{other.path} for {dict(second[request])}"
                )
            requests += 1
            operations += first[request].total()
    if not operations:
        raise KvbenchError(
            "no request ended in both runs of any pair, so nothing proves the same work: make runs longer"
        )
    return (
        f"Same work: of {len(files)} pairs of runs, the configurations differ in {', '.join(keys)} alone, "
        f"and all {requests} requests that ended in both runs of a pair asked for the same {operations} operations."
    )


def print_ratios(files: Sequence[Summary], objects: Sequence[Summary]) -> None:
    """One row for each operation and figure."""
    print(
        "| operation | figure | node-local disk | S3 | ratio (range of the pairs) |", "|---|---|---|---|---|", sep="\n"
    )
    for op in ("read", "write"):
        for title, name, factor in FIGURES:
            sides = [pd.Series([value(run, op, name) * factor for run in runs]) for runs in (files, objects)]
            ratios = sides[1] / sides[0]
            told = " | ".join(f"{side.median():.3g} ({side.min():.3g} to {side.max():.3g})" for side in sides)
            print(f"| {op} | {title} | {told} | {ratios.median():.3g} ({ratios.min():.3g} to {ratios.max():.3g}) |")


def value(summary: Summary, op: str, name: str) -> float:
    """A figure of the storage of a run."""
    table = summary.operations if name == "gib_per_s" else summary.latency[summary.latency["part"] == "wall"]
    return float(table[table["op"] == op][name].iloc[0])


def print_splits(storages: dict[str, list[Summary]]) -> None:
    """One row for each storage, path and operation: shares of the wall time, in percent."""
    print(
        "| storage | path | operation | device | host | run queue | helpers | of |",
        "|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    for name, summaries in storages.items():
        storage, _, path = name.partition("-")
        for op in ("read", "write"):
            rows = pd.DataFrame([one.totals[one.totals["op"] == op].iloc[0] for one in summaries])
            cells = [share(rows[f"{part}_share"]) for part in PARTS]
            print(f"| {storage} | {path} | {op} | {' | '.join(cells)} | {', '.join(rows['split_of'].unique())} |")


def share(of: pd.Series) -> str:
    """`97 % (96 to 98)`; `-` where there is none."""
    known = of.astype(float) * 100
    return "-" if known.isna().all() else f"{known.median():.2g} % ({known.min():.2g} to {known.max():.2g})"


def arguments(words: Sequence[str]) -> dict[str, list[str]]:
    """What follows each option."""
    found: dict[str, list[str]] = {"--split": [], "--files": [], "--objects": []}
    option = ""
    for word in words:
        if word in found:
            option = word
        else:
            found[option].append(word)
    return found


def main() -> None:
    """Print the tables."""
    given = arguments(sys.argv[1:])
    storages: dict[str, list[Summary]] = {}
    for word in given["--split"]:
        storages.setdefault(Path(word).stem.rpartition("-")[0], []).append(summarize(load(word)))
    print_splits(storages)
    if given["--objects"]:
        files, objects = ([load(path) for path in given[option]] for option in ("--files", "--objects"))
        said = check_same(files, objects)
        print()
        print_ratios([summarize(run) for run in files], [summarize(run) for run in objects])
        print("", said, sep="\n")


try:
    main()
except KvbenchError as error:
    sys.exit(f"compare_objects: {error}")
