"""A run file as Parquet files: every row is there, as pandas has it, whatever the size of the pieces."""

import dataclasses
import json
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.export.parquet import KEY, export_parquet
from kvbench_analysis.export.units import unit_of
from kvbench_analysis.tables.load import CODED_TABLES
from synthetic import STORAGE, SyntheticRun, empty_run

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import Op, Phase, TimedBy
from kvbench.records.tables import BATCH_DTYPE, as_columns

pq = pytest.importorskip("pyarrow.parquet")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def with_batches(run: SyntheticRun) -> SyntheticRun:
    batches = np.zeros(40, BATCH_DTYPE)
    batches["batch"], batches["rank"] = np.arange(40), np.arange(40) // 10
    batches["tier"], batches["op"], batches["phase"] = STORAGE, Op.WRITE, Phase.MEASURE
    batches["timed_by"] = TimedBy.URING
    return run.changed(tables={"batches": as_columns(batches)})


@pytest.fixture(scope="module")
def path(truth: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_batches(truth).write(tmp_path_factory.mktemp("run") / "run.h5")


@pytest.fixture(scope="module")
def run(path: Path) -> ka.Run:
    return ka.load(path)


@pytest.fixture(scope="module")
def folder(run: ka.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, in pieces that end within the rows of a rank, and hold those of several."""
    made = tmp_path_factory.mktemp("tables")
    assert export_parquet(run, made, piece_rows=777) == {name: table.rows for name, table in run.file.tables.items()}
    return made


def read(folder: Path, table: str) -> pd.DataFrame:
    """A table in the order of ranks and parts."""
    if table not in CODED_TABLES:
        return pd.DataFrame(pq.read_table(folder / f"{table}.parquet").to_pandas())
    found = []
    for of_rank in (folder / table).iterdir():
        rank = int(of_rank.name.removeprefix("rank="))
        for part in of_rank.iterdir():
            number = int(part.stem.removeprefix("part-"))
            found.append((rank, number, pq.ParquetFile(part).read().to_pandas().assign(rank=np.uint32(rank))))
    return pd.DataFrame(
        pd.concat([frame for _, _, frame in sorted(found, key=lambda entry: entry[:2])], ignore_index=True)
    )


def shown(frame: pd.DataFrame, columns: Iterable[Hashable]) -> pd.DataFrame:
    """`frame` with names of codes as text, and the columns in this order."""
    return frame.astype({name: str for name, kind in frame.dtypes.items() if kind == "category"})[list(columns)]


def test_every_table_is_there_as_pandas_has_it(run: ka.Run, folder: Path) -> None:
    assert {"records", "requests", "batches", "samples", "ranks", "nodes"} <= set(run.file.tables)
    for name, table in run.file.tables.items():
        expected, found = run.table(name), read(folder, name)
        assert len(found) == table.rows
        assert set(found) == set(expected)
        pd.testing.assert_frame_equal(shown(found, expected), shown(expected, expected), check_dtype=False)


def test_codes_are_their_names(folder: Path) -> None:
    assert set(read(folder, "records")["op"]) == {"read", "write", "demote", "delete"}
    assert set(read(folder, "batches")["timed_by"]) == {"uring"}
    assert set(read(folder, "requests")["qos"]) == {"interactive", "responsive", "batch"}


def test_numbers_have_the_type_that_they_have_in_the_run_file(run: ka.Run, folder: Path) -> None:
    schema = pq.read_schema(folder / "records" / "rank=0" / "part-0.parquet")
    for name, values in run.columns([name for name in schema.names if name not in ("op", "tier")]).items():
        if not run.names_of("records", name):
            assert str(schema.field(name).type) == values.dtype.name


def test_attributes_are_a_table_of_one_row(run: ka.Run, folder: Path) -> None:
    (row,) = pq.read_table(folder / "run.parquet").to_pylist()
    assert row == dict(run.attributes)


def test_a_rank_that_comes_again_gets_another_part(truth: SyntheticRun, tmp_path: Path) -> None:
    turned = dataclasses.replace(truth, records=np.roll(truth.records, 100))
    run = ka.load(turned.write(tmp_path / "run.h5"))
    export_parquet(run, tmp_path, piece_rows=2000)
    last = int(truth.records["rank"].max())
    assert sorted(file.name for file in (tmp_path / "records" / f"rank={last}").iterdir()) == [
        "part-0.parquet",
        "part-1.parquet",
    ]
    found = read(tmp_path, "records")
    assert len(found) == len(truth.records)
    assert int(found["wall_ns"].sum()) == int(truth.records["wall_ns"].sum())


def test_a_run_without_rows_has_every_table(tmp_path: Path) -> None:
    run = ka.load(empty_run().write(tmp_path / "run.h5"))
    export_parquet(run, tmp_path)
    found = read(tmp_path, "records")
    assert len(found) == 0
    assert set(found) == set(run.file.tables["records"].columns)


@pytest.mark.slow
def test_codes_without_a_name_stay_numbers_in_every_part(truth: SyntheticRun, tmp_path: Path) -> None:
    run = ka.load(truth.changed(attributes={"qos_classes_json": '["one"]'}).write(tmp_path / "run.h5"))
    export_parquet(run, tmp_path, piece_rows=100)
    assert read(tmp_path, "requests")["qos"].tolist() == truth.requests["qos"].tolist()


def test_batches_of_no_rank_are_damage(truth: SyntheticRun, tmp_path: Path) -> None:
    batches = np.zeros(3, BATCH_DTYPE)
    batches["rank"][1] = -1
    run = ka.load(truth.changed(tables={"batches": as_columns(batches)}).write(tmp_path / "run.h5"))
    with pytest.raises(KvbenchError, match=r"run\.h5: /batches has rows of rank -1"):
        export_parquet(run, tmp_path)


def described_units() -> dict[str, str]:
    """By column: its unit, as docs/hdf5-schema.md has it, of the tables that have a unit for each column."""
    text = (DOCS / "hdf5-schema.md").read_text(encoding="utf-8").partition("## /prefix")[0]
    units: dict[str, str] = {}
    place = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| column |"):
            place = cells.index("unit")
        elif not line.startswith("|"):
            place = None
        elif place is not None and not set(cells[0]) <= {"-"}:
            names, told = cells[0].split(", "), cells[place].split(", ")
            units |= dict(zip(names, told if len(told) == len(names) else told * len(names), strict=True))
    return units


COUNTERS = {"rows": "rows", "first_row": "rows", "requests": "rows", "first_request": "rows"}
"""Columns of /ranks that number rows, which their names do not say."""


def test_units_are_those_of_the_documentation() -> None:
    described = described_units()
    assert {"wall_ns", "nbytes", "cpu_user_pct", "gib_per_s", "psi_io_some_us", "canceled_ops"} <= set(described)
    assert {column: unit for column, unit in described.items() if unit_of(column) != unit} == COUNTERS


def test_every_field_says_its_unit(folder: Path) -> None:
    file = pq.ParquetFile(folder / "records" / "rank=1" / "part-0.parquet")
    assert file.schema_arrow.field("wall_ns").metadata == {b"unit": b"ns"}
    assert file.schema_arrow.field("op").metadata is None
    told = json.loads(file.metadata.metadata[KEY])
    assert told["table"] == "records"
    assert told["units"]["nbytes"] == "bytes"


def expected_reads(run: ka.Run) -> list[tuple[Any, ...]]:
    ranks = ka.summarize(run).ranks
    rows = ranks[(ranks["op"] == "read") & (ranks["tier"] == "storage")].sort_values("rank")
    return [
        (row["rank"], row["operations"], pytest.approx(row["bytes"] / 2**30), pytest.approx(row["wall_p95_ns"] / 1e6))
        for row in rows.to_dict("records")
    ]


def example(language: str, run_tables: Path) -> str:
    """The query in the documentation, on these tables."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / "export.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "run-tables/" in found
    return str(found).replace("run-tables/", f"{run_tables}/")


def test_the_query_in_duckdb_says_what_the_summary_says(run: ka.Run, folder: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.connect().execute(example("sql", folder)).fetchall() == expected_reads(run)


def test_the_query_in_polars_says_what_the_summary_says(run: ka.Run, folder: Path) -> None:
    pytest.importorskip("polars")
    space: dict[str, Any] = {}
    exec(example("python", folder), space)
    assert space["table"].rows() == expected_reads(run)
