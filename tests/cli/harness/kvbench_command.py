"""Running kvbench as a user does, with a time limit that ends all that a command started, and reading its run files.

Nothing here judges what a command did.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that run files are compressed with
import numpy as np
import numpy.typing as npt
import psutil

from kvbench.run.calibration import CALIBRATION_KEY
from kvbench.tiers.trial import TRIAL_KEY

_LOOK_S = 0.02
KVBENCH = (sys.executable, "-m", "kvbench")

QUICK = ("duration_s=0.4", "calibration.seconds=0", "io.arena_bytes=8MiB")
"""Overrides that make the shipped configuration `smoke` quicker still."""

ENDLESS = ("duration_s=600", *QUICK[1:])
"""For a run that is to be ended from outside."""


def overrides(*settings: str) -> list[str]:
    """Options of `kvbench run` for KEY=VALUE settings."""
    return [word for setting in settings for word in ("--set", setting)]


@dataclass(frozen=True)
class Ended:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[str]:
        """What kvbench itself said on stderr, one message with its continuation lines each; not what mpirun said."""
        messages: list[str] = []
        # Some mpirun ends what it says itself with a NUL.
        for line in self.err.replace("\0", "").splitlines():
            if line.startswith("kvbench: "):
                messages.append(line)
            elif messages and re.match(r"  \S", line):
                messages[-1] += f"\n{line}"
        return messages

    @property
    def verdict(self) -> list[str]:
        """The messages but for those that it still waits, which depend on how busy the machine is."""
        waiting = ("(again to end at once)", "(again to end them at once)")
        return [text for text in self.messages if not text.endswith(waiting)]


class Command:
    """A command that is running, killed with all its descendants when it does not end in time."""

    def __init__(self, words: Sequence[object], environment: Mapping[str, str], timeout_s: float = 60) -> None:
        self._words = [str(word) for word in words]
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # On SIGABRT, which ends it when it takes too long, Python then says where it was.
            env=inherited | {"PYTHONFAULTHANDLER": "1"} | dict(environment),
            start_new_session=True,
        )
        self._timeout_s = timeout_s
        self._timed_out = False
        self._timer = threading.Timer(timeout_s, self._on_timeout)
        self._timer.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def descendants(self) -> list[psutil.Process]:
        """All processes below it."""
        return list(psutil.Process(self._process.pid).children(recursive=True))

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """What `condition()` gives once it is true. Fails when the command ends before."""
        while self.running:
            value = condition()
            if value:
                return value
            time.sleep(_LOOK_S)
        ended = self.ended()
        raise AssertionError(f"{self._words} ended with {ended.code} before it should:\n{ended.out}\n{ended.err}")

    def keep_doing(self, action: Callable[[], None]) -> Ended:
        """Call `action` until the command ends."""
        while self.running:
            action()
            time.sleep(_LOOK_S)
        return self.ended()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, and nothing to what it started."""
        self._process.send_signal(number)

    def ended(self) -> Ended:
        """What it did, once it has ended."""
        out, err = self._process.communicate()
        self._timer.cancel()
        if self._timed_out:
            raise AssertionError(f"no end of {self._words} within {self._timeout_s} s:\n{out}\n{err}")
        return Ended(self._process.returncode, out, err)

    def close_out(self) -> None:
        """Read its standard output no further, as `| head` does."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None

    def kill(self) -> None:
        """Kill it and its descendants, which mpirun puts into process groups of their own."""
        self._timer.cancel()
        self._end_all(signal.SIGKILL)

    def _on_timeout(self) -> None:
        self._timed_out = True
        self._end_all(signal.SIGABRT)
        time.sleep(1)
        self._end_all(signal.SIGKILL)

    def _end_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in [*self.descendants(), psutil.Process(self._process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(number)


def objects(folder: Path, rank: int = 0) -> list[Path]:
    """The objects that a rank has in the directory under test, but for those before the load, which only try it."""
    found = folder.glob(f"kvbench-*/rank-{rank}/**/*")
    before = {f"{key:x}" for key in (TRIAL_KEY, CALIBRATION_KEY)}
    return [path for path in found if path.suffix in {".kv", ".npy"} and path.stem not in before]


def remains(folder: Path) -> list[str]:
    """Names of all that lies in a directory, at any depth."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def attributes(run_file: Path) -> dict[str, Any]:
    """The root attributes of a run file, text as str."""
    with h5py.File(run_file) as file:
        values = dict(file.attrs)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def column(run_file: Path, name: str) -> npt.NDArray[Any]:
    """One column: `records/op`."""
    with h5py.File(run_file) as file:
        values: npt.NDArray[Any] = file[name][:]
    return values


def decisions(run_file: Path) -> npt.NDArray[np.int64]:
    """What was decided, as sorted rows of rank, operation, tier, request and bytes."""
    names = ("rank", "op", "tier", "request", "nbytes")
    table = np.stack([column(run_file, f"records/{name}").astype(np.int64) for name in names], axis=1)
    return table[np.lexsort(table.T[::-1])]
