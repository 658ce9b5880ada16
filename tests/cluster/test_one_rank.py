"""One rank without MPI: every part of the cluster package works, and the environment tells launchers apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kvbench.cluster.agree import Agreement, RanksFailed, abort
from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import SerialComm, launcher_size
from kvbench.cluster.gather import gather_rows, gather_table
from kvbench.cluster.places import place_group
from kvbench.cluster.progress import ProgressExchange
from kvbench.cluster.topology import discover
from kvbench.errors import KvbenchError
from kvbench.records.clock import CommonClock
from kvbench.records.tables import as_columns, as_rows
from kvbench.tiers.file.target import DirectoryTarget

ROWS = np.dtype([("a", "<i8"), ("b", "<u4")])


def test_an_agreement_returns_what_the_function_returned() -> None:
    assert Agreement(SerialComm()).run("plan", lambda: 42) == 42


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KvbenchError("no such model"), "no such model"),
        (PermissionError(13, "Permission denied", "/mnt/x"), "Permission denied: /mnt/x"),
        (OSError("odd"), "odd"),
        (MemoryError(), "out of memory"),
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("a bug"), "ValueError: a bug"),
    ],
)
def test_a_failed_phase_names_phase_rank_and_problem(error: BaseException, said: str) -> None:
    def function() -> None:
        raise error

    with pytest.raises(RanksFailed, match=r"^check failed: rank 0 on ") as raised:
        Agreement(SerialComm()).run("check", function)
    assert str(raised.value).endswith(said)
    assert ("Traceback" in str(raised.value)) == isinstance(error, ValueError)


def test_an_agreement_inside_another_is_reported_once() -> None:
    def function() -> None:
        raise KvbenchError("no space")

    agreement = Agreement(SerialComm())
    with pytest.raises(RanksFailed) as raised:
        agreement.run("outer", lambda: agreement.run("inner", function))
    assert str(raised.value).startswith("inner failed: ")
    assert str(raised.value).count("rank 0") == 1


def test_abort_prints_rank_and_message_and_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        abort(SerialComm(), "the disk is gone")
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith("the disk is gone\n")


def test_rows_come_in_order_in_chunks_that_are_not_too_long() -> None:
    rows = np.zeros(10, ROWS)
    rows["a"] = np.arange(10)
    received: list[npt.NDArray[Any]] = []
    gather_rows(
        SerialComm(), [rows[:1], rows[1:1], rows[1:9:2], rows[2:10:2]], ROWS, lambda _, r: received.append(r.copy()), 4
    )
    assert [len(chunk) for chunk in received] == [4, 4, 1]
    assert np.concatenate(received)["a"].tolist() == [0, 1, 3, 5, 7, 2, 4, 6, 8]


def test_rows_of_another_type_are_refused() -> None:
    with pytest.raises(TypeError, match=r"where .* is gathered"):
        gather_rows(SerialComm(), [np.zeros(3)], ROWS, lambda _, r: None)


def test_a_table_of_dicts_comes_back_as_columns() -> None:
    dtype = np.dtype([("rank", "<u4"), ("host", "S8")])
    table = gather_table(SerialComm(), as_rows([{"rank": 3, "host": "nöde"}, {"rank": 4, "host": ""}], dtype))
    assert table is not None
    columns = as_columns(table)
    assert list(columns["rank"]) == [3, 4]
    assert columns["host"] == ["nöde", ""]


def test_an_empty_table_stays_empty() -> None:
    table = gather_table(SerialComm(), np.empty(0, ROWS))
    assert table is not None
    assert len(table) == 0


def test_progress_is_summed_once_per_interval_and_ends_when_finished() -> None:
    now = [0.0]
    progress = ProgressExchange(SerialComm(), 1, interval_s=1.0, now_s=lambda: now[0])
    count = np.array([5], np.int64)
    assert progress.poll(count) is None
    now[0] = 1.0
    first = progress.poll(count)
    assert first is not None
    assert (first.totals.tolist(), first.finished, first.stopping, first.last) == ([5], 0, 0, False)
    assert progress.poll(count) is None
    now[0] = 1.06
    stopping = progress.poll(count, stop=True)
    assert stopping is not None
    assert (stopping.stopping, stopping.last) == (1, False)
    now[0] = 1.12
    last = progress.poll(count, finished=True)
    assert last is not None
    assert (last.stopping, last.finished, last.last) == (1, 1, True), "a stop is not taken back"
    assert progress.over
    assert progress.poll(count) is None


def test_one_rank_is_one_node_with_the_right_time_and_its_own_filesystem(tmp_path: Path) -> None:
    topology = discover(SerialComm())
    assert (topology.nodes, topology.local_size, topology.hosts) == (1, 1, (topology.host,))
    reading = read_clock(topology)
    assert (reading.offset_ns, reading.uncertainty_ns, reading.worst_uncertainty_ns) == (0, 0, 0)
    assert CommonClock(reading, reading).to_common(123) == 123
    group = place_group(topology, DirectoryTarget(str(tmp_path)), "run1")
    assert (group.group, group.ranks, group.nodes) == (0, 1, 1)
    assert not [*tmp_path.iterdir()]


def test_a_probe_never_replaces_somebody_elses_file(tmp_path: Path) -> None:
    theirs = tmp_path / "kvbench-run1.probe-0"
    theirs.write_text("precious")
    with pytest.raises(KvbenchError, match="File exists"):
        place_group(discover(SerialComm()), DirectoryTarget(str(tmp_path)), "run1")
    assert theirs.read_text() == "precious"


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3"}, 8),
        ({"PMI_SIZE": "4", "PMI_RANK": "0"}, 4),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "2", "SLURM_NTASKS": "16"}, 16),
        # A batch script has these, and was not started as a rank.
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, None),
        # mpirun starts its daemons with srun: one task a node, whose variables its ranks inherit.
        ({"OMPI_COMM_WORLD_SIZE": "8", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, 8),
        ({"PMIX_RANK": "0"}, None),
    ],
)
def test_the_launcher_is_known_by_its_variables(environ: Mapping[str, str], size: int | None) -> None:
    assert launcher_size(environ) == size
