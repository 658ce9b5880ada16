"""What is true of every run that a fault has ended, and faults that several tests do."""

import contextlib
import socket
from pathlib import Path

from breaking import Outcome, Victim, clean
from kvbench_command import attributes, column, remains

HOST = socket.gethostname()
MOST_SECONDS = 60
MOST_SECONDS_OF_A_KILL = 40
"""At once means a second or two, on a machine that is not busy."""


def check_failed(outcome: Outcome, run_file: Path, words: str) -> int:
    """The run ended with one message; its file, marked `failed`, holds at least what there was. Returns its rows."""
    assert outcome.ended.code == 1
    assert outcome.seconds < MOST_SECONDS
    assert len(outcome.ended.messages) == 1
    assert f" on {HOST}: " in outcome.message
    assert words in outcome.message
    described = attributes(run_file)
    assert described["status"] == "failed"
    assert described["status_message"].startswith("rank ")
    rows = int(column(run_file, "ranks/rows").sum())
    assert rows >= outcome.before > 0
    return rows


def check_nothing_is_lost(victim: Victim, outcome: Outcome, strangers: list[str]) -> list[int]:
    """All that was on disk before is recovered, and the directory is as it was; returns the recovered rows."""
    assert outcome.ended.code != 0
    assert outcome.seconds < MOST_SECONDS_OF_A_KILL
    rows, said = victim.recovered()
    assert outcome.before > 0
    assert sum(rows) >= outcome.before
    assert "ended early of 600 s: rank " in said
    assert set(strangers) < set(remains(victim.directory)), "the run's files are there, as it was killed"
    clean(victim.directory)
    assert remains(victim.directory) == strangers
    return rows


def fill(place: Path) -> None:
    """Leave no space on a filesystem."""
    with (place / "mine").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024**2))


def beside(spill: Path) -> Path:
    """Another directory beside `spill`."""
    made = spill.with_name(f"{spill.name}-second")
    made.mkdir()
    return made
