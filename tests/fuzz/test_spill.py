"""Whatever a spill file holds: `recover` makes a run file that can be used of it, or says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from cases import fuzz, made, refused
from edits import EDITS, edited
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic import record_rows, request_rows, run_attributes

from kvbench.errors import KvbenchError
from kvbench.records.reader import open_run, read_columns
from kvbench.records.spill.recover import recover
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.tables import SAMPLE_DTYPE

pytestmark = pytest.mark.slow

RUN_ID = "20260101-000000-abcdef"
HEADER: dict[str, Any] = {
    "run_id": RUN_ID,
    "rank": 0,
    "ranks": 2,
    "node": 0,
    "host": "client0",
    "started_at": "2026-01-01T00:00:00Z",
    "attributes": {key: value for key, value in run_attributes(2, 1).items() if key != "status"},
    "node_row": {"host": "client0", "cpus": 4},
    "rank_row": {"pid": 77, "arena_bytes": 2**28},
}
FACTS: dict[str, Any] = {"clock_before": [10, 0, 5, 5], "measure_start_ns": 5 * 10**9, "t_ns": 16 * 10**9}


def spilled(path: Path, header: Any, facts: list[Any], records: NDArray[Any], requests: NDArray[Any]) -> None:
    """A spill file of two rounds, whose frames are all in order."""
    writer = SpillWriter(path, header, SAMPLE_DTYPE)
    for half in range(2):
        for one in facts[half::2]:
            writer.add_facts(one)
        writer.take_records(records[half::2])
        writer.take_requests(requests[half::2])
        writer.add_samples(np.zeros(3, SAMPLE_DTYPE))
        writer.flush()
    writer.close()


def rows() -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(5)
    return record_rows(rng, 40), request_rows(rng, 12)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.spill"
    spilled(path, HEADER, [FACTS], *rows())
    return path.read_bytes()


def recovered_or_refused(reader: str, path: Path) -> str | None:
    """The status of the run file that came of it, which everything else can use; None where recovering is refused."""
    made[reader] += 1
    out = path.with_suffix(".h5")
    out.unlink(missing_ok=True)
    try:
        recover([path], out)
    except KvbenchError as error:
        refused[reader] += 1
        message = str(error)
    else:
        run = open_run(out)
        for table in run.tables:
            read_columns(run, table)
        with np.errstate(all="ignore"):
            ka.to_json(ka.summarize(ka.load(out)))
        return str(run.attributes["status"])
    assert path.name in message
    assert not list(path.parent.glob("*.h5*")), "nothing is left of a run file that was not made"
    return None


@fuzz(30)
@given(edits=EDITS)
def test_damaged_spill_files_are_recovered_up_to_the_damage(good: bytes, tmp_path: Path, edits: list[Any]) -> None:
    path = tmp_path / "damaged.spill"
    path.write_bytes(edited(good, edits))
    assert recovered_or_refused("spill file, damaged bytes", path) in (None, "recovered")


@pytest.mark.parametrize("mode", ["sampled", "histogram"])
def test_all_rows_are_recovered_of_a_run_that_would_have_kept_some(tmp_path: Path, mode: str) -> None:
    path, (records, requests) = tmp_path / "run.spill", rows()
    spilled(path, HEADER | {"attributes": HEADER["attributes"] | {"records": mode}}, [FACTS], records, requests)
    run = ka.load(recover([path], tmp_path / "run.h5").path)
    assert (run.mode, run.sampled_1_in()) == ("full", 1)
    assert sorted(run.columns(["wall_ns"])["wall_ns"]) == sorted(records["wall_ns"])
    assert ka.summarize(run).operations["operations"].sum() == len(records)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["../../x", 2**62, -(2**62)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_./", max_size=4), inner, max_size=3),
    max_leaves=6,
)
TIERS = st.sampled_from(
    ["[]", "[{}]", '[{"name": "a", "kind": "b"}]', "[" * 9000, '{"a": 1}', "[1, 2]", '[{"name": [], "kind": {}}]']
)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    header = json.loads(json.dumps(HEADER))
    for _ in range(draw(st.integers(0, 2))):
        part = draw(st.sampled_from([header, header["attributes"], header["node_row"], header["rank_row"]]))
        if isinstance(part, dict) and part:
            part[draw(st.sampled_from(sorted(part)))] = draw(JSON)
    if draw(st.integers(0, 3)) == 0 and isinstance(header["attributes"], dict):
        header["attributes"]["tiers_json"] = draw(TIERS)
    return dict(header)


FACT_KEYS = st.sampled_from(
    [
        "clock_before",
        "clock_after",
        "measure_start_ns",
        "t_ns",
        "calibration",
        "failures",
        "ended",
        "stopped",
        "verified_sectors",
    ]
)


@fuzz(60)
@given(
    header=headers(),
    facts=st.lists(st.just(FACTS) | st.dictionaries(FACT_KEYS, JSON, max_size=2), max_size=3),
    changes=st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 30),
            st.integers(0, 39),
            st.sampled_from([0, 1, 255, 2**31, 2**62, 2**63, 2**64 - 1]),
        ),
        max_size=3,
    ),
)
def test_spill_files_that_say_other_things_are_recovered_or_refused(
    tmp_path: Path, header: dict[str, Any], facts: list[Any], changes: list[tuple[bool, int, int, int]]
) -> None:
    records, requests = rows()
    for of_records, column, row, value in changes:
        table = records if of_records else requests
        name = (table.dtype.names or ())[column % len(table.dtype.names or ())]
        table[name][row % len(table)] = np.array([value], np.uint64).astype(table.dtype[name])[0]
    path = tmp_path / "other.spill"
    path.unlink(missing_ok=True)
    spilled(path, header, [FACTS, *facts], records, requests)
    assert recovered_or_refused("spill file, other content", path) in (None, "recovered")
