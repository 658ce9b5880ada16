"""What NVMe drives say of themselves: read by a stand-in for nvme-cli, with logs as they are specified."""

import os
import shutil
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.run import drive_counters, node_counters, runner
from kvbench.run.drive_counters import DriveCounters, drives_of
from kvbench.run.order import Order

NVME = """#!/usr/bin/env python3
import pathlib, sys
command, device, log, length, raw = sys.argv[1:]
assert (command, length, raw) == ("get-log", "--log-len=512", "--raw-binary")
place = pathlib.Path(__file__).parent / device.rpartition("/")[2]
number = log.partition("=")[2]
times = place / f"{number}.times"
turn = int(times.read_text()) if times.exists() else 0
times.write_text(str(turn + 1))
sys.stdout.buffer.write((place / f"{number}.{turn}").read_bytes())
"""
GUID = "AFD514C97C6F4F9CA4F2BFEA2810AFC5"
"""As the specification prints it; it lies in the log with its last byte first."""


def smart(units: int, used_pct: int) -> bytes:
    log = bytearray(512)
    log[5] = used_pct
    log[48:64] = units.to_bytes(16, "little")
    return bytes(log)


def extended(media_bytes: int, guid: str = GUID) -> bytes:
    return media_bytes.to_bytes(16, "little") + bytes(480) + bytes.fromhex(guid)[::-1]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have a drive say something in turn: `say(drive, 2, log, log)`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvme").write_text(NVME, encoding="utf-8")
    (folder / "nvme").chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def says(drive: str, number: int, *logs: bytes) -> None:
        (folder / drive).mkdir(exist_ok=True)
        for turn, log in enumerate(logs):
            (folder / drive / f"{number}.{turn}").write_bytes(log)

    return says


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Block devices: a partition, a RAID of two drives below a logical volume, and a drive of another kind."""
    devices, place = tmp_path / "devices", tmp_path / "block"
    place.mkdir()
    for name in ("nvme0n1", "nvme0n1/nvme0n1p2", "nvme1n1", "nvme2n1", "md0", "dm-3", "vda"):
        (devices / name).mkdir(parents=True)
        (place / Path(name).name).symlink_to(devices / name)
    (devices / "nvme0n1/nvme0n1p2/partition").write_text("2\n", encoding="ascii")
    for whole, parts in (("md0", ("nvme1n1", "nvme2n1")), ("dm-3", ("md0",))):
        (devices / whole / "slaves").mkdir()
        for part in parts:
            (devices / whole / "slaves" / part).symlink_to(devices / part)
    monkeypatch.setattr(drive_counters, "_BLOCK", place)
    return place


@pytest.mark.parametrize(
    ("disks", "drives"),
    [
        (["nvme1n1"], {"nvme1n1"}),
        (["nvme0n1p2"], {"nvme0n1"}),
        (["dm-3", "nvme1n1"], {"nvme1n1", "nvme2n1"}),
        (["vda"], set()),
        (["no-more"], set()),
        ([], set()),
    ],
)
def test_devices_lie_on_drives(block: Path, disks: list[str], drives: set[str]) -> None:
    assert drives_of(disks) == drives


def test_rows_are_what_was_counted_in_between(block: Path, say: Any) -> None:
    # Counters of 128 bits, of a drive that has been written for long.
    say("nvme1n1", 2, smart(2**70, 3), smart(2**70 + 4000, 4))
    say("nvme1n1", 192, extended(2**90), extended(2**90 + 3 * 10**9))
    say("nvme2n1", 2, smart(5, 255), smart(6, 255))
    say("nvme2n1", 192, extended(7, GUID[::-1]), extended(8, GUID[::-1]))
    rows = DriveCounters(3, ["dm-3"]).rows()
    assert rows["node"].tolist() == [3, 3]
    assert rows["drive"].tolist() == [b"nvme1n1", b"nvme2n1"]
    assert rows["host_written_bytes"].tolist() == [4000 * 512_000, 512_000]
    assert rows["media_written_bytes"].tolist() == [3 * 10**9, -1], "another log under the same number is none"
    assert rows["used_pct"].tolist() == [4, 255]
    assert (rows["t_before_ns"] < rows["t_after_ns"]).all()


@pytest.mark.parametrize("logs", [(), (b"short",), (smart(1, 1),)], ids=["none", "short", "then none"])
def test_a_drive_that_does_not_answer_has_no_row(block: Path, say: Any, logs: tuple[bytes, ...]) -> None:
    say("nvme1n1", 2, *logs)
    assert len(DriveCounters(0, ["nvme1n1"]).rows()) == 0


def test_without_the_program_there_are_no_rows(block: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("nvme") is None
    assert len(DriveCounters(0, ["nvme1n1"]).rows()) == 0


def test_a_run_has_them_on_its_clock_around_its_load(
    block: Path, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("nvme0n1", 2, smart(10, 1), smart(3_000_010, 1))
    say("nvme0n1", 192, extended(0), extended(3 * 10**12))
    monkeypatch.setattr(node_counters, "disks_of", lambda volumes: ("nvme0n1p2",))
    order = Order("smoke", str(tmp_path), tmp_path / "run.h5", ("duration_s=0.3", "workload.users=2"))
    runner.run(SerialComm(), order, Console(quiet=True)).close()
    run = ka.load(tmp_path / "run.h5")
    (drive,) = run.drives.to_dict("records")
    assert (drive["drive"], drive["node"]) == ("nvme0n1", 0)
    assert drive["t_before_ns"] <= run.records["t_start_ns"].min()
    assert drive["t_after_ns"] >= np.max(run.records["t_start_ns"] + run.records["wall_ns"])
    endurance = ka.summarize(run).endurance
    assert endurance is None or endurance.total["drive_amplification"] == pytest.approx(3e12 / 1.536e12)
