"""Spill files become a run file: clocks, missing ranks, several runs, damage, and files that somebody else made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.records.reader import open_run, read_columns
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Phase
from kvbench.records.spill.header import spill_path
from kvbench.records.spill.recover import Recovered, recover
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.tables import SAMPLE_DTYPE

RUN = "20260101-000000-abcdef"
RANKS = 4
SECOND = 10**9
START = 100 * SECOND
"""Of the measured phase, on rank 0's clock."""
OFFSETS = (0, 5_000_000_000_000)
"""Of the clocks of the two nodes, two ranks each."""
UNCERTAINTY = 700

ATTRIBUTES: dict[str, str | int | float] = {
    "run_id": RUN,
    "fingerprint": "0123456789abcdef",
    "timer": "extension",
    "ranks": RANKS,
    "nodes": 2,
    "tiers_json": json.dumps([{"name": "memory", "kind": "memory"}, {"name": "file", "kind": "file"}]),
    "config_json": json.dumps({"name": "made up", "duration_s": 60}),
    "started_at": "2026-01-01T00:00:00+00:00",
    "trace_source": "a trace",
    "records": "sampled",
}


def rows_of(rank: int, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One row every tenth of a second from the start of the measured phase, on the clock of the rank's node."""
    rows = np.zeros(count, dtype)
    times = START + OFFSETS[rank // 2] + np.arange(count) * (SECOND // 10)
    for name in ("t_start_ns",) if dtype == RECORD_DTYPE else ("intended_ns", "start_ns", "end_ns"):
        rows[name] = times
    rows["rank"] = rank
    rows["request"] = np.arange(count)
    rows["phase"] = Phase.MEASURE
    if dtype == RECORD_DTYPE:
        rows["wall_ns"] = 1000
        rows["nbytes"] = 4096
    return rows


def make_spill(
    folder: Path,
    rank: int,
    seconds: float = 2,
    *,
    facts: dict[str, object] | None = None,
    header: dict[str, object] | None = None,
    attributes: dict[str, str | int | float] | None = None,
    run_id: str = RUN,
) -> Path:
    """The spill file of a rank that was cut off after `seconds` of the measured phase."""
    node = rank // 2
    told: dict[str, Any] = {
        "run_id": run_id,
        "rank": rank,
        "ranks": RANKS,
        "node": node,
        "host": f"host-{node}",
        "started_at": "2026-01-01T00:00:00+00:00",
        "attributes": {**ATTRIBUTES, "run_id": run_id, **(attributes or {})},
        "node_row": {"cpus": 2 + node, "cpu_model": "model"},
        "rank_row": {"pid": 1000 + rank, "arena_bytes": 8, "predicted_peak_bytes": 9, "storage_capacity_bytes": 10},
    }
    path = spill_path(folder, run_id, rank)
    writer = SpillWriter(path, told | (header or {}), SAMPLE_DTYPE)
    now = START + OFFSETS[node] + int(seconds * SECOND)
    writer.add_facts(
        {
            "clock_before": [START + OFFSETS[node] - SECOND, OFFSETS[node], UNCERTAINTY * node, UNCERTAINTY],
            "measure_start_ns": START + OFFSETS[node],
            "calibration": [{"rank": rank, "node": node, "kind": "memcpy", "mode": "alone", "gib_per_s": 4.5}],
            "t_ns": now,
            "verified_sectors": 7,
            "peak_rss_bytes": 2**20,
        }
        | (facts or {})
    )
    if rank % 2 == 0:
        sample = np.zeros(1, SAMPLE_DTYPE)
        sample["node"], sample["t_ns"] = node, now - SECOND
        writer.add_samples(sample)
    writer.take_requests(rows_of(rank, int(seconds), REQUEST_DTYPE))
    for rows in np.array_split(rows_of(rank, int(seconds * 10), RECORD_DTYPE), 3):
        writer.take_records(rows)
        writer.flush()
    writer.close()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "spills"
    made.mkdir()
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "run.h5"


Made = tuple[Recovered, dict[str, Any], Callable[[str], npt.NDArray[Any]]]


def recovered(out: Path, *sources: Path, **options: Any) -> Made:
    """What was recovered, the attributes of the file, and a reader of its columns."""
    done = recover(sources, out, **options)
    run = open_run(out)

    def column(name: str) -> npt.NDArray[Any]:
        table, _, column = name.partition("/")
        return read_columns(run, table, [column])[column]

    return done, dict(run.attributes), column


def test_times_of_all_nodes_are_on_the_clock_of_rank_0(folder: Path, out: Path) -> None:
    for rank in range(RANKS):
        make_spill(folder, rank)
    _, attributes, column = recovered(out, folder)
    expected = np.tile(START + np.arange(20) * (SECOND // 10), RANKS)
    np.testing.assert_array_equal(column("records/t_start_ns"), expected)
    np.testing.assert_array_equal(column("requests/end_ns"), np.tile([START, START + SECOND // 10], RANKS))
    np.testing.assert_array_equal(column("samples/t_ns"), [START + SECOND] * 2)
    assert attributes["measure_start_ns"] == START
    assert attributes["measure_end_ns"] == START + 19 * (SECOND // 10) + 1000
    assert attributes["clock_uncertainty_ns"] == UNCERTAINTY
    np.testing.assert_array_equal(column("nodes/clock_offset_ns"), OFFSETS)


def test_a_drift_that_was_seen_is_taken_out(folder: Path, out: Path) -> None:
    """A clock that gained 20 us in the 10 s between the comparisons is 2 us ahead at the start."""
    at, offset = START + OFFSETS[1] - SECOND, OFFSETS[1]
    after = [at + 10 * SECOND, offset + 20_000, 0, 0]
    make_spill(folder, 2, facts={"clock_after": after, "ended": "complete"})
    _, _, column = recovered(out, folder)
    assert column("records/t_start_ns")[0] == START - 2000
    assert column("ranks/clock_drift_ns").tolist() == [20_000]


def test_tables_and_attributes_are_those_of_a_finished_run(folder: Path, out: Path) -> None:
    for rank in range(RANKS):
        make_spill(folder, rank)
    done, attributes, column = recovered(out, folder)
    assert (done.records, done.requests, done.run_id) == (80, 8, RUN)
    assert attributes["status"] == "recovered"
    assert attributes["records"] == "full", "all rows are here, whatever the run would have kept"
    for name in ("fingerprint", "timer", "ranks", "nodes", "tiers_json", "config_json", "trace_source", "started_at"):
        assert attributes[name] == ATTRIBUTES[name]
    assert column("ranks/rank").tolist() == [0, 1, 2, 3]
    assert column("ranks/node").tolist() == [0, 0, 1, 1]
    assert column("ranks/host").tolist() == ["host-0", "host-0", "host-1", "host-1"]
    assert column("ranks/pid").tolist() == [1000, 1001, 1002, 1003]
    assert column("ranks/rows").tolist() == [20] * 4
    assert column("ranks/first_row").tolist() == [0, 20, 40, 60]
    assert column("ranks/first_request").tolist() == [0, 2, 4, 6]
    assert column("ranks/verified_sectors").tolist() == [7] * 4
    assert column("ranks/peak_rss_bytes").tolist() == [2**20] * 4
    assert column("nodes/cpus").tolist() == [2, 3]
    assert column("nodes/cpu_model").tolist() == ["model"] * 2
    assert column("calibration/gib_per_s").tolist() == [4.5] * 4
    assert column("calibration/kind").tolist() == ["memcpy"] * 4


def test_directories_of_ranks_are_those_that_the_ranks_had(folder: Path, out: Path) -> None:
    for rank in range(RANKS):
        row = {"rank": rank, "node": rank // 2, "directory": f"/mnt/nv{rank % 2}", "filesystem": "xfs", "free_bytes": 7}
        make_spill(folder, rank, header={"directory_row": row})
    _, _, column = recovered(out, folder)
    assert column("directories/directory").tolist() == ["/mnt/nv0", "/mnt/nv1"] * 2
    assert column("directories/node").tolist() == [0, 0, 1, 1]
    assert column("directories/free_bytes").tolist() == [7] * RANKS


def test_it_is_said_which_ranks_end_early_and_when(folder: Path, out: Path) -> None:
    make_spill(folder, 0, 10)
    make_spill(folder, 1, 3)
    make_spill(folder, 2, 9.5)
    make_spill(folder, 3, 12, facts={"ended": "interrupted"})
    done, attributes, _ = recovered(out, folder)
    assert done.message == attributes["status_message"]
    assert done.message == (
        "from the spill files of 4 of 4 ranks; ended early of 60 s: rank 1 on host-0 at 3.0 s (9.0 s before the last), "
        "rank 2 on host-1 at 9.5 s (2.5 s before the last), rank 0 on host-0 at 10.0 s (2.0 s before the last); "
        "the clocks of nodes that ended early were compared before the run alone"
    )


def test_without_rank_0_and_others_the_rest_is_recovered(folder: Path, out: Path) -> None:
    make_spill(folder, 2)
    done, attributes, column = recovered(out, folder)
    assert done.message.startswith(
        "from the spill files of 1 of 4 ranks; those of ranks 0-1, 3 are missing, with all that they measured; "
    )
    assert attributes["ranks"] == 4
    assert attributes["recovered_ranks"] == 1
    assert column("ranks/rank").tolist() == [2]
    assert column("records/t_start_ns")[0] == START


def test_a_run_whose_ranks_had_all_ended_lacks_nothing(folder: Path, out: Path) -> None:
    for rank in range(RANKS):
        node = rank // 2
        after = [START + OFFSETS[node] + 3 * SECOND, OFFSETS[node], 0, 0]
        make_spill(folder, rank, facts={"ended": "complete", "clock_after": after})
    assert recover([folder], out).message == (
        "from the spill files of 4 of 4 ranks; all of them had ended, so that no row of theirs is missing"
    )


def test_a_spill_file_that_became_full_is_said(folder: Path, out: Path) -> None:
    make_spill(folder, 0, facts={"stopped": "No space left on device"})
    message = recover([folder], out).message
    assert (
        "rank 0 on host-0 could not write its spill file to the end (No space left on device): what came later is lost"
        in message
    )


def test_a_run_that_did_not_come_to_its_measured_phase_has_an_empty_window(folder: Path, out: Path) -> None:
    make_spill(folder, 0, facts={"measure_start_ns": None})
    done, attributes, _ = recovered(out, folder)
    assert "rank 0 on host-0 before the measured phase" in done.message
    assert attributes["measure_start_ns"] == attributes["measure_end_ns"] == START + 2 * SECOND


def test_what_follows_a_damaged_frame_is_left_out_and_said(folder: Path, out: Path) -> None:
    path = make_spill(folder, 0, 30)
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    path.write_bytes(content)
    done, _, column = recovered(out, folder)
    assert done.records == len(column("records/rank")) < 300
    assert f"bytes of {path.name} are left out: at byte " in done.message
    assert "the checksum of the frame is wrong" in done.message


def test_a_file_that_is_no_good_does_not_keep_the_others_from_being_used(folder: Path, out: Path) -> None:
    make_spill(folder, 0)
    spill_path(folder, RUN, 1).write_bytes(b"nothing")
    done = recover([folder], out)
    assert f"not used: {spill_path(folder, RUN, 1)} is no kvbench spill file" in done.message


def test_no_good_file_is_an_error_that_says_why(folder: Path, out: Path) -> None:
    spill_path(folder, RUN, 1).write_bytes(b"nothing")
    with pytest.raises(KvbenchError, match=r"no spill file there can be used\n  .*it does not begin like one"):
        recover([folder], out)
    assert not out.exists()


def test_a_rank_that_had_not_begun_is_not_used(folder: Path, out: Path) -> None:
    make_spill(folder, 0)
    make_spill(folder, 1, 0, facts={"clock_before": None})
    assert "ends before the run began on rank 1" in recover([folder], out).message


def test_files_of_two_runs_are_not_mixed(folder: Path, out: Path) -> None:
    make_spill(folder, 0)
    make_spill(folder, 1, run_id="20260101-000000-fedcba")
    with pytest.raises(KvbenchError, match="spill files of 2 different runs, of which --run chooses one"):
        recover([folder], out)
    done, _, column = recovered(out, folder, run_id=RUN)
    assert done.run_id == RUN
    assert column("ranks/rank").tolist() == [0]
    with pytest.raises(KvbenchError, match="no spill file of run another can be used"):
        recover([folder], out, run_id="another")


def test_a_file_of_a_run_with_the_same_name_that_did_other_work_is_not_mixed_in(folder: Path, out: Path) -> None:
    make_spill(folder, 0)
    make_spill(folder, 1, attributes={"fingerprint": "another"})
    with pytest.raises(KvbenchError, match="2 different runs"):
        recover([folder], out)


def test_two_files_of_one_rank_are_refused_and_one_given_twice_is_not(folder: Path, out: Path) -> None:
    path = make_spill(folder, 0)
    assert recover([path, folder, path], out).records == 20
    copy = folder / path.name.replace("rank-0", "rank-1")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(KvbenchError, match="are both of rank 0: give one of them"):
        recover([folder], out, overwrite=True)


def test_a_run_file_that_exists_is_not_replaced(folder: Path, out: Path) -> None:
    make_spill(folder, 0)
    out.parent.mkdir()
    out.write_text("precious")
    with pytest.raises(KvbenchError, match="exists: give another name, or --overwrite"):
        recover([folder], out)
    with pytest.raises(KvbenchError, match="what is there is not an HDF5 file, and stays"):
        recover([folder], out, overwrite=True)
    assert out.read_text() == "precious"
    out.unlink()
    recover([folder], out)
    assert recover([folder], out, overwrite=True).records == 20


def test_the_spill_files_are_left_as_they_were(folder: Path, out: Path) -> None:
    path = make_spill(folder, 0)
    before = path.read_bytes()
    assert recover([folder], out).spills == (path,)
    assert path.read_bytes() == before


@pytest.mark.parametrize("missing", ["empty", "nowhere"])
def test_where_there_is_nothing_it_is_said(folder: Path, out: Path, missing: str) -> None:
    source = folder if missing == "empty" else folder / "nowhere"
    expected = "there are no spill files in" if missing == "empty" else "there is no .*nowhere"
    with pytest.raises(KvbenchError, match=expected):
        recover([source], out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": {"rank": 4}}, "it is of rank 4 of 4"),
        ({"header": {"rank": -1}}, "its header is none of kvbench's: rank"),
        ({"header": {"run_id": "../../etc/passwd"}}, "its header is none of kvbench's: run_id"),
        ({"header": {"attributes": {"a/b": 1}}}, "its header is none of kvbench's: attributes"),
        ({"header": {"attributes": {}}}, "its header lacks config_json"),
        ({"header": {"node_row": {"cpus": 2**63}}}, "its header is none of kvbench's: node_row"),
        ({"attributes": {"tiers_json": "[]"}}, "the attributes in its header are none of kvbench's"),
        ({"attributes": {"tiers_json": "[1]"}}, "the attributes in its header are none of kvbench's"),
        ({"attributes": {"tiers_json": "[" * 10_000}}, "the configuration in its header is not JSON"),
        ({"attributes": {"config_json": "7"}}, "the attributes in its header are none of kvbench's"),
        ({"attributes": {"ranks": 5}}, "the attributes in its header are none of kvbench's"),
        ({"facts": {"clock_before": [1, 2]}}, "it holds facts that are none of kvbench's: clock_before"),
        ({"facts": {"clock_before": None}}, "it holds rows, and not how its clock compares"),
        ({"facts": {"t_ns": "now"}}, "it holds facts that are none of kvbench's: t_ns"),
        ({"facts": {"calibration": [{"rank": 0}]}}, "it holds facts that are none of kvbench's: calibration"),
    ],
)
def test_a_file_that_somebody_made_up_is_an_error_message(
    folder: Path, out: Path, change: dict[str, Any], message: str
) -> None:
    make_spill(folder, 0, **change)
    with pytest.raises(KvbenchError, match=message):
        recover([folder], out)
    assert not out.exists()


def test_columns_of_another_type_or_name_are_not_taken(folder: Path, out: Path) -> None:
    odd = {"cpus": "many", "cpu_model": 7, "no_such_column": 1, "node": 99, "host": "x" * 1000}
    make_spill(folder, 0, header={"node_row": odd, "rank_row": {"rank": 7, "rows": 10**6, "pid": "x"}})
    _, _, column = recovered(out, folder)
    assert (column("nodes/cpus")[0], column("nodes/cpu_model")[0]) == (0, "")
    assert (column("nodes/node")[0], column("nodes/host")[0]) == (0, "host-0")
    assert (column("ranks/rank")[0], column("ranks/rows")[0], column("ranks/pid")[0]) == (0, 20, 0)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_what_is_recovered_of_a_cut_or_damaged_file_is_a_prefix_of_the_truth(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("fuzz")
    path = make_spill(place, 0, 5)
    content = bytearray(path.read_bytes())
    length = data.draw(st.integers(0, len(content)))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(content) - 1), max_size=3)):
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content[:length])
    try:
        _, _, column = recovered(place / "run.h5", place)
    except KvbenchError as error:
        assert str(place) in str(error)  # noqa: PT017 - whether there is an error is not the question
        return
    times = column("records/t_start_ns")
    np.testing.assert_array_equal(times, START + np.arange(len(times)) * (SECOND // 10))
    assert len(times) <= 50
