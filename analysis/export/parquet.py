"""A run file as a folder of Parquet files. Rows go through memory in pieces, so that a run of any size can be written.

/records, /requests and /batches are folders, with one more for each rank (`records/rank=3/part-0.parquet`), as Hive and
all that followed it lay out what is partitioned; the other tables are a file each (`samples.parquet`), and the
attributes a file of one row (`run.parquet`). Needs pyarrow.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from kvbench_analysis.export.units import unit_of
from kvbench_analysis.tables.grouping import Grouping
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import FILE_CHUNK_ROWS

PARTITIONED: Final = ("records", "requests", "batches")
"""Tables that have a folder for each rank; the column `rank` is in the names of these, and not in the files."""
ATTRIBUTES: Final = "run"
"""The name of the table of one row that the attributes of the run make."""
KEY: Final = b"kvbench"
"""Of what each file says of itself, as JSON: `run_id`, `table`, and `units` by column."""

Columns = Mapping[str, NDArray[Any]]


def export_parquet(run: Run, folder: Path, piece_rows: int = FILE_CHUNK_ROWS) -> dict[str, int]:
    """Write every table of `run` into `folder`, an empty one that is there; returns the rows of each.

    Columns have the names and units that they have in pandas (`kvbench_analysis.load`), and codes are names where they
    are there. `piece_rows` are in memory at a time. Raises KvbenchError for a damaged file, OSError where nothing can
    be written, ImportError without pyarrow.
    """
    for name, table in run.file.tables.items():
        if name in PARTITIONED and "rank" in table.columns:
            _by_rank(run, name, folder / name, piece_rows)
        else:
            _one_file(run, name, folder / f"{name}.parquet", piece_rows)
    attributes = {
        name: np.array([value], object if isinstance(value, str) else None) for name, value in run.attributes.items()
    }
    layout = _Layout(run, ATTRIBUTES, attributes, {})
    with layout.writer(folder / f"{ATTRIBUTES}.parquet") as writer:
        writer.write_table(layout.table(attributes))
    return {name: table.rows for name, table in run.file.tables.items()}


class _Layout:
    """The columns of a table's files: their types, names of codes, and units."""

    def __init__(self, run: Run, table: str, sample: Columns, names: Mapping[str, list[str]]) -> None:
        """`sample`: columns with any number of rows; `names`: of the codes of those columns that hold codes."""
        self._arrow = importlib.import_module("pyarrow")
        self._parquet = importlib.import_module("pyarrow.parquet")
        self._names = names
        units = {column: unit for column in sample if (unit := unit_of(column))}
        told = {"run_id": str(run.attributes.get("run_id", "")), "table": table, "units": units}
        fields = [
            self._arrow.field(column, self._type(column, values.dtype), metadata=_of_field(units.get(column)))
            for column, values in sample.items()
        ]
        self.schema = self._arrow.schema(fields, metadata={KEY: json.dumps(told)})

    def _type(self, column: str, dtype: np.dtype[Any]) -> Any:
        if column in self._names:
            return self._arrow.dictionary(self._arrow.int16(), self._arrow.string())
        return self._arrow.string() if dtype.hasobject else self._arrow.from_numpy_dtype(dtype)

    def writer(self, path: Path) -> Any:
        """A pyarrow.parquet.ParquetWriter of a new file, a context manager."""
        return self._parquet.ParquetWriter(path, self.schema, compression="zstd")

    def table(self, columns: Columns) -> Any:
        """`columns` as a pyarrow.Table."""
        arrays = [self._array(field, columns[field.name]) for field in self.schema]
        return self._arrow.Table.from_arrays(arrays, schema=self.schema)

    def _array(self, field: Any, values: NDArray[Any]) -> Any:
        if field.name not in self._names:
            return self._arrow.array(values, type=field.type)
        codes = self._arrow.array(values.astype(np.int16))
        return self._arrow.DictionaryArray.from_arrays(codes, self._arrow.array(self._names[field.name]))


def _of_field(unit: str | None) -> dict[str, str] | None:
    return None if unit is None else {"unit": unit}


def _layout(run: Run, table: str, columns: list[str], piece_rows: int) -> _Layout:
    sample = run.columns(columns, table, 0, 0)
    names = {}
    for column, values in sample.items():
        known = run.names_of(table, column)
        # As in pandas: codes that not all have a name stay numbers, in every piece.
        if known and values.dtype == np.uint8:
            highest = max((int(piece[column].max()) for piece in _pieces(run, table, [column], piece_rows)), default=0)
            if highest < len(known):
                names[column] = known
    return _Layout(run, table, sample, names)


def _pieces(run: Run, table: str, columns: list[str], piece_rows: int) -> Iterator[dict[str, NDArray[Any]]]:
    """So many rows at a time; none of a table that has none."""
    for start in range(0, run.file.tables[table].rows, piece_rows):
        yield run.columns(columns, table, start, start + piece_rows)


def _one_file(run: Run, table: str, path: Path, piece_rows: int) -> None:
    columns = list(run.file.tables[table].columns)
    layout = _layout(run, table, columns, piece_rows)
    with layout.writer(path) as writer:
        for piece in _pieces(run, table, columns, piece_rows):
            writer.write_table(layout.table(piece))


def _by_rank(run: Run, table: str, folder: Path, piece_rows: int) -> None:
    columns = list(run.file.tables[table].columns)
    layout = _layout(run, table, [column for column in columns if column != "rank"], piece_rows)
    folder.mkdir()
    parts = _Parts(layout, folder)
    try:
        if not run.file.tables[table].rows:
            # So that whoever asks for the rows finds none, and not that there is no such table.
            parts.begin(0)
        for piece in _pieces(run, table, columns, piece_rows):
            numbers = piece.pop("rank")
            if numbers.min() < 0:
                raise KvbenchError(f"{run.path}: /{table} has rows of rank {numbers.min()}: the file is damaged")
            ranks = Grouping(numbers)
            split = {column: list(ranks.split(values)) for column, values in piece.items()}
            for place, rank in enumerate(ranks.keys):
                parts.write(rank, {column: groups[place] for column, groups in split.items()})
    finally:
        parts.close()


class _Parts:
    """The files of a table's ranks, one of them open at a time. Ranks stand in a run file one after the other; should
    one come again, it gets another part."""

    def __init__(self, layout: _Layout, folder: Path) -> None:
        self._layout = layout
        self._folder = folder
        self._rank = -1
        self._writer: Any = None
        self._made: dict[int, int] = {}

    def begin(self, rank: int) -> None:
        """Go on with the file of `rank`, or a new one."""
        if rank == self._rank:
            return
        self.close()
        number = self._made.get(rank, 0)
        folder = self._folder / f"rank={rank}"
        folder.mkdir(exist_ok=True)
        self._writer = self._layout.writer(folder / f"part-{number}.parquet")
        self._rank, self._made[rank] = rank, number + 1

    def write(self, rank: int, columns: Columns) -> None:
        self.begin(rank)
        self._writer.write_table(self._layout.table(columns))

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer, self._rank = self._writer, None, -1
            writer.close()
