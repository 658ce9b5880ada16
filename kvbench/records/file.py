"""Writing a run file: an HDF5 file with one dataset per column (`docs/hdf5-schema.md`). `reader` reads it.

The file has a temporary name beside its target until it is complete (`unfinished`). Metadata has HDF5's checksums
(format 1.10) and chunks have Fletcher-32, so damage is found when the file is read. Nothing here knows what the figures
mean.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.records.outputs import HDF5, Written, check_output
from kvbench.records.schema import (
    CODES,
    FILE_CHUNK_ROWS,
    RECORD_COLUMNS,
    RECORD_DTYPE,
    REQUEST_COLUMNS,
    REQUEST_DTYPE,
    labels,
)
from kvbench.records.unfinished import UnfinishedFile
from kvbench.units import storable

FORMAT_VERSION: Final = 1
"""Raised whenever a reader of the format before would misread the file."""

CHUNK_ROWS: Final = FILE_CHUNK_ROWS

_BLOCK_ROWS: Final = 2048
"""Rows that are taken apart into columns at once: they stay in the core's cache while 24 columns are taken out."""

_HDF5_ERRORS: Final = (OSError, RuntimeError, ValueError, KeyError, TypeError)


def text_array(value: str) -> NDArray[np.bytes_]:
    """`value` as fixed-length UTF-8: variable-length strings live in HDF5's global heap, which has no checksum."""
    encoded = storable(value).encode()
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, len(encoded))))


class _ColumnTable:
    """One dataset per field of appended rows, buffered up to whole chunks.

    The datasets are made when the first rows are written, since only then is it known whether a small chunk does.
    """

    def __init__(self, name: str, dtype: np.dtype[Any], columns: Sequence[str]) -> None:
        self.name = name
        self._dtype = dtype
        # Pages of these buffers are only backed by memory as far as they are filled.
        self._buffers = {column: np.empty(CHUNK_ROWS, _column_dtype(column, dtype)) for column in columns}
        self._filled = 0
        self._written = 0
        self._datasets: dict[str, Any] = {}

    def append(self, file: Any, rows: NDArray[Any]) -> None:
        if rows.dtype != self._dtype or rows.ndim != 1:
            raise ValueError(f"rows of /{self.name} have another layout: {rows.dtype}")
        start = 0
        while start < len(rows):
            stop = min(start + _BLOCK_ROWS, len(rows), start + CHUNK_ROWS - self._filled)
            block = rows[start:stop]
            end = self._filled + len(block)
            for column, buffer in self._buffers.items():
                buffer[self._filled : end] = block[column]
            self._filled, start = end, stop
            if end == CHUNK_ROWS:
                self.flush(file)

    def flush(self, file: Any) -> None:
        """Write the buffered rows, after which the datasets exist even if there were none."""
        if not self._datasets:
            self._create(file)
        if not self._filled:
            return
        end = self._written + self._filled
        for column, dataset in self._datasets.items():
            dataset.resize((end,))
            dataset[self._written : end] = self._buffers[column][: self._filled]
        self._written, self._filled = end, 0

    def _create(self, file: Any) -> None:
        group = file.create_group(self.name)
        for column, buffer in self._buffers.items():
            self._datasets[column] = group.create_dataset(
                column,
                shape=(0,),
                dtype=buffer.dtype,
                maxshape=(None,),
                chunks=(max(self._filled, 1),),
                fletcher32=True,
                **hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.SHUFFLE),
            )


def _column_dtype(column: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The stored type: codes are HDF5 enumerations, so that the file itself names them."""
    if column not in CODES:
        return dtype[column] if dtype.names else dtype
    enum: np.dtype[Any] = h5py.enum_dtype({name: code for code, name in labels(column).items()}, basetype="u1")
    return enum


class RunFileWriter:
    """Writes one run file. Use it as a context manager, or call `abort` after an error.

    Whatever goes wrong with the file is a KvbenchError that names it, and the temporary file is gone by then. Leaving
    the context without `finish` aborts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
        run_id: str = "",
    ) -> None:
        """Open a temporary file beside `path`, marked with `run_id` if it is given.

        Raises KvbenchError: `path` exists (and not `overwrite`), or is anything but a run file to replace, one of
        `inputs` included; bad folder.
        """
        self.path = Path(path)
        self._overwrite = overwrite
        self._inputs = tuple(inputs)
        output = check_output(path, HDF5, replace=overwrite, inputs=self._inputs)
        assert output.file is not None, "no stream was asked for"
        self._target = output.file
        try:
            self._sink = UnfinishedFile(self._target, run_id)
        except OSError as error:
            raise KvbenchError(f"cannot write {self.path}: {error.strerror} ({error.filename})") from error
        self._descriptor = -1
        self._tables = {
            "records": _ColumnTable("records", RECORD_DTYPE, RECORD_COLUMNS),
            "requests": _ColumnTable("requests", REQUEST_DTYPE, REQUEST_COLUMNS),
        }
        self._file: Any = None
        with self._guard():
            # No chunk cache: every write is whole chunks, and a failure is seen by the call that caused it.
            self._file = h5py.File(self._sink, "w", libver=("v110", "v110"), rdcc_nbytes=0)
            self._file.attrs["format_version"] = FORMAT_VERSION

    @property
    def temporary(self) -> Path:
        """The file's name until it is finished."""
        return self._sink.temporary

    def append_records(self, rows: NDArray[Any]) -> None:
        """Append rows of RECORD_DTYPE to /records; any number at a time. The caller keeps a rank's rows together."""
        with self._guard():
            self._tables["records"].append(self._file, rows)

    def append_requests(self, rows: NDArray[Any]) -> None:
        """Append rows of REQUEST_DTYPE to /requests."""
        with self._guard():
            self._tables["requests"].append(self._file, rows)

    def complete_rows(self) -> None:
        """No more rows of /records and /requests come: write what is buffered, which takes the most memory."""
        with self._guard():
            for table in self._tables.values():
                table.flush(self._file)

    def write_table(self, name: str, columns: Mapping[str, NDArray[Any] | Sequence[str]]) -> None:
        """Write the group /`name` with one dataset per column, all of one length: numbers, or a sequence of str."""
        arrays = {column: _table_array(values) for column, values in columns.items()}
        if len({len(array) for array in arrays.values()}) > 1:
            raise ValueError(f"columns of /{name} differ in length: { {c: len(a) for c, a in arrays.items()} }")
        with self._guard():
            if name in self._tables or name in self._file:
                raise ValueError(f"/{name} is written already")
            group = self._file.create_group(name, track_order=True)
            for column, plain in arrays.items():
                array = plain.astype(_column_dtype(column, plain.dtype)) if plain.dtype == np.uint8 else plain
                checksum = {"chunks": (len(array),), "fletcher32": True} if len(array) else {}
                group.create_dataset(column, data=array, **checksum)

    def set_attributes(self, attributes: Mapping[str, str | int | float]) -> None:
        """Set attributes of the root group; a later value replaces an earlier one."""
        with self._guard():
            for name, value in attributes.items():
                self._file.attrs[name] = text_array(value) if isinstance(value, str) else np.asarray(value)[()]

    def finish(self) -> Path:
        """Write what is buffered and what wrote it, bring it to the device, and give the file its name. Returns the
        path; `written` has the file itself."""
        self.set_attributes({"h5py": h5py.__version__})
        with self._guard():
            for table in self._tables.values():
                table.flush(self._file)
            self._file.close()
            self._sink.complete(to_device=True)
            self._descriptor = self._sink.open_again()
            self._sink.close()
        if not self._overwrite and os.path.lexists(self.path):
            raise KvbenchError(f"{self.path} has appeared during the run: the results are kept in {self.temporary}")
        try:
            # What is there may have become something else during the run.
            check_output(self._target, HDF5, inputs=self._inputs)
            self.temporary.replace(self._target)
        except OSError as error:
            raise KvbenchError(
                f"cannot rename {self.temporary} to {self.path}: {error.strerror}; the results are kept in the former"
            ) from error
        except KvbenchError as error:
            raise KvbenchError(f"{error}; the results are kept in {self.temporary}") from error
        return self.path

    def written(self) -> Written:
        """The finished file, open for reading, whatever stands under its name by now. It is the caller's to close."""
        descriptor, self._descriptor = self._descriptor, -1
        return Written(self.path, descriptor)

    def withdraw(self) -> None:
        """Remove the temporary name while another thread may still be writing: for a process that is being ended."""
        if not self._sink.closed:
            self.temporary.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give up: remove the temporary file. Once finished or aborted, that does nothing."""
        self.written().close()
        if self._sink.closed:
            return
        try:
            if self._file:
                self._file.close()
        except _HDF5_ERRORS:
            # What HDF5 thinks of a file that is about to be removed does not matter.
            pass
        finally:
            self._sink.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn a failure of the file into a KvbenchError, and abort; errors of the caller pass unchanged."""
        if self._sink.closed:
            raise ValueError(f"{self.path} is finished or aborted")
        try:
            yield
        except _HDF5_ERRORS as error:
            self._fail_if_file_failed(error)
            raise
        self._fail_if_file_failed(None)

    def _fail_if_file_failed(self, cause: Exception | None) -> None:
        failure = self._sink.error
        if failure is None:
            return
        self.abort()
        # The sink may be closed already (finish), and then abort has left the temporary file.
        self.temporary.unlink(missing_ok=True)
        raise KvbenchError(
            f"cannot write {self.path}: {failure.strerror}; make room on its filesystem or choose another with --out"
        ) from (cause or failure)


def _table_array(values: NDArray[Any] | Sequence[str]) -> NDArray[Any]:
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        return values
    texts = [text_array(value) for value in values if isinstance(value, str)]
    if len(texts) != len(values):
        raise ValueError("a column holds numbers (an integer or floating-point array) or strings")
    length = max((text.dtype.itemsize for text in texts), default=1)
    return np.array([text.item() for text in texts], h5py.string_dtype("utf-8", length))
