"""Runs that are put beside each other are different runs: one that counts twice makes an interval of nothing."""

import os
from collections.abc import Sequence
from pathlib import Path

from kvbench_analysis.tables.load import Run

from kvbench.records.reader import KvbenchError


def check_distinct(runs: Sequence[Run]) -> None:
    """Raise KvbenchError where two of `runs` are one: a file twice, by whatever path, or a copy of it."""
    files: dict[tuple[int, int], Path] = {}
    identities: dict[str, Path] = {}
    for run in runs:
        status = os.stat(run.path)
        same = files.get(file := (status.st_dev, status.st_ino))
        if same is not None:
            told = f"{run.path} is given twice" if same == run.path else f"{same} and {run.path} are one file"
            raise KvbenchError(f"{told}: every run counts once, give different ones")
        identity = str(run.attributes.get("run_id", ""))
        same = identities.get(identity)
        if same is not None:
            raise KvbenchError(
                f"{same} and {run.path} are of the same run ({identity}): every run counts once, give one of them"
            )
        files[file] = run.path
        if identity:
            identities[identity] = run.path
