"""Endurance: each figure again by hand, from rows with known bytes, from counters of disks, and from a rating."""

import json
from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.figures.endurance import Endurance
from kvbench_analysis.summary.endurance_print import endurance_notes, endurance_table
from synthetic import END_NS, START_NS, STORAGE, SyntheticRun, synthetic_run

from kvbench.records.endurance import RatedDrives, rated_drives
from kvbench.records.schema import Op, Phase

TB = 10**12
DAY_S = 86_400
SECONDS = (END_NS - START_NS) / 1e9


@pytest.fixture(scope="module")
def run() -> SyntheticRun:
    made = synthetic_run(np.random.default_rng(3))
    samples = dict(made.tables["samples"])
    node, t_ns = (np.asarray(samples[name]) for name in ("node", "t_ns"))
    # Node 0's disk counts 300 MB a second, node 1's 500.
    samples["disk_write_bytes"] = 7 * TB + (t_ns - START_NS) // 1000 * np.where(node == 0, 300, 500) // 1
    return made.changed(tables={"samples": samples})


def found(run: SyntheticRun, path: FilePath, rated: RatedDrives | None = None) -> Endurance:
    figures = ka.summarize(ka.load(run.write(path / "run.h5", overwrite=True)), rated=rated).endurance
    assert figures is not None
    return figures


def test_written_is_what_writes_and_moves_down_brought_to_storage_in_the_window(
    run: SyntheticRun, tmp_path: FilePath
) -> None:
    places = found(run, tmp_path).places
    rows = run.records
    chosen = rows[
        np.isin(rows["op"], (Op.WRITE, Op.DEMOTE)) & (rows["tier"] == STORAGE) & (rows["phase"] == Phase.MEASURE)
    ]
    inside = (
        np.clip(
            np.minimum(chosen["t_start_ns"] + chosen["wall_ns"], END_NS) - np.maximum(chosen["t_start_ns"], START_NS),
            0,
            None,
        )
        / chosen["wall_ns"]
    )
    per_day = inside * chosen["nbytes"] / SECONDS * DAY_S
    total = places.iloc[0]
    assert (total["scope"], total["written_bytes"]) == ("all", chosen["nbytes"].sum())
    assert total["written_bytes_per_day"] == pytest.approx(per_day.sum())
    nodes = np.asarray(run.tables["ranks"]["node"])
    for scope, of in (("rank", chosen["rank"]), ("node", nodes[chosen["rank"]])):
        table = places[places["scope"] == scope].set_index(scope)
        assert len(table) == len(set(of))
        for number, row in table.iterrows():
            assert row["written_bytes"] == chosen["nbytes"][of == number].sum()
            assert row["written_bytes_per_day"] == pytest.approx(per_day[of == number].sum())


def test_amplification_is_what_the_disks_counted_by_what_was_written_meanwhile(
    run: SyntheticRun, tmp_path: FilePath
) -> None:
    places = found(run, tmp_path).places
    nodes = places[places["scope"] == "node"].set_index("node")
    assert nodes["disk_bytes_per_day"].to_dict() == pytest.approx({0: 300e6 * DAY_S, 1: 500e6 * DAY_S})
    rows = run.records
    written = rows[np.isin(rows["op"], (Op.WRITE, Op.DEMOTE)) & (rows["tier"] == STORAGE)]
    # From the first sample of the window to the last: nine of its ten seconds.
    last = END_NS - 10**9
    ends = written["t_start_ns"] + written["wall_ns"]
    inside = np.clip(np.minimum(ends, last) - np.maximum(written["t_start_ns"], START_NS), 0, None) / written["wall_ns"]
    of_node = np.asarray(run.tables["ranks"]["node"])[written["rank"]]
    meanwhile = [float((inside * written["nbytes"])[of_node == node].sum()) / 9 for node in (0, 1)]
    assert nodes["amplification"].tolist() == pytest.approx([300e6 / meanwhile[0], 500e6 / meanwhile[1]], rel=1e-6)
    assert places.iloc[0]["amplification"] == pytest.approx(800e6 / sum(meanwhile), rel=1e-6)


def test_where_a_node_does_not_tell_there_is_no_sum_and_years_are_of_what_was_written(
    run: SyntheticRun, tmp_path: FilePath
) -> None:
    samples = dict(run.tables["samples"])
    silent = np.where(np.asarray(samples["node"]) == 1, -1, np.asarray(samples["disk_write_bytes"]))
    drives = RatedDrives(3500 * TB, None, 1)
    figures = found(run.changed(tables={"samples": {**samples, "disk_write_bytes": silent}}), tmp_path, drives)
    assert np.isnan(figures.total["disk_bytes_per_day"])
    assert np.isnan(figures.total["amplification"])
    assert figures.wearing_bytes_per_day == figures.total["written_bytes_per_day"]
    assert "by what was written" in endurance_notes(figures)[-1]
    assert len(endurance_table(figures)[2]) == 3


def test_nothing_wears_where_nothing_is_written_or_all_lies_in_memory(run: SyntheticRun, tmp_path: FilePath) -> None:
    reads = SyntheticRun(run.records[run.records["op"] == Op.READ], run.requests, run.attributes, run.tables)
    nodes = {**run.tables["nodes"], "filesystem": ["tmpfs"] * 2}
    for number, one in enumerate((reads, run.changed(tables={"nodes": nodes}))):
        assert ka.summarize(ka.load(one.write(tmp_path / f"{number}.h5"))).endurance is None


def test_a_rating_in_drive_writes_per_day_is_one_in_terabytes_written() -> None:
    """1 x 3.84 TB x 365 x 5 = 7008 TB; at 14.016 TB a day on four drives: 7008 x 4 / 14.016 / 365 years."""
    drives = RatedDrives.of(None, 1.0, 3_840_000_000_000, 5.0, 4)
    assert drives.tbw_bytes == 7008 * TB
    assert drives.drive_writes_per_day(14.016e12) == pytest.approx(14.016 / 3.84 / 4)
    assert drives.years(14.016e12) == pytest.approx(7008 * 4 / 14.016 / 365)
    assert drives.years(0.0) is None
    assert RatedDrives.of(3500 * TB, None, None, 5.0, 1).drive_writes_per_day(1e12) is None
    for wrong in ((None, None, 10, 5.0, 1), (10, 1.0, 10, 5.0, 1), (None, 1.0, None, 5.0, 1)):
        with pytest.raises(ValueError, match="give"):
            RatedDrives.of(*wrong)


def test_what_the_configuration_rates_is_used_where_nothing_else_is_given(
    run: SyntheticRun, tmp_path: FilePath
) -> None:
    section = {"tbw_bytes": 100 * TB, "dwpd": None, "capacity_bytes": 10**12, "warranty_years": 5.0, "count": 2}
    config = json.dumps(json.loads(str(run.attributes["config_json"])) | {"drive": section})
    rated = run.changed(attributes={"config_json": config})
    figures = found(rated, tmp_path)
    assert figures.rated == rated_drives(section) == RatedDrives(100 * TB, 10**12, 2)
    # The disks counted 800 MB a second.
    said = json.loads(ka.to_json(ka.summarize(ka.load(tmp_path / "run.h5"))))["endurance"]["rated"]
    assert said["drive_writes_per_day"] == pytest.approx(800e6 * DAY_S / 2e12)
    assert said["years"] == pytest.approx(200e12 / (800e6 * DAY_S) / 365)
    assert found(rated, tmp_path, RatedDrives(1.0)).rated == RatedDrives(1.0)
    assert rated_drives(None) is None


def with_drives(run: SyntheticRun, *drives: tuple[int, float, float]) -> SyntheticRun:
    """`drives`: node, bytes that hosts wrote, bytes to the flash."""
    node, hosts, media = (np.array(column) for column in zip(*drives, strict=True))
    table: dict[str, Any] = {
        "node": node.astype(np.int64),
        "drive": [f"nvme{number}n1" for number in range(len(node))],
        "host_written_bytes": hosts.astype(np.int64),
        "media_written_bytes": media.astype(np.int64),
    }
    return run.changed(tables={"drives": table})


def test_what_drives_wrote_inside_is_their_sum_by_what_hosts_wrote_to_them(
    run: SyntheticRun, tmp_path: FilePath
) -> None:
    told = with_drives(run, (0, 3e9, 4e9), (0, 5e9, 16e9), (1, 2e9, 2e9))
    endurance = found(told, tmp_path)
    nodes = endurance.places[endurance.places["scope"] == "node"].set_index("node")
    assert nodes["drive_amplification"].to_dict() == {0: 20 / 8, 1: 1.0}
    assert endurance.total["drive_amplification"] == 22 / 10
    assert endurance.places[endurance.places["scope"] == "rank"]["drive_amplification"].isna().all()
    _, heads, rows = endurance_table(endurance)
    assert heads[-1] == "inside drives"
    assert rows[0][-1] == "2.2"
    assert any(note.startswith("Inside drives") for note in endurance_notes(endurance))


@pytest.mark.parametrize(
    "drives",
    [
        [(0, 3e9, 4e9)],
        [(0, 3e9, 4e9), (1, 3e9, -1)],
        [(0, 3e9, 4e9), (1, 0.1e9, 0.2e9)],
    ],
    ids=["a node without", "one that does not say", "too little"],
)
def test_where_a_drive_does_not_tell_nothing_is_said_of_all(
    run: SyntheticRun, tmp_path: FilePath, drives: list[tuple[int, float, float]]
) -> None:
    endurance = found(with_drives(run, *drives), tmp_path)
    assert np.isnan(endurance.total["drive_amplification"])
    assert endurance.places.set_index(["scope", "node"])["drive_amplification"].loc[("node", 0)] == pytest.approx(4 / 3)
    assert not any(note.startswith("Inside drives") for note in endurance_notes(endurance))


def test_files_of_before_say_nothing_of_drives(run: SyntheticRun, tmp_path: FilePath) -> None:
    endurance = found(run, tmp_path)
    assert endurance.places["drive_amplification"].isna().all()
    assert "inside drives" not in endurance_table(endurance)[1]
