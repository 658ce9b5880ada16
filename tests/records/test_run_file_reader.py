"""Reading run files that kvbench did not write, or that did not survive: one message, never a wrong figure."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kvbench.errors import KvbenchError
from kvbench.records.file import RunFileWriter
from kvbench.records.reader import open_run, read_columns
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    records = np.zeros(200, RECORD_DTYPE)
    for name in ("wall_ns", "host_ns", "nbytes"):
        records[name] = rng.integers(0, 2**40, len(records))
    with RunFileWriter(tmp_path_factory.mktemp("good") / "run.h5") as writer:
        writer.append_records(records)
        writer.append_requests(np.zeros(50, REQUEST_DTYPE))
        writer.write_table("ranks", {"rank": np.arange(2), "host": ["a", "b"]})
        writer.set_attributes({"status": "complete", "config_json": "{}", "ranks": 2, "timer": "extension"})
        writer.set_attributes({"tiers_json": '[{"name": "storage", "kind": "file"}]'})
        return writer.finish()


def read_everything(path: Path) -> dict[str, Any]:
    run = open_run(path)
    tables = {
        f"{table}/{name}": read_columns(run, table)[name] for table in run.tables for name in run.tables[table].columns
    }
    return dict(run.attributes) | {name: values.tolist() for name, values in tables.items()}


def replaced(file: Any, name: str, values: Any, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, data=values, **options)


def test_only_what_is_asked_for_is_checked_and_known(good: Path, tmp_path: Path) -> None:
    only = {"records": ("nbytes", "op"), "ranks": ("host", "missing"), "nodes": ("host",)}
    run = open_run(good, only=only)
    assert {name: set(table.columns) for name, table in run.tables.items()} == {
        "records": {"nbytes", "op"},
        "ranks": {"host"},
    }
    assert read_columns(run, "records")["nbytes"].tolist() == read_columns(open_run(good), "records")["nbytes"].tolist()
    path = tmp_path / "run.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        replaced(file, "records/wall_ns", np.zeros(7, np.int64))
    with pytest.raises(KvbenchError, match="differ in length"):
        open_run(path)
    assert open_run(path, only=only).tables["records"].rows == 200
    with h5py.File(path, "r+") as file:
        replaced(file, "records/nbytes", np.zeros(200, np.float32))
    with pytest.raises(KvbenchError, match="records/nbytes has type float32"):
        open_run(path, only=only)


@pytest.mark.parametrize("table", ["records", "requests"])
def test_a_file_without_its_large_tables_is_refused_whatever_is_asked_for(
    good: Path, tmp_path: Path, table: str
) -> None:
    path = tmp_path / "run.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        del file[table]
    with pytest.raises(KvbenchError, match=f"/{table} is missing"):
        open_run(path, only={"ranks": ("host",)})


def test_selected_rows_of_selected_columns_are_read(good: Path) -> None:
    run = open_run(good)
    everything = read_columns(run, "records")
    some = read_columns(run, "records", ["nbytes", "wall_ns"], 10, 20)
    assert list(some) == ["nbytes", "wall_ns"]
    np.testing.assert_array_equal(some["wall_ns"], everything["wall_ns"][10:20])


def test_a_column_that_does_not_exist_is_named_with_those_that_do(good: Path) -> None:
    with pytest.raises(KvbenchError, match=r"no column 'wall'; it has .*wall_ns"):
        read_columns(open_run(good), "records", ["wall"])


def test_what_is_no_hdf5_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("import os")
    for path in (tmp_path / "text.h5", tmp_path / "missing.h5", tmp_path):
        with pytest.raises(KvbenchError, match=str(path)):
            open_run(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    for path in (tmp_path / "pipe.h5", Path("/dev/zero")):
        with pytest.raises(KvbenchError, match="not a regular file"):
            open_run(path)


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no format version": (lambda f: f.attrs.pop("format_version"), "kvbench did not write it"),
    "a later format": (lambda f: f.attrs.modify("format_version", 99), "format version 99"),
    "no status": (lambda f: f.attrs.pop("status"), "attribute status is missing"),
    "tiers that are no JSON": (lambda f: f.attrs.create("tiers_json", "["), "tiers_json is not JSON"),
    "tiers without a name": (lambda f: f.attrs.create("tiers_json", "[{}]"), "not a list of tiers"),
    "a configuration of another kind": (lambda f: f.attrs.create("config_json", "[]"), "not a mapping"),
    "JSON nested too deeply": (lambda f: f.attrs.create("config_json", "[" * 100_000), "not JSON"),
    "an attribute that is a list": (lambda f: f.attrs.create("mpi", [1, 2]), "not a single value"),
    "no records": (lambda f: f.pop("records"), "/records is missing"),
    "no requests": (lambda f: f.pop("requests"), "/requests is missing"),
    "a missing column": (lambda f: f["records"].pop("runq_ns"), "/records/runq_ns is missing"),
    "a shorter column": (lambda f: f["records/wall_ns"].resize((199,)), "differ in length"),
    "a column of another type": (lambda f: replaced(f, "records/wall_ns", np.zeros(200)), "has type float64"),
    "codes without names": (lambda f: replaced(f, "records/op", np.zeros(200, "u1")), "not the enumeration"),
    "a table of two dimensions": (lambda f: replaced(f, "ranks/rank", np.zeros((2, 2))), "one-dimensional"),
    "text for numbers": (lambda f: replaced(f, "ranks/rank", np.array([b"a", b"b"])), "does not hold numbers"),
    "rows that are not stored": (
        lambda f: [f["records"][name].resize((2**40,)) for name in f["records"]],
        "claims 1099511627776 rows",
    ),
    "an external link": (lambda f: f.__setitem__("nodes", h5py.ExternalLink("/etc/passwd", "/")), "link to elsewhere"),
    "a soft link": (lambda f: f.__setitem__("nodes", h5py.SoftLink("/ranks")), "link to elsewhere"),
    "external storage": (
        lambda f: replaced(f, "ranks/rank", None, shape=(2,), dtype="i8", external=[("/etc/passwd", 0, 16)]),
        "in another file",
    ),
    "a filter that would need a plugin": (
        lambda f: replaced(f, "ranks/rank", np.arange(2), chunks=(2,), compression=32_000),
        "unknown filter",
    ),
    "pickled objects": (
        lambda f: replaced(f, "ranks/host", [b"cos\nsystem\n", b""], dtype=h5py.string_dtype()),
        "fixed-length text",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_foreign_file_is_refused_with_what_is_wrong(good: Path, tmp_path: Path, change: str) -> None:
    path = tmp_path / "foreign.h5"
    shutil.copy(good, path)
    apply, message = CHANGES[change]
    with h5py.File(path, "r+") as file:
        apply(file)
    with pytest.raises(KvbenchError, match=message) as refused:
        open_run(path)
    assert "foreign.h5" in str(refused.value)


@pytest.mark.parametrize(("column", "code"), [("op", len(Op)), ("path", 255), ("tier", 1)])
def test_a_code_that_nothing_is_named_by_is_refused(good: Path, tmp_path: Path, column: str, code: int) -> None:
    path = tmp_path / "foreign.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        dataset = file["records"][column]
        dataset[7] = np.array(code, dataset.dtype)
    with pytest.raises(KvbenchError, match=f"column {column} holds the code {code}"):
        read_columns(open_run(path), "records", [column])


def test_a_truncated_file_is_refused(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    path = tmp_path / "cut.h5"
    for length in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(KvbenchError, match=r"cut\.h5"):
            read_everything(path)


@pytest.mark.slow
def test_a_flipped_bit_is_found_or_does_not_matter(good: Path, tmp_path: Path) -> None:
    data, truth = good.read_bytes(), read_everything(good)
    rng = np.random.default_rng(11)
    path = tmp_path / "flipped.h5"
    found = 0
    for position in rng.integers(0, len(data), 80).tolist():
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            assert read_everything(path) == truth
        except KvbenchError:
            found += 1
    assert found > 40
