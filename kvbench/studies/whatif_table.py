"""The table of a what-if study: one row per run, kept as CSV after every run. `kvbench_analysis` compares them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import kvbench_analysis
import pandas as pd
from kvbench_analysis.text import units
from kvbench_analysis.whatif.run_figures import METRICS, whatif_run

from kvbench.records.outputs import check_output, write_output
from kvbench.studies.whatif import TABLE, WhatIfRun
from kvbench.units import storable


class WhatIfTable:
    """Rows of finished runs, in the order in which they were run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def add(self, run: WhatIfRun, path: Path) -> str:
        """Add a run and write the table; returns its figures for people. Raises KvbenchError."""
        loaded = kvbench_analysis.load(path)
        figures = whatif_run(loaded)
        speed = run.speed
        row: dict[str, Any] = {
            "question": "baseline" if speed is None else speed.part,
            "factor": 1.0 if speed is None else speed.factor,
            "repeat": run.repeat,
            "order": len(self._rows),
            "ranks": int(loaded.attributes["ranks"]),
            "stretch": run.stretch,
        }
        row |= asdict(figures)
        row |= {"fingerprint": loaded.attributes["fingerprint"], "run_file": storable(str(path))}
        self._rows.append(row)
        content = pd.DataFrame(self._rows).to_csv(index=False)
        write_output(check_output(self._path, TABLE), content.encode(), TABLE)
        return (
            f"{METRICS[figures.metric]} P95 {units.duration(figures.p95_ns)}, {units.digits(figures.requests_per_s)} "
            "requests/s"
        )
