"""Runs that are put beside each other are different runs: one that counts twice makes an interval of nothing."""

import os
from collections.abc import Sequence

from kvbench_analysis.tables.load import Run

from kvbench.records.reader import KvbenchError


def check_distinct(runs: Sequence[Run]) -> None:
    """Raise KvbenchError where two of `runs` are one: a file twice, by whatever path, or a copy of it."""
    files: dict[tuple[int, int], Run] = {}
    identities: dict[str, Run] = {}
    for run in runs:
        status = os.stat(run.path)
        same = files.setdefault((status.st_dev, status.st_ino), run)
        if same is not run:
            told = f"{run.path} is given twice" if same.path == run.path else f"{same.path} and {run.path} are one file"
            raise KvbenchError(f"{told}: every run counts once, give different ones")
        identity = str(run.attributes.get("run_id", ""))
        same = identities.setdefault(identity, run) if identity else run
        if same is not run:
            raise KvbenchError(
                f"{same.path} and {run.path} are of the same run ({identity}): every run counts once, give one of them"
            )
