"""Reading a run file, whoever made it: everything is checked before it is believed, and nothing in a file is executed.

`open_run` checks the structure, or the part of it that is asked for, and reads the attributes; `read_columns` reads
only the columns that are asked for, and checks that codes are within their enumerations. The file is open only during
a call.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import hdf5plugin  # noqa: F401  (registers the Blosc2 filter)
import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.records.condensed.population_schema import FILE_TABLES, HISTOGRAM_TABLES, MODES
from kvbench.records.file import FORMAT_VERSION
from kvbench.records.schema import (
    CODES,
    LATER_COLUMNS,
    RECORD_COLUMNS,
    RECORD_DTYPE,
    REQUEST_COLUMNS,
    REQUEST_DTYPE,
    VIRTUAL_FORMAT_VERSION,
    labels,
)

__all__ = ["REQUIRED_ATTRIBUTES", "Attribute", "KvbenchError", "RunFile", "Table", "open_run", "read_columns"]

REQUIRED_ATTRIBUTES: Final = ("status", "tiers_json", "config_json", "ranks", "timer")
"""Root attributes without which a file is not read (besides format_version)."""

_ROWS: Final = {"records": (RECORD_DTYPE, RECORD_COLUMNS), "requests": (REQUEST_DTYPE, REQUEST_COLUMNS)}
_LAYOUTS: Final = _ROWS | {name: (dtype, dtype.names or ()) for name, dtype in FILE_TABLES.items()}
SAMPLE_ATTRIBUTES: Final = (
    "records_sampled_1_in",
    "requests_sampled_1_in",
    "records_population",
    "requests_population",
)
"""Root attributes that a file whose rows are a sample must have."""
_FILTERS: Final = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, 32026})
"""Filters of a dataset that are let in: HDF5's own, and Blosc2. Any other would make HDF5 look for a plugin."""

_TEXT_COLUMNS: Final = {
    "ranks": {"host"},
    "nodes": {
        "host",
        "cpu_model",
        "kernel",
        "clock_source",
        "filesystem",
        "mount_point",
        "mount_options",
        "device",
        "directory",
    },
    "directories": {"directory", "filesystem", "mount_point", "mount_options", "device"},
    "calibration": {"kind", "mode"},
    "samples": frozenset[str](),
    "drives": {"drive"},
    "batches": frozenset[str](),
    "splits": frozenset[str](),
    "delays": frozenset[str](),
    "sharing": {"role"},
    "visibility": frozenset[str](),
    "violations": {"kind", "text"},
}
"""The columns of the tables below that hold text; all others of them hold numbers."""

_MAX_CHUNK_BYTES: Final = 64 * 1024**2
_MAX_ATTRIBUTE_BYTES: Final = 64 * 1024**2
_HDF5_ERRORS: Final = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError)

Attribute = str | int | float


@dataclass(frozen=True)
class Table:
    """The columns of one group, and how many rows all of them have."""

    rows: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class RunFile:
    """A checked run file: its attributes, and what its tables hold. /records and /requests are always there."""

    path: Path
    attributes: Mapping[str, Attribute]
    tables: Mapping[str, Table]
    source: Path
    """What it is opened by: `path`, or a descriptor of the file that once had that name."""

    @property
    def tiers(self) -> tuple[dict[str, Any], ...]:
        """The tiers in the order of their codes, each with at least `name` and `kind`."""
        return tuple(json.loads(str(self.attributes["tiers_json"])))

    @property
    def tiers_are_storage(self) -> tuple[bool, ...]:
        """Of each tier, whether it is storage and not the node's memory."""
        return tuple(bool(tier.get("storage", tier["kind"] != "memory")) for tier in self.tiers)


def open_run(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str] | None = None,
    *,
    only: Mapping[str, Collection[str]] | None = None,
) -> RunFile:
    """Check the run file at `path` and read its attributes. Raises KvbenchError naming the file and what is wrong.

    `source`: what the file is opened by, where that is something else than its name. `only`: the columns, by table,
    that will be read; others are neither checked nor known: to look at every one takes longer than to read a few.
    """
    name, opened_by = Path(path), Path(path if source is None else source)
    with _opened(name, opened_by) as file:
        attributes = _attributes(name, file)
        nbytes = opened_by.stat().st_size
        groups = _hard_links(name, file, only)
        there = set(file)
        tables = {
            table: _table(name, table, group, nbytes, None if only is None else only[table])
            for table, group in groups.items()
        }
    run = RunFile(name, attributes, tables, opened_by)
    _check_attributes(run)
    for table in _required(run):
        if table not in there:
            raise _refuse(name, f"/{table} is missing")
    return run


def read_columns(
    run: RunFile, table: str, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None
) -> dict[str, NDArray[Any]]:
    """Rows `start` to `stop` of `columns` (None: all) of `table`, each as an array; text as an array of str objects.

    Raises KvbenchError where a column does not exist, is damaged, or holds a code that nothing is named by.
    """
    if table not in run.tables:
        raise _refuse(run.path, f"it has no /{table}")
    known = run.tables[table].columns
    names = known if columns is None else tuple(columns)
    for name in names:
        if name not in known:
            raise KvbenchError(f"{run.path}: /{table} has no column {name!r}; it has {', '.join(known)}")
    result = {}
    with _opened(run.path, run.source) as file:
        for name in names:
            values = file[table][name][start:stop]
            result[name] = _decoded(values) if values.dtype.kind in "SO" else values.view(values.dtype.str)
            if table in _LAYOUTS:
                _check_codes(run, name, values)
    return result


def _refuse(path: Path, reason: str) -> KvbenchError:
    return KvbenchError(f"{path} is not a complete kvbench run file: {reason}")


@contextmanager
def _opened(path: Path, source: Path) -> Iterator[Any]:
    try:
        if source.exists() and not source.is_file():
            # A pipe would be waited for, a device read without end.
            raise KvbenchError(f"cannot read {path}: it is not a regular file")
        if source != path:
            # HDF5 opens nothing that has no name any more.
            with open(source, "rb", buffering=0) as plain, h5py.File(plain, "r") as file:
                yield file
            return
        # Some parallel filesystems refuse file locks, which a finished file does not need.
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise KvbenchError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except MemoryError as error:
        raise KvbenchError(f"not enough memory to read {path}; read fewer columns") from error
    except _HDF5_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise KvbenchError(f"{path} is no HDF5 file, or is truncated or damaged: {reason}") from error


def _hard_links(path: Path, group: Any, wanted: Collection[str] | None = None) -> dict[str, Any]:
    """The members of `group`, or those of them that are `wanted`. Links to elsewhere are refused: they would have other
    files read."""
    names = [name for name in group if wanted is None or name in wanted]
    for name in names:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _refuse(path, f"{group.name.rstrip('/')}/{name} is a link to elsewhere")
    return {name: group[name] for name in names}


def _attributes(path: Path, file: Any) -> dict[str, Attribute]:
    attrs = file.attrs
    if "format_version" not in attrs:
        raise _refuse(path, "the attribute format_version is missing, so kvbench did not write it")
    result: dict[str, Attribute] = {}
    for name in attrs:
        identifier = attrs.get_id(name)
        if identifier.shape != () or identifier.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
            raise _refuse(path, f"the attribute {name} is not a single value")
        value = attrs[name]
        if isinstance(value, bytes | str):
            result[name] = value.decode("utf-8") if isinstance(value, bytes) else value
        elif isinstance(value, np.integer | np.bool_):
            result[name] = int(value)
        elif isinstance(value, np.floating):
            result[name] = float(value)
        else:
            raise _refuse(path, f"the attribute {name} is neither text nor a number")
    return result


def _check_attributes(run: RunFile) -> None:
    version = run.attributes["format_version"]
    if version not in (FORMAT_VERSION, VIRTUAL_FORMAT_VERSION):
        raise KvbenchError(
            f"{run.path} has format version {version}, and this kvbench reads versions {FORMAT_VERSION} and "
            f"{VIRTUAL_FORMAT_VERSION}: "
            "use the kvbench that wrote it (attribute kvbench_version)"
        )
    for name in REQUIRED_ATTRIBUTES:
        if name not in run.attributes:
            raise _refuse(run.path, f"the attribute {name} is missing")
    tiers = _json_attribute(run, "tiers_json")
    if not isinstance(tiers, list) or not all(
        isinstance(tier, dict) and isinstance(tier.get("name"), str) and isinstance(tier.get("kind"), str)
        for tier in tiers
    ):
        raise _refuse(run.path, "tiers_json is not a list of tiers with name and kind")
    if not isinstance(_json_attribute(run, "config_json"), dict):
        raise _refuse(run.path, "config_json is not a mapping")


def _required(run: RunFile) -> list[str]:
    """The tables without which such a run file is not complete."""
    mode = run.attributes.get("records", "full")
    if mode not in MODES:
        raise _refuse(run.path, f"the attribute records is {mode!r}, and can be {', '.join(MODES)}")
    if mode == "full":
        return list(_ROWS)
    for name in SAMPLE_ATTRIBUTES:
        value = run.attributes.get(name)
        if not isinstance(value, int) or not 0 <= value < 2**63:
            raise _refuse(run.path, f"the attribute {name} is not a number of rows")
    return [name for name in _LAYOUTS if mode == "histogram" or name not in HISTOGRAM_TABLES]


def _json_attribute(run: RunFile, name: str) -> Any:
    try:
        return json.loads(str(run.attributes[name]))
    except (ValueError, RecursionError) as error:
        raise _refuse(run.path, f"the attribute {name} is not JSON") from error


def _table(path: Path, name: str, group: Any, nbytes: int, wanted: Collection[str] | None) -> Table:
    if not isinstance(group, h5py.Group):
        raise _refuse(path, f"/{name} is not a group of columns")
    datasets = _hard_links(path, group, wanted)
    for column, dataset in datasets.items():
        _check_dataset(path, f"/{name}/{column}", dataset, nbytes)
    lengths = {len(dataset) for dataset in datasets.values()}
    if len(lengths) > 1:
        sizes = ", ".join(f"{column} {len(dataset)}" for column, dataset in datasets.items())
        raise _refuse(path, f"the columns of /{name} differ in length: {sizes}")
    for column, dataset in datasets.items():
        if name in _TEXT_COLUMNS and (dataset.dtype.kind == "S") != (column in _TEXT_COLUMNS[name]):
            expected = "text" if column in _TEXT_COLUMNS[name] else "numbers"
            raise _refuse(path, f"/{name}/{column} does not hold {expected}")
    columns = tuple(datasets)
    if name in _LAYOUTS:
        dtype, columns = _LAYOUTS[name]
        columns = tuple(column for column in columns if wanted is None or column in wanted)
        columns = tuple(column for column in columns if column in datasets or column not in LATER_COLUMNS)
        for column in columns:
            _check_column(path, name, column, datasets.get(column), dtype[column])
    return Table(rows=lengths.pop() if lengths else 0, columns=columns)


def _check_dataset(path: Path, where: str, dataset: Any, nbytes: int) -> None:
    """What would read other files, load plugins, or claim more rows than it stores, is refused before it is read.
    `nbytes`: of the file."""
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in "iufS":
        raise _refuse(path, f"{where} is not a one-dimensional dataset of numbers or fixed-length text")
    if dataset.is_virtual or dataset.external:
        raise _refuse(path, f"{where} stores its values in another file")
    creation = dataset.id.get_create_plist()
    if any(creation.get_filter(index)[0] not in _FILTERS for index in range(creation.get_nfilters())):
        raise _refuse(path, f"{where} is compressed with an unknown filter")
    rows, row_bytes = len(dataset), dataset.dtype.itemsize
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() >= rows * row_bytes
        if creation.get_layout() == h5py.h5d.CONTIGUOUS and rows:
            # The size that the layout claims, and no more than the file has.
            offset = dataset.id.get_offset()
            complete &= offset is not None and offset + rows * row_bytes <= nbytes
    else:
        if dataset.chunks[0] * row_bytes > _MAX_CHUNK_BYTES:
            raise _refuse(path, f"{where} has chunks of {dataset.chunks[0] * row_bytes} bytes")
        complete = dataset.id.get_num_chunks() >= -(-rows // dataset.chunks[0])
    if not complete:
        raise _refuse(path, f"{where} claims {rows} rows and stores fewer")


def _check_column(path: Path, table: str, column: str, dataset: Any, dtype: np.dtype[Any]) -> None:
    where = f"/{table}/{column}"
    if dataset is None:
        raise _refuse(path, f"{where} is missing")
    if dataset.dtype != dtype:
        raise _refuse(path, f"{where} has type {dataset.dtype}, not {dtype}")
    if column in CODES:
        stored = h5py.check_enum_dtype(dataset.dtype)
        known = labels(column)
        # Of a file that is older than the last codes, the others.
        if (
            not stored
            or sorted(stored.values()) != list(range(len(stored)))
            or any(known.get(code) != name for name, code in stored.items())
        ):
            raise _refuse(path, f"{where} is not the enumeration {labels(column)}")


def _check_codes(run: RunFile, column: str, values: NDArray[Any]) -> None:
    codes = len(run.tiers) if column == "tier" else len(CODES[column]) if column in CODES else None
    if codes is not None and len(values) and int(values.max()) >= codes:
        raise _refuse(run.path, f"the column {column} holds the code {values.max()}, and {codes - 1} is the highest")


def _decoded(values: NDArray[Any]) -> NDArray[Any]:
    return np.array([value.decode("utf-8", "replace") for value in values], dtype=object)
