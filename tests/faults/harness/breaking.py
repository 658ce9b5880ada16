"""A run that something is done to: its rows before and after, what it said, how long it took to end, what it left.

It judges nothing but that all ends in time: the tests do.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from kvbench_command import Command, Ended, column, remains

from kvbench.records.spill.recover import recover

ENOUGH_BYTES = 32 * 1024
"""In the spill file of each rank, before anything is done to it: some 250 rows."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    ended: Ended
    seconds: float
    """From the fault to the end of the command."""
    before: int
    """Rows in the spill files just before the fault."""

    @property
    def message(self) -> str:
        """What kvbench said last, on one line."""
        return " ".join(" ".join(self.ended.messages[-1:]).split())


class Victim:
    """A run of `ranks` ranks on `directory` that spills to `spill`; `work` is for files of this object's own."""

    def __init__(self, command: Command, directory: Path, spill: Path, work: Path, ranks: int) -> None:
        self.command = command
        self.directory = directory
        self.spill = spill
        self._work = work
        self._ranks = ranks
        self.began_s = 0.0
        self.before = 0

    def break_it(self, fault: Callable[[], object]) -> None:
        """Do `fault` once every rank is at work."""
        self.command.wait_for(self._at_work)
        self.before = sum(self._rows())
        self.began_s = time.monotonic()
        fault()

    def go_on(self) -> None:
        """Return when every rank has measured some more."""
        sizes = self._sizes()
        self.command.wait_for(
            lambda: all(now > then + ENOUGH_BYTES for now, then in zip(self._sizes(), sizes, strict=True))
        )

    def outcome(self) -> Outcome:
        """What came of it, once the command has ended."""
        ended = self.command.ended()
        return Outcome(ended, time.monotonic() - self.began_s, self.before)

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank on this machine."""
        wanted = str(number)
        return next(p for p in self.command.descendants() if p.environ().get("OMPI_COMM_WORLD_RANK") == wanted)

    def mpirun(self) -> psutil.Process:
        """mpirun's process."""
        return self.rank(0).parents()[0]

    def recovered(self) -> tuple[list[int], str]:
        """Rows of each rank that `kvbench recover` finds, and what it said."""
        out = self._work / "recovered.h5"
        words = [sys.executable, "-m", "kvbench", "recover", str(self.spill), "-o", str(out), "--overwrite"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return column(out, "ranks/rows").tolist(), done.stdout

    def _at_work(self) -> bool:
        sizes = self._sizes()
        return len(sizes) == self._ranks and min(sizes) >= ENOUGH_BYTES

    def _sizes(self) -> list[int]:
        return [path.stat().st_size for path in sorted(self.spill.glob("*.spill"))]

    def _rows(self) -> list[int]:
        out = self._work / "so-far.h5"
        recover([self.spill], out, overwrite=True)
        return list(column(out, "ranks/rows").tolist())


STRANGERS = ("0123456789abcdef.kv", "kvbench-mine/rank-0/0123456789abcdef.kv", "notes.txt")


def put_strangers(directory: Path) -> list[str]:
    """Files of somebody else's in a directory under test; returns all that lies there then."""
    for name in STRANGERS:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("precious")
    return remains(directory)


def clean(directory: Path) -> str:
    """`kvbench clean DIRECTORY --yes`; what it printed."""
    words = [sys.executable, "-m", "kvbench", "clean", str(directory), "--yes"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_gone(pids: Sequence[int], timeout_s: float = 30) -> bool:
    """Whether all of these processes have ended within so many seconds."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return not psutil.wait_procs(processes, timeout=timeout_s)[1]


def missing(what: str) -> str | None:
    """Why a test is to be skipped that needs `what`; None in CI, where it must be there."""
    return None if os.environ.get("CI") == "true" else f"needs {what}"
