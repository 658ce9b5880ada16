"""A directory under test, as the target of a tier of files."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from kvbench.tiers.file import leftovers
from kvbench.tiers.file.examine import examine
from kvbench.tiers.file.filesystem import filesystem_of, on_one_filesystem
from kvbench.tiers.file.run_directory import RunDirectory, check_directory
from kvbench.tiers.target import Finding, Leftover, Sign, Target, Volume

_SIGN: Final = "kvbench-{run_id}.probe-"


class DirectoryTarget(Target):
    """A directory that exists; `address` is its path."""

    @property
    def directory(self) -> Path:
        return Path(self.address)

    def check(self) -> None:
        check_directory(self.directory)

    def describe(self) -> Volume:
        return filesystem_of(self.directory)

    def area(self, run_id: str, rank: int) -> RunDirectory:
        return RunDirectory(self.directory, run_id, rank)

    def sign(self, run_id: str, number: int) -> Sign:
        return _EmptyFile(self.directory, run_id, number)

    def shares_volume(self, other: Target) -> bool:
        return isinstance(other, DirectoryTarget) and on_one_filesystem(self.directory, other.directory)

    def is_beside(self, directory: Path) -> bool:
        return on_one_filesystem(self.directory, directory)

    def holds(self, run_id: str) -> bool:
        return RunDirectory(self.directory, run_id, 0).top.exists()

    def examine(self) -> Iterator[Finding]:
        return examine(self.directory)

    def leftovers(self) -> list[Leftover]:
        return leftovers.find(self.directory)

    def remove_leftover(self, leftover: Leftover, even_unknown: bool = False) -> Leftover:
        return leftovers.remove(leftover, even_unknown)


class _EmptyFile(Sign):
    """An empty file right in the directory, that is made only if it is not there."""

    def __init__(self, directory: Path, run_id: str, number: int) -> None:
        self._directory = directory
        self._prefix = _SIGN.format(run_id=run_id)
        self._number = number

    def put_up(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(self._path(self._number), flags, 0o600))

    def lowest_of(self, numbers: Sequence[int]) -> int | None:
        # Each is asked for by its name, and never before it is known to be made: a network filesystem's client may list
        # a directory from its cache, and may remember for a while that a name was not there, but a name that it never
        # heard of it asks the server for.
        for number in numbers:
            if self._path(number).exists():
                return number
        # What was not seen may come late; the names are in the client's cache of missing ones by now, so the directory
        # is listed besides.
        pattern = re.compile(re.escape(self._prefix) + r"(\d+)")
        listed = (int(match[1]) for match in map(pattern.fullmatch, os.listdir(self._directory)) if match)
        return min(set(listed) & set(numbers), default=None)

    def take_down(self) -> None:
        self._path(self._number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._prefix}{number}"
