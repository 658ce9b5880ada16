"""A run file as pandas tables."""

import subprocess
import sys
from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from synthetic import SyntheticRun, empty_run

from kvbench.errors import KvbenchError
from kvbench.records.schema import CODES, RECORD_COLUMNS, REQUEST_COLUMNS, labels

ROOT = Path(__file__).parents[2]


def test_records_have_every_column_and_every_row(truth: SyntheticRun, run_path: Path) -> None:
    records = ka.load(run_path).records
    assert tuple(records.columns) == RECORD_COLUMNS
    for name in set(RECORD_COLUMNS) - set(CODES) - {"tier"}:
        np.testing.assert_array_equal(records[name], truth.records[name])


def test_codes_are_categories_with_their_names(truth: SyntheticRun, run_path: Path) -> None:
    records = ka.load(run_path).records
    for name in ("op", "phase", "path", "timed_by"):
        assert records[name].tolist() == [labels(name)[code] for code in truth.records[name].tolist()]
        assert records[name].cat.categories.tolist() == list(labels(name).values())
    assert records["tier"].tolist() == [("memory", "storage")[code] for code in truth.records["tier"].tolist()]


def test_requests_name_their_state_phase_and_class(truth: SyntheticRun, run_path: Path) -> None:
    requests = ka.load(run_path).requests
    assert tuple(requests.columns) == REQUEST_COLUMNS
    assert requests["state"].tolist() == [labels("state")[code] for code in truth.requests["state"].tolist()]
    classes = ("interactive", "responsive", "batch")
    assert requests["qos"].tolist() == [classes[code] for code in truth.requests["qos"].tolist()]


def test_a_class_without_a_name_stays_a_number(truth: SyntheticRun, tmp_path: Path) -> None:
    path = truth.changed(attributes={"qos_classes_json": '["only"]'}).write(tmp_path / "run.h5")
    np.testing.assert_array_equal(ka.load(path).requests["qos"], truth.requests["qos"])


def test_the_other_tables_come_with_their_text(truth: SyntheticRun, run_path: Path) -> None:
    run = ka.load(run_path)
    for name, table in truth.tables.items():
        frame: pd.DataFrame = getattr(run, name)
        for column, values in table.items():
            assert frame[column].tolist() == list(values)


def test_columns_reads_only_what_is_asked_for(truth: SyntheticRun, run_path: Path) -> None:
    columns = ka.load(run_path).columns(["wall_ns", "op"])
    assert list(columns) == ["wall_ns", "op"]
    np.testing.assert_array_equal(columns["op"], truth.records["op"])
    np.testing.assert_array_equal(
        ka.load(run_path).columns(["wall_ns"], start=5, stop=9)["wall_ns"], columns["wall_ns"][5:9]
    )


def test_attributes_and_configuration_are_mappings(truth: SyntheticRun, run_path: Path) -> None:
    run = ka.load(run_path)
    assert {name: run.attributes[name] for name in truth.attributes} == truth.attributes
    assert run.config["seed"] == 42


def test_a_table_that_was_not_measured_is_empty(tmp_path: Path) -> None:
    run = ka.load(empty_run().write(tmp_path / "run.h5"))
    assert run.samples.empty
    assert len(run.records) == len(run.requests) == 0


def test_tiers_of_equal_names_are_told_apart_by_their_codes(truth: SyntheticRun, tmp_path: Path) -> None:
    tiers = '[{"name": "memory", "kind": "memory"}, {"name": "memory", "kind": "memory"}]'
    run = ka.load(truth.changed(attributes={"tiers_json": tiers}).write(tmp_path / "run.h5"))
    assert run.records["tier"].cat.categories.tolist() == ["0:memory", "1:memory"]


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_bytes(b"no run")
    with pytest.raises(KvbenchError, match=r"run\.h5"):
        ka.load(tmp_path / "run.h5")


def test_the_analysis_needs_no_mpi_and_of_kvbench_only_the_records() -> None:
    program = "import sys, kvbench_analysis; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    loaded = {name for name in modules if name.startswith(("kvbench.", "mpi4py"))}
    assert {name for name in loaded if not name.startswith("kvbench.records")} == {"kvbench.errors", "kvbench.units"}


def test_the_schema_document_names_every_column_and_attribute(truth: SyntheticRun) -> None:
    text = (ROOT / "docs" / "hdf5-schema.md").read_text()
    names = {
        *RECORD_COLUMNS,
        *REQUEST_COLUMNS,
        *truth.attributes,
        *(name for table in truth.tables.values() for name in table),
    }
    assert [name for name in sorted(names) if name not in text] == []
