"""The table of a study of engines: one row per run, kept as CSV after every run. `kvbench_analysis` compares them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import kvbench_analysis
import pandas as pd
from kvbench_analysis.engines.loads import load_figures

from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import block_bytes
from kvbench.records.outputs import check_output, write_output
from kvbench.studies.engines import TABLE, EngineRun
from kvbench.studies.limit import Limit
from kvbench.units import storable

_FIRST: Final = ("engine", "package", "version", "checked", "repeat", "order", "ranks")


class EnginesTable:
    """Rows of finished runs, in the order in which they were run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def add(self, run: EngineRun, path: Path, limit: Limit) -> str:
        """Add a run and write the table; returns its figures for people. Raises KvbenchError."""
        loaded = kvbench_analysis.load(path)
        figures = load_figures(loaded)
        twin = run.twin
        facts = (twin.name, twin.package, twin.version, twin.checked, run.repeat, len(self._rows))
        row: dict[str, Any] = dict(zip(_FIRST, (*facts, int(loaded.attributes["ranks"])), strict=True))
        row |= {"limit_gib_per_s": limit.gib_per_s, "limit_direct": limit.direct, "limit_requests": limit.requests}
        row |= {"block_bytes": block_bytes(RunConfig.model_validate(loaded.config))}
        row |= asdict(figures)
        row |= {"fingerprint": loaded.attributes["fingerprint"], "run_file": storable(str(path))}
        self._rows.append(row)
        content = pd.DataFrame(self._rows).to_csv(index=False)
        write_output(check_output(self._path, TABLE), content.encode(), TABLE)
        rate = figures.load_gib / figures.load_seconds
        return f"{rate:.3g} GiB/s loaded, {100 * rate / limit.gib_per_s:.0f} % of {limit.gib_per_s:.3g}"
