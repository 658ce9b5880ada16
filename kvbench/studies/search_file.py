"""The study file of a search on rank 0: read to go on with it, and written anew, whole, after each probe."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import kvbench_analysis
import numpy as np
from kvbench_analysis.search.probe import ProbeFigures
from kvbench_analysis.search.study import SearchFigures, search_figures

import kvbench
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.records.file import RunFileWriter
from kvbench.records.objectives import Objective
from kvbench.records.outputs import HDF5, check_output, make_folder
from kvbench.records.reader import read_columns
from kvbench.records.search import ASKED, KIND, MEASURED_DTYPE, OBJECTIVE_DTYPE, PROBE_DTYPE, Asked, asked_of
from kvbench.records.tables import as_columns, as_rows
from kvbench.run.output.run_file import description

_TABLES: Final = {"probes": PROBE_DTYPE, "objectives": OBJECTIVE_DTYPE, "measured": MEASURED_DTYPE}

Rows = list[dict[str, Any]]


class SearchFile:
    """What a search has measured so far, and the file that holds it."""

    def __init__(self, path: Path, asked: Asked, objectives: Sequence[Objective], facts: dict[str, Any]) -> None:
        """`facts`: `run_id` and `started_at` of the search, `nodes` and `timer`."""
        self.path = path
        self._asked = asked
        self._objectives = objectives
        self._facts = facts
        self.probes: Rows = []
        self._measured: Rows = []

    @classmethod
    def begin(
        cls,
        path: Path,
        asked: Asked,
        objectives: Sequence[Objective],
        facts: dict[str, Any],
        *,
        overwrite: bool,
        resume: bool,
    ) -> "SearchFile":
        """A new file, or with `resume` what `path` holds of the same search. Raises KvbenchError where it may not be
        written, or holds another."""
        check_output(path, HDF5, replace=overwrite or resume, inputs=[asked.source])
        made = cls(path, asked, objectives, facts)
        if resume and path.exists() and path.stat().st_size:
            made._read()
            # With the number of probes and the precision that are asked for now.
            made.save()
        else:
            make_folder(path.parent, "the study file", "choose another directory with --out")
            made.save()
        return made

    def figures(self) -> SearchFigures:
        """What the probes so far say, read from the file."""
        return search_figures(kvbench_analysis.load(self.path))

    def add(self, load: float, seed: int, started_at: str, took_s: float, figures: ProbeFigures) -> None:
        """One more probe; the file is written. Raises KvbenchError."""
        number = len(self.probes)
        self.probes.append(
            {
                "probe": number,
                "load": load,
                "seed": seed,
                "started_at": started_at,
                "took_s": took_s,
                "seconds": figures.seconds,
                "requests": figures.requests,
                "offered_per_s": figures.offered_per_s,
                "served_per_s": figures.served_per_s,
                "served_share": figures.served_share,
                "grew": int(figures.grew),
                "unserved": figures.unserved,
            }
        )
        self._measured += [
            {
                "probe": number,
                "objective": place,
                "requests": each.requests,
                "figure_s": each.figure_s,
                "over_share": each.tried.value,
                "inflation": each.tried.inflation,
            }
            for place, each in enumerate(figures.objectives)
        ]
        self.save()

    def save(self, status: str = "interrupted") -> None:
        """Write the file. Raises KvbenchError."""
        config = RunConfig.model_validate(json.loads(self._asked.config))
        described = description(config, self._asked.ranks, int(self._facts["nodes"]), str(self._facts["timer"]))
        objectives = [
            {
                "objective": number,
                "text": str(each),
                "figure": each.figure,
                "qos": each.qos or "",
                "percentile": np.nan if each.percentile is None else each.percentile,
                "bound_s": each.bound_s,
            }
            for number, each in enumerate(self._objectives)
        ]
        tables = {"probes": self.probes, "objectives": objectives, "measured": self._measured}
        with RunFileWriter(self.path, overwrite=True, run_id=str(self._facts["run_id"])) as writer:
            for name, rows in tables.items():
                writer.write_table(name, as_columns(as_rows(rows, _TABLES[name])))
            writer.set_attributes(
                described
                | {
                    "kind": KIND,
                    ASKED: self._asked.to_json(),
                    "status": status,
                    "status_message": "",
                    "run_id": str(self._facts["run_id"]),
                    "started_at": str(self._facts["started_at"]),
                    "tiers_json": json.dumps([{"name": t.kind, "kind": t.kind} for t in config.tiers]),
                    "fingerprint": config.fingerprint(self._asked.ranks, self._asked.trace_digest),
                    "kvbench_version": kvbench.__version__,
                    "measure_start_ns": 0,
                    "measure_end_ns": 0,
                }
            )
            writer.finish()

    def _read(self) -> None:
        """Raise KvbenchError where the file is not one of the same search."""
        run = kvbench_analysis.load(self.path)
        before = asked_of(run.attributes)
        if before is None:
            raise KvbenchError(f"{self.path} is not the study file of a search: give another --out")
        other = self._asked.differences(before)
        if other:
            words = [f"{name} was {_short(getattr(before, name))}" for name in other]
            raise KvbenchError(
                f"{self.path} was asked something else ({'; '.join(words)}): --resume goes on with the same search; "
                "give another --out, or --overwrite to begin anew"
            )
        with suppress(KeyError):
            self._facts |= {name: str(run.attributes[name]) for name in ("run_id", "started_at")}
        self.probes = _rows(run, "probes")
        self._measured = _rows(run, "measured")


def _rows(run: kvbench_analysis.Run, table: str) -> Rows:
    columns = read_columns(run.file, table)
    names = _TABLES[table].names or ()
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(columns[name].tolist() for name in names), strict=True)
    ]


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "another" if len(text) > 60 else text or "none"
