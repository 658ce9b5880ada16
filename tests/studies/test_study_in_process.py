"""A study of one rank in this process: what happens when it is interrupted, fails, or does not fit."""

import errno
import io
import re
import signal
from pathlib import Path

import pytest
from kvbench_analysis import load
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.errors import KvbenchError
from kvbench.records.schema import Path as ReadPath
from kvbench.studies import requirements
from kvbench.studies.copy_path import StudyOrder, run_copy_path
from kvbench.studies.equipment import Stock
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.progress import StudyProgress
from kvbench.tiers.trial import Trouble
from kvbench.units import GIB, MIB


@pytest.fixture
def place(fast_directory: Path, tmp_path: Path) -> Path:
    directory = fast_directory / tmp_path.name
    directory.mkdir()
    return directory


def order(directory: Path, out: Path, **changes: object) -> StudyOrder:
    values: dict[str, object] = {
        "directories": (directory,),
        "ranks": (1,),
        "threads": (2,),
        "read_paths": (ReadPath.DOUBLE_COPY, ReadPath.BUFFERED),
        "sizes": (8192,),
        "seconds": 0.01,
        "repeats": 5,
        "seed": 1,
        "model": "llama3.1-8b",
    }
    return StudyOrder(CopyPathChoices(**(values | changes)), out, overwrite=False)  # type: ignore[arg-type]


def run(wanted: StudyOrder) -> str:
    """What the study prints."""
    printed = io.StringIO()
    run_copy_path(SerialComm(), wanted, Console(file=printed, width=200))
    return printed.getvalue()


def test_a_study_needs_no_mpi(place: Path, tmp_path: Path) -> None:
    printed = run(order(place, tmp_path / "s.h5"))
    assert "20 cells in 5 repeats" in printed
    assert len(load(tmp_path / "s.h5").columns(["cell"], "cells")["cell"]) == 20
    assert list(place.iterdir()) == []


def test_what_was_measured_until_ctrl_c_is_kept(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    advance = StudyProgress.advance

    def interrupted_after_four(self: StudyProgress) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            signal.raise_signal(signal.SIGINT)
        advance(self)

    monkeypatch.setattr(StudyProgress, "advance", interrupted_after_four)
    out = tmp_path / "s.h5"
    with pytest.raises(KvbenchError, match=f"interrupted; what was measured until then is in {re.escape(str(out))}"):
        run(order(place, out))
    kept = load(out)
    assert kept.attributes["status"] == "interrupted"
    measured = len(kept.columns(["cell"], "cells")["cell"])
    copies = len(kept.columns(["ranks"], "roofline")["ranks"])
    assert measured + copies == 4
    assert list(place.iterdir()) == []


def test_ctrl_c_while_objects_are_written_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Stock.write

    def interrupted(self: Stock) -> None:
        signal.raise_signal(signal.SIGINT)
        write(self)

    monkeypatch.setattr(Stock, "write", interrupted)
    with pytest.raises(KvbenchError, match="interrupted during write"):
        run(order(place, tmp_path / "s.h5"))
    assert list(place.iterdir()) == []
    assert list(tmp_path.glob("*.h5*")) == []


def test_data_that_is_not_what_was_written_ends_the_study_and_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Stock.write

    def damaged(self: Stock) -> None:
        write(self)
        for file in place.rglob("*.kv"):
            file.write_bytes(bytes(8192))

    monkeypatch.setattr(Stock, "write", damaged)
    out = tmp_path / "s.h5"
    with pytest.raises(KvbenchError, match=r"\.kv: the data is not what was written"):
        run(order(place, out))
    kept = load(out)
    assert kept.attributes["status"] == "failed"
    assert ".kv: the data is not what was written" in str(kept.attributes["status_message"])
    assert set(kept.records["errno"]) <= {0, errno.EBADMSG, errno.ECANCELED}
    assert list(place.iterdir()) == []


def test_an_existing_file_is_not_replaced(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    out.write_text("mine")
    with pytest.raises(KvbenchError, match="exists"):
        run(order(place, out))
    assert out.read_text() == "mine"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"the directory .*missing does not exist"):
        run(order(tmp_path / "missing", tmp_path / "s.h5"))
    assert list(tmp_path.iterdir()) == []


def test_whole_entries_that_do_not_fit_into_memory_are_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvbench.run.checks.sizes.memory_limit", lambda node: 2 * GIB)
    too_large = order(place, tmp_path / "s.h5", sizes=(64 * MIB,), threads=(32,))
    with pytest.raises(KvbenchError, match=r"whole entries for the numpy read paths 4 GiB.*leave double-copy"):
        run(too_large)
    assert list(place.iterdir()) == []


def test_objects_that_do_not_fit_on_the_filesystem_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"the study writes .* can be used: free some space"):
        run(order(place, tmp_path / "s.h5", sizes=(2**44,), read_paths=(ReadPath.BUFFERED,)))


def test_a_read_path_that_the_filesystem_refuses_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Trouble("read", OSError(errno.EINVAL, "Invalid argument"))
    refuses = ReadPath.DIRECT
    monkeypatch.setattr(requirements, "try_out", lambda tier: refusal if tier.read_path == refuses else None)
    with pytest.raises(KvbenchError, match=r"read path direct does not work on \S+ at .*: Invalid argument; leave it"):
        run(order(place, tmp_path / "s.h5", read_paths=(ReadPath.BUFFERED, ReadPath.DIRECT)))
    assert list(place.iterdir()) == []
