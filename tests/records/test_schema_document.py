"""docs/hdf5-schema.md says what is in a run file: every column of every table, with its type, and nothing else."""

import re
from pathlib import Path

import numpy as np
import pytest

from kvbench.engine.look_ups import LOOK_UPS_DTYPE
from kvbench.records.condensed.population_schema import (
    BUCKET_DTYPE,
    ERROR_DTYPE,
    HISTOGRAM_DTYPE,
    PLACE_DTYPE,
    POPULATION_DTYPE,
    REQUEST_HISTOGRAM_DTYPE,
    REQUEST_POPULATION_DTYPE,
)
from kvbench.records.schema import CODES, RECORD_COLUMNS, RECORD_DTYPE, REQUEST_COLUMNS, REQUEST_DTYPE, labels
from kvbench.records.search import MEASURED_DTYPE, OBJECTIVE_DTYPE, PROBE_DTYPE
from kvbench.records.tables import (
    BATCH_DTYPE,
    CALIBRATION_DTYPE,
    DRIVE_DTYPE,
    NODE_DTYPE,
    PREFIX_DTYPE,
    RANK_DTYPE,
    SAMPLE_DTYPE,
    SPLIT_DTYPE,
    VIOLATION_DTYPE,
    VISIBILITY_DTYPE,
)
from kvbench.run.shared_space import SHARING_DTYPE

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "hdf5-schema.md").read_text(encoding="utf-8")

TABLES: dict[str, np.dtype[np.void]] = {
    "ranks": RANK_DTYPE,
    "nodes": NODE_DTYPE,
    "calibration": CALIBRATION_DTYPE,
    "samples": SAMPLE_DTYPE,
    "drives": DRIVE_DTYPE,
    "batches": BATCH_DTYPE,
    "splits": SPLIT_DTYPE,
    "prefix": PREFIX_DTYPE,
    "look_ups": LOOK_UPS_DTYPE,
    "sharing": SHARING_DTYPE,
    "visibility": VISIBILITY_DTYPE,
    "violations": VIOLATION_DTYPE,
    "population": POPULATION_DTYPE,
    "request_population": REQUEST_POPULATION_DTYPE,
    "errors": ERROR_DTYPE,
    "places": PLACE_DTYPE,
    "buckets": BUCKET_DTYPE,
    "probes": PROBE_DTYPE,
    "objectives": OBJECTIVE_DTYPE,
    "measured": MEASURED_DTYPE,
}


def about(table: str) -> str:
    """What stands in the document from a table's name to the next one's, or to the next heading."""
    found = re.search(rf"^(?:## |\| )?/{table}: .*?(?=^## |^\| /|^/|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"/{table} is not in the document"
    return found[0]


def rows_about(table: str) -> list[list[str]]:
    """The cells of the rows of its table, without the head."""
    lines = [line for line in about(table).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rule = next((place for place, row in enumerate(cells) if set(row[0]) == {"-"}), -1)
    return cells[rule + 1 :]


def names_in(cell: str) -> list[str]:
    return [name for name in re.split(r"[,;]\s*", cell) if name]


@pytest.mark.parametrize(
    ("table", "dtype", "columns"),
    [("records", RECORD_DTYPE, RECORD_COLUMNS), ("requests", REQUEST_DTYPE, REQUEST_COLUMNS)],
)
def test_every_row_of_the_two_large_tables_is_described_with_its_type(
    table: str,
    dtype: np.dtype[np.void],
    columns: tuple[str, ...],
) -> None:
    described = {row[0]: row[1] for row in rows_about(table)}
    assert list(described) == list(columns), "in the order of the file"
    for name, kind in described.items():
        assert kind == ("code" if name in CODES else dtype[name].name), name


@pytest.mark.parametrize("column", ["op", "phase", "path", "timed_by", "locality", "state"])
def test_every_code_is_named(column: str) -> None:
    table = "requests" if column == "state" else "records"
    (meaning,) = [row[3] for row in rows_about(table) if row[0] == column]
    assert set(labels(column).values()) <= set(re.findall(r"`([^`]+)`", meaning))


@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_the_other_tables_is_described_and_no_other(table: str) -> None:
    described = [name for row in rows_about(table) for name in names_in(row[0])]
    if not described:  # a table of few columns, described in a sentence
        described = re.findall(r"`(\w+)`", about(table).splitlines()[0])
    assert sorted(described) == sorted(TABLES[table].names or ())


def test_the_tables_of_histograms_are_described_together() -> None:
    described = {name for row in rows_about("histograms") for name in names_in(row[0])}
    assert described == {*(HISTOGRAM_DTYPE.names or ()), *(REQUEST_HISTOGRAM_DTYPE.names or ())}
