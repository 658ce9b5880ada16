"""A run file as pandas tables, read only when they are asked for. Makes no figures."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.records.reader import Attribute, RunFile, open_run, read_columns
from kvbench.records.schema import CODES, labels

CODED_TABLES: Final = ("records", "requests", "batches")
"""Those whose codes are shown by their names."""


class Run:
    """One run. Tables are read at first use and kept; `columns` reads what it is asked for and keeps nothing."""

    def __init__(self, file: RunFile) -> None:
        """`file` is what `kvbench.records.reader.open_run` gave; `load` does both."""
        self.file = file

    def __repr__(self) -> str:
        tables = ", ".join(f"{name} {table.rows}" for name, table in self.file.tables.items())
        return f"Run({str(self.path)!r}: {tables})"

    @property
    def path(self) -> Path:
        """Where the run was read from."""
        return self.file.path

    @property
    def attributes(self) -> Mapping[str, Attribute]:
        """The root attributes of the file (docs/hdf5-schema.md)."""
        return self.file.attributes

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole configuration of the run."""
        config: dict[str, Any] = json.loads(str(self.attributes["config_json"]))
        return config

    @property
    def serves_as_engine(self) -> bool:
        """Whether requests did what those of a serving engine do: what they found are prefixes of their contexts."""
        workload = self.config.get("workload")
        if not isinstance(workload, dict):
            return False
        return workload.get("serving") == "engine" or workload.get("kind") == "sessions"

    @property
    def mode(self) -> str:
        """What the rows of /records are: `full` (all), or a sample beside exact sums (`sampled`) and `histogram`s."""
        return str(self.attributes.get("records", "full"))

    def sampled_1_in(self, table: str = "records") -> int:
        """One in how many rows of the run stands in `table` (`records` or `requests`); 1 for all."""
        return max(1, int(self.attributes.get(f"{table}_sampled_1_in", 1)))

    @property
    def percentiles_are(self) -> str:
        """What the percentiles of this run's summary are made of, in words."""
        if self.mode == "full":
            return "exact, of the full population"
        if self.mode == "histogram":
            return "of the full population, from histograms, within 1 %"
        rows, requests = self.sampled_1_in(), self.sampled_1_in("requests")
        if rows == requests == 1:
            return "exact, of the full population (all of its rows fitted into the sample)"
        of_requests = f"1 in {requests}" if requests > 1 else "all"
        one_in = (f"1 in {rows}" if rows > 1 else "all") + (f" (requests: {of_requests})" if requests != rows else "")
        return f"of a sample of {one_in}; counts, bytes, rates, means and shares are of the full population"

    @cached_property
    def tiers(self) -> pd.DataFrame:
        """One row per tier, in the order of the codes: `name`, `kind`, `storage`, and what else the file says.

        A name has the tier's code before it, should two be equal. `storage` is False for tiers of memory.
        """
        tiers = pd.DataFrame(list(self.file.tiers))
        if tiers.empty:
            return pd.DataFrame({"name": [], "kind": [], "storage": []}, dtype=object)
        tiers["storage"] = self.file.tiers_are_storage
        if tiers["name"].duplicated().any():
            tiers["name"] = [f"{code}:{name}" for code, name in enumerate(tiers["name"])]
        return tiers

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row per operation, all columns; those that hold codes are categorical."""
        return self._frame("records")

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request, all columns; `phase`, `state` and `qos` (if its classes are named) are categorical."""
        return self._frame("requests")

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """One row per rank."""
        return self._frame("ranks")

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """One row per client node."""
        return self._frame("nodes")

    @cached_property
    def storages(self) -> pd.DataFrame:
        """`filesystem`, `device`, `mount_point` and `directory` under test: one row per node or, where ranks had
        directories of their own, per rank."""
        own = self._frame("directories")
        return self.nodes if own.empty else own

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """Bandwidth of memory copies and of the storage, measured before the run."""
        return self._frame("calibration")

    @cached_property
    def batches(self) -> pd.DataFrame:
        """One row per batch of two operations and more, or of a sample of them (`batches_sampled_1_in`); columns that
        hold codes are categorical."""
        return self._frame("batches")

    @cached_property
    def splits(self) -> pd.DataFrame:
        """Sums over all batches whose operations overlap: one row per rank, tier, op, phase and timed_by."""
        return self._frame("splits")

    @cached_property
    def delays(self) -> pd.DataFrame:
        """Of a run of a what-if study, how long each worker was delayed: one row per rank and thread."""
        return self._frame("delays")

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per node and second: processor, memory, pressure and disk counters."""
        return self._frame("samples")

    @cached_property
    def drives(self) -> pd.DataFrame:
        """One row per NVMe drive under test and node: what it counted over the load, where drives could be asked."""
        return self._frame("drives")

    @cached_property
    def qos_classes(self) -> tuple[str, ...]:
        """Names of the classes that `qos` counts, highest priority first; empty where the file does not name them."""
        try:
            names = json.loads(str(self.attributes.get("qos_classes_json", "[]")))
        except (ValueError, RecursionError):
            return ()
        if not isinstance(names, list) or len(set(map(str, names))) != len(names):
            return ()
        return tuple(map(str, names))

    def columns(
        self, names: Sequence[str], table: str = "records", start: int = 0, stop: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Only these columns of `table`, as numpy arrays (codes as numbers); rows `start` to `stop`."""
        return read_columns(self.file, table, names, start, stop)

    def table(self, name: str) -> pd.DataFrame:
        """Any table of the file by its name (`sharing`, `visibility`, ...); empty where the file does not have it."""
        return self._frame(name)

    def _frame(self, table: str) -> pd.DataFrame:
        """`table` as a DataFrame; a table that the file does not have is one without columns and rows."""
        if table not in self.file.tables:
            return pd.DataFrame()
        arrays = read_columns(self.file, table)
        # Without a copy pandas keeps each column as it was read: joining them would take the memory twice.
        return pd.DataFrame(
            {name: self._categorical(table, name, values) for name, values in arrays.items()}, copy=False
        )

    def names_of(self, table: str, column: str) -> list[str]:
        """What the codes in `column` of `table` stand for, in their order; none where it holds no codes, or those of
        another table than /records, /requests and /batches."""
        if table not in CODED_TABLES:
            return []
        if column == "tier":
            return list(self.tiers["name"])
        if column == "qos":
            return list(self.qos_classes)
        return list(labels(column).values()) if column in CODES else []

    def _categorical(self, table: str, column: str, codes: NDArray[Any]) -> NDArray[Any] | pd.Categorical:
        names: list[Any] = self.names_of(table, column)
        # The reader has checked the codes that it knows, which are not those of batches and classes.
        if not names or codes.dtype != np.uint8 or (len(codes) and codes.max() >= len(names)):
            return codes
        signed: NDArray[Any] = codes.view(np.int8) if len(names) < 128 else codes.astype(np.int16)
        return pd.Categorical.from_codes(signed, pd.Index(names))


def load(path: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None) -> Run:
    """Open the run file at `path` and check it; tables are read later. Raises KvbenchError naming what is wrong.

    `source`: what the file is opened by, where that is something else than its name.
    """
    return Run(open_run(path, source))
