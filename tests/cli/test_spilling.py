"""Records on their way to the run file: where spill files go, what is left of them, and what stays in memory."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kvbench_command import ENDLESS, QUICK, Command, Ended, attributes, column, objects, overrides, remains

from kvbench.engine.worker import MOST_TOGETHER
from kvbench.errors import KvbenchError
from kvbench.records.stream import RowStream

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]


@pytest.fixture
def run(kvbench: Call, folder: Path, tmp_path: Path) -> Call:
    """`kvbench run smoke` on `folder`, into tmp_path/run.h5, in this process."""

    def call(*options: object) -> Ended:
        return kvbench("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", *overrides(*QUICK), *options)

    return call


def check_all_rows_are_there(run_file: Path) -> None:
    """Every request that was done has the operations that it counts, and every rank the rows that it counts."""
    rows, requests = column(run_file, "ranks/rows"), column(run_file, "ranks/requests")
    assert rows.sum() == len(column(run_file, "records/rank")) > 0
    assert requests.sum() == len(column(run_file, "requests/rank")) > 0
    for rank, (first, count) in enumerate(zip(column(run_file, "ranks/first_row"), rows, strict=True)):
        assert (column(run_file, "records/rank")[first : first + count] == rank).all()
    pairs = np.stack([column(run_file, "records/rank"), column(run_file, "records/request")], axis=1)
    counted = {tuple(pair): int(n) for pair, n in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True)}
    names = ("rank", "request", "operations")
    for rank, request, operations in zip(
        *(column(run_file, f"requests/{name}").tolist() for name in names), strict=True
    ):
        assert counted.get((rank, request), 0) >= operations


def test_a_run_that_ends_well_leaves_no_spill_file_and_all_rows(run: Call, tmp_path: Path, spills: Path) -> None:
    ended = run("--spill", spills)
    assert ended.code == 0
    assert f"records are spilled to {spills} (" in ended.out
    assert remains(spills) == []
    run_file = tmp_path / "run.h5"
    check_all_rows_are_there(run_file)
    assert column(run_file, "ranks/spilled_rows").tolist() == column(run_file, "ranks/rows").tolist()
    assert column(run_file, "ranks/spill_bytes")[0] > 112 * column(run_file, "ranks/rows")[0]
    assert column(run_file, "ranks/spill_errno").tolist() == [0]


def test_rows_leave_memory_while_they_come(
    run: Call, tmp_path: Path, spills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With chunks of 4 rows, or of a batch, what is in memory at the end is what is not yet a whole chunk, for each
    thread."""
    monkeypatch.setattr("kvbench.engine.engine.CHUNK_ROWS", 4)
    in_memory: list[int] = []
    real = RowStream.stop

    def stop(stream: RowStream) -> None:
        real(stream)
        in_memory.extend(store.count - store.released for store in stream._stores)

    monkeypatch.setattr(RowStream, "stop", stop)
    assert run("--spill", spills).code == 0
    check_all_rows_are_there(tmp_path / "run.h5")
    assert max(in_memory[:-1]) < MOST_TOGETHER < len(column(tmp_path / "run.h5", "records/rank"))
    assert in_memory[-1] < 4, "of the requests"


def test_without_spill_files_all_stays_in_memory(run: Call, tmp_path: Path) -> None:
    ended = run("--no-spill")
    assert ended.code == 0
    assert "no spill files (--no-spill)" in ended.out
    check_all_rows_are_there(tmp_path / "run.h5")
    assert column(tmp_path / "run.h5", "ranks/spilled_rows").tolist() == [0]


def test_spill_files_on_the_filesystem_under_test_are_refused_before_anything_is_measured(
    run: Call, folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "beside"
    place.mkdir()
    ended = run("--spill", place)
    assert ended.code == 1
    (message,) = ended.messages
    assert message.startswith(f"kvbench: the directory {place} for spill files is on the filesystem under")
    assert "give one on another filesystem with --spill" in message
    assert remains(folder) == remains(place) == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "does not exist"),
        (lambda path: path.mkdir(), ""),
    ],
)
def test_the_directory_for_spill_files_must_be_there(
    run: Call, spills: Path, make: Callable[[Path], object], said: str
) -> None:
    place = spills / "there"
    make(place)
    ended = run("--spill", place)
    assert (ended.code, said in ended.err) == (1 if said else 0, True)


def test_the_usual_places_are_tried_in_their_order(
    run: Call, folder: Path, spills: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kvbench.run.output.spill_files._USUAL_PLACES", (str(spills / "missing"), str(tmp_path), lambda: str(spills))
    )
    assert f"records are spilled to {spills} (" in run().out


def test_where_there_is_no_other_filesystem_it_is_said_and_the_run_goes_on(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvbench.run.output.spill_files._USUAL_PLACES", (str(tmp_path),))
    ended = run()
    assert ended.code == 0
    assert "1 of 1 ranks find no directory for spill files that is not on the filesystem under test" in ended.out
    check_all_rows_are_there(tmp_path / "run.h5")


def test_datasize_says_how_much_room_spill_files_need(
    kvbench: Call, folder: Path, spills: Path, tmp_path: Path
) -> None:
    def size(*options: object) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            kvbench("datasize", "smoke", "--ranks", 4, "--nodes", 2, "--json", *options).out
        )
        return found

    beside, none = size("--spill", spills, "--dir", folder), size("--no-spill", "--dir", folder)
    demand = beside["demand"]
    rows = 112 * demand["operations"] + 80 * demand["requests"]
    assert rows < beside["spill_per_rank_bytes"] < 1.5 * rows + 2**21
    assert beside["spill_in_all_bytes"] == 2 * beside["spill_per_node_bytes"] == 4 * beside["spill_per_rank_bytes"]
    assert none["spill_per_rank_bytes"] == 0
    assert beside["memory_per_rank_bytes"] <= none["memory_per_rank_bytes"]
    in_memory = size("--spill", tmp_path)
    if Path("/dev/shm") in tmp_path.parents:
        assert (
            in_memory["memory_per_node_bytes"]
            >= 2 * in_memory["spill_per_rank_bytes"] + in_memory["memory_per_rank_bytes"]
        )
    shown = kvbench("datasize", "smoke", "--spill", spills, "--dir", folder).out
    assert "spill files, at most" in shown
    assert f"Spill files on this node: {spills} (" in shown
    assert "records stay in memory" in kvbench("datasize", "smoke", "--no-spill").out


def test_a_run_that_ends_before_it_has_measured_anything_leaves_no_spill_file(
    run: Call, spills: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def read_clock(*_: object) -> None:
        seen.append(remains(spills))
        raise KvbenchError("no clock")

    monkeypatch.setattr("kvbench.run.runner.read_clock", read_clock)
    assert run("--spill", spills).messages == ["kvbench: no clock"]
    assert len(seen[0]) == 1
    assert remains(spills) == []


def test_an_interrupted_run_leaves_no_spill_file(start_run: Start, folder: Path, tmp_path: Path, spills: Path) -> None:
    command = start_run(*ENDLESS)
    command.wait_for(lambda: objects(folder))
    command.send(signal.SIGINT)
    command.ended()
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    assert remains(spills) == []


def test_a_spill_filesystem_that_becomes_full_ends_nothing_and_loses_nothing(
    under_mpirun: Start, kvbench: Call, mounted: Callable[[str, str], Path], folder: Path, tmp_path: Path
) -> None:
    place = mounted("tmpfs", "size=64k")
    ended = under_mpirun("duration_s=4", *QUICK[1:], options=("--spill", place)).ended()
    assert ended.code == 0
    assert "64 KiB are free: what finds no room stays in memory" in ended.out
    run_file = tmp_path / "run.h5"
    check_all_rows_are_there(run_file)
    assert attributes(run_file)["status"] == "complete"
    assert set(column(run_file, "ranks/spill_errno").tolist()) == {errno.ENOSPC}
    assert (column(run_file, "ranks/spilled_rows") < column(run_file, "ranks/rows")).all()
    assert remains(place) == []
    shown = " ".join(kvbench("summary", run_file).out.split())
    assert f"2 ranks could not write their spill file to the end ({os.strerror(errno.ENOSPC)})" in shown


@pytest.mark.parametrize("what", ["files", "folder"])
def test_spill_files_that_are_deleted_in_mid_run_cost_no_row(
    under_mpirun: Start, folder: Path, tmp_path: Path, spills: Path, what: str
) -> None:
    """As a cleaner of temporary files does; files are made anew, as long as there is a folder for them."""
    run_file = tmp_path / "run.h5"
    command = under_mpirun(*ENDLESS)
    command.wait_for(lambda: objects(folder, rank=1))
    if what == "folder":
        command.wait_for(lambda: len(remains(spills)) == 2)
        shutil.rmtree(spills)
        before = set(objects(folder))
        command.wait_for(lambda: set(objects(folder)) - before)
    else:
        for _ in range(3):
            deleted = command.wait_for(lambda: len(found := list(spills.iterdir())) == 2 and found)
            for path in deleted:
                path.unlink()
        command.wait_for(lambda: len(remains(spills)) == 2)
    command.send(signal.SIGUSR1)
    command.ended()
    spills.mkdir(exist_ok=True)
    assert attributes(run_file)["status"] == "interrupted"
    check_all_rows_are_there(run_file)
    assert column(run_file, "ranks/spilled_rows").tolist() == column(run_file, "ranks/rows").tolist()
    assert column(run_file, "ranks/spill_errno").tolist() == [0, 0]
    assert remains(spills) == []


@pytest.mark.parametrize("what", ["nothing", "files", "folder"])
def test_where_the_run_file_cannot_be_written_it_is_said_truly_what_is_left(
    start_run: Start,
    kvbench: Call,
    mounted: Callable[[str, str], Path],
    folder: Path,
    tmp_path: Path,
    spills: Path,
    what: str,
) -> None:
    place = mounted("tmpfs", "size=16k")
    command = start_run(*ENDLESS, out=place / "run.h5")
    command.wait_for(lambda: objects(folder))
    if what == "folder":
        shutil.rmtree(spills)
    elif what == "files":
        for path in spills.iterdir():
            path.unlink()
    command.send(signal.SIGINT)
    ended = command.ended()
    assert ended.code == 1
    message = ended.messages[-1]
    assert f"cannot write {place}/run.h5: No space left on device" in message
    if what == "folder":
        assert "the spill files were deleted while the run went on, and the records with them" in message
        assert "recover" not in message
        spills.mkdir()
        return
    assert f"the records of each rank are still in {spills}/kvbench-" in message
    assert kvbench("recover", spills, "-o", tmp_path / "recovered.h5").code == 0
    check_all_rows_are_there(tmp_path / "recovered.h5")
