"""Exact sums of rows that are not kept: the same in one piece or many, as tables and back, and refused when wrong."""

import errno
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench.records.condensed.population import Population, kind_numbers
from kvbench.records.condensed.population_schema import OPERATION_SUMS, QUANTITY_COLUMNS, REQUEST_SUMS
from kvbench.records.schema import (
    RECORD_DTYPE,
    REQUEST_DTYPE,
    RESIDENT_UNKNOWN,
    Locality,
    Op,
    Path,
    Phase,
    Quantity,
    RequestState,
)

Tables = dict[str, NDArray[np.void]]


def records(rng: np.random.Generator, count: int) -> NDArray[np.void]:
    """Rows of every phase, of several kinds, some of which failed."""
    rows = np.zeros(count, RECORD_DTYPE)
    rows["t_start_ns"] = rng.integers(10**9, 2 * 10**9, count)
    for column in QUANTITY_COLUMNS.values():
        rows[column] = rng.lognormal(12, 2, count)
    rows["tokens"] = rng.integers(1, 100, count)
    rows["errno"] = rng.choice([0, 0, 0, errno.EIO, errno.ECANCELED], count)
    rows["op"], rows["tier"] = rng.integers(0, len(Op), count), rng.integers(0, 2, count)
    rows["path"], rows["phase"] = rng.choice([Path.BUFFERED, Path.COPY], count), rng.integers(0, len(Phase), count)
    rows["locality"], rows["timed_by"] = rng.integers(0, len(Locality), count), rng.integers(0, 2, count)
    rows["resident_pct"] = rng.choice([0, 0, 50, RESIDENT_UNKNOWN], count)
    return rows


def requests(rng: np.random.Generator, count: int) -> NDArray[np.void]:
    rows = np.zeros(count, REQUEST_DTYPE)
    rows["intended_ns"] = rng.integers(10**9, 2 * 10**9, count)
    rows["start_ns"] = rows["intended_ns"] + rng.integers(0, 10**6, count)
    rows["end_ns"] = rows["start_ns"] + rng.integers(1, 10**8, count)
    rows["storage_ns"] = rng.integers(0, 10**8, count)
    for column in ("hit_objects", "miss_objects", "hit_tokens", "miss_tokens"):
        rows[column] = rng.integers(0, 50, count)
    rows["qos"], rows["phase"] = rng.integers(0, 3, count), rng.integers(0, len(Phase), count)
    rows["state"] = rng.integers(0, len(RequestState), count)
    return rows


def population(*, histograms: bool = True) -> Population:
    return Population(2, 3, histograms=histograms)


def filled(seed: int, count: int = 2000) -> tuple[Population, NDArray[np.void], NDArray[np.void]]:
    rng = np.random.default_rng(seed)
    rows, asked = records(rng, count), requests(rng, count // 2)
    made = population()
    made.take_records(rows)
    made.take_requests(asked)
    return made, rows, asked


def same(one: Mapping[str, NDArray[np.void]], other: Mapping[str, NDArray[np.void]]) -> bool:
    """Whether the tables are equal; late requests stand in any order."""
    for name in one:
        first, second = one[name], other[name]
        if name == "late":
            first, second = np.sort(first), np.sort(second)
        if not np.array_equal(first, second):
            return False
    return one.keys() == other.keys()


def test_sums_of_every_kind_are_those_of_its_measured_rows() -> None:
    made, rows, _ = filled(1)
    rows = rows[rows["phase"] == Phase.MEASURE]
    kinds = kind_numbers(rows, 2)
    for kind in made.kinds():
        mine = rows[kinds == kind]
        good = mine[mine["errno"] == 0]
        expected = {name: good[name].sum() for name in ("tokens", *QUANTITY_COLUMNS.values())}
        expected |= {
            "operations": len(good),
            "failed": (mine["errno"] == errno.EIO).sum(),
            "canceled": (mine["errno"] == errno.ECANCELED).sum(),
            "residency_known": (good["resident_pct"] != RESIDENT_UNKNOWN).sum(),
            "resident": (good["resident_pct"] == 50).sum(),
            "timed_by_python": good["timed_by"].sum(),
        }
        assert dict(zip(OPERATION_SUMS, made.sums[kind], strict=True)) == expected
        if len(good):
            assert (made.least[kind], made.most[kind]) == (good["nbytes"].min(), good["nbytes"].max())
            assert made.histogram(Quantity.DEVICE, int(kind)).total == good["device_ns"].sum()
    assert made.sums[:, 0].sum() == (rows["errno"] == 0).sum()
    assert sum(made.errors.values()) == (rows["errno"] != 0).sum()


def test_sums_of_every_class_are_those_of_its_measured_requests() -> None:
    made, _, asked = filled(2)
    asked = asked[asked["phase"] == Phase.MEASURE]
    for qos in range(3):
        mine = asked[asked["qos"] == qos]
        done = mine[mine["state"] == RequestState.DONE]
        found = dict(zip(REQUEST_SUMS, made.request_sums[qos], strict=True))
        assert found["requests"] == len(mine)
        assert found["done"] + found["cut_short"] + found["failed"] == len(mine)
        assert found["hit_tokens"] == mine["hit_tokens"].sum()
        assert found["latency_ns"] == (done["end_ns"] - done["intended_ns"]).sum()
        assert made.histogram(Quantity.REQUEST_STORAGE, qos).count == len(done)


def test_many_pieces_make_the_same_as_one() -> None:
    whole, rows, asked = filled(3)
    total = population()
    for part, questions in zip(np.array_split(rows, 17), np.array_split(asked, 17), strict=True):
        piece = population()
        piece.take_records(part)
        piece.take_requests(questions)
        total.merge(piece)
    assert same(whole.tables(), total.tables())


def test_tables_and_back_is_the_same() -> None:
    made, _, _ = filled(4)
    again = population()
    again.add_tables(made.tables())
    assert same(made.tables(), again.tables())


def test_without_histograms_there_are_none() -> None:
    made, rows, _ = filled(5)
    plain = population(histograms=False)
    plain.take_records(rows)
    assert not len(plain.tables()["histograms"])
    assert not len(plain.tables()["buckets"])
    assert np.array_equal(plain.tables()["population"], made.tables()["population"])


def test_a_request_that_outlasts_the_window_counts_by_its_share() -> None:
    made = population()
    rows = np.zeros(3, REQUEST_DTYPE)
    rows["phase"], rows["qos"] = Phase.MEASURE, [0, 0, 1]
    rows["start_ns"], rows["end_ns"] = 100, [150, 200, 500]
    made.take_requests(rows)
    assert list(made.done_inside(150)) == [1.5, 0.125, 0.0]
    # An operation ended at 200: the window cannot end before.
    operation = np.zeros(1, RECORD_DTYPE)
    operation["phase"], operation["t_start_ns"], operation["wall_ns"] = Phase.MEASURE, 100, 100
    made.take_records(operation)
    made.take_requests(rows[:0])
    assert list(made.done_inside(300)) == [2.0, 0.5, 0.0]
    assert list(made.done_inside(None)) == [2.0, 1.0, 0.0]


def test_rows_of_a_tier_or_class_that_there_is_not_are_refused() -> None:
    rows = np.zeros(1, RECORD_DTYPE)
    rows["phase"], rows["tier"] = Phase.MEASURE, 2
    with pytest.raises(ValueError, match="code 2"):
        population().take_records(rows)
    asked = np.zeros(1, REQUEST_DTYPE)
    asked["phase"], asked["qos"] = Phase.MEASURE, 3
    with pytest.raises(ValueError, match="class 3"):
        population().take_requests(asked)


def change(name: str, column: str, value: int) -> Callable[[Tables], None]:
    def apply(tables: Tables) -> None:
        tables[name][column][0] = value

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        change("population", "tier", 9),
        change("population", "op", len(Op)),
        change("population", "locality", 255),
        change("request_population", "qos", 3),
        change("errors", "path", 200),
        change("histograms", "quantity", 99),
        change("histograms", "tier", 2),
        change("histograms", "first_bucket", -1),
        change("histograms", "first_bucket", 2**62),
        change("histograms", "buckets", 2**62),
        change("histograms", "buckets", -2),
        change("histograms", "count", 1),
        change("request_histograms", "qos", 3),
        change("buckets", "bucket", 65535),
        change("buckets", "count", -7),
    ],
)
def test_tables_that_contradict_themselves_are_refused(damage: Callable[[Tables], None]) -> None:
    made, _, _ = filled(6)
    tables = {name: rows.copy() for name, rows in made.tables().items()}
    damage(tables)
    with pytest.raises(ValueError, match=r"code|claims|holds|class"):
        population().add_tables(tables)
