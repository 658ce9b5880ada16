"""A directory under test, as the target of a tier of files."""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvbench.errors import KvbenchError
from kvbench.tiers.file import leftovers
from kvbench.tiers.file.examine import examine
from kvbench.tiers.file.filesystem import filesystem_of, on_one_filesystem
from kvbench.tiers.file.run_directory import RunDirectory, check_directory
from kvbench.tiers.target import Finding, Leftover, Target, Volume


class DirectoryTarget(Target):
    """A directory that exists; `address` is its path."""

    @property
    def directory(self) -> Path:
        return Path(self.address)

    def check(self) -> None:
        if "://" in self.address and not self.directory.exists():
            raise KvbenchError(
                f"the directory {self.address} does not exist: files lie in a directory; where this is an address in a "
                "bucket, set kind=object of the last tier, or choose an --engine that keeps objects"
            )
        check_directory(self.directory)

    def describe(self) -> Volume:
        return filesystem_of(self.directory)

    def area(self, run_id: str, rank: int) -> RunDirectory:
        return RunDirectory(self.directory, run_id, rank)

    def is_there(self) -> bool:
        return self.directory.is_dir()

    def is_same(self, other: Target) -> bool:
        return self.address == other.address or on_one_filesystem(self.directory, Path(other.address))

    def put_up_sign(self, run_id: str, number: int) -> None:
        """An empty file right in the directory, which is made only if it is not there."""
        with self._saying_what_failed():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self._sign(run_id, number), flags, 0o600))

    def lowest_sign(self, run_id: str, numbers: Collection[int]) -> int | None:
        """Each is asked for by its name, and never before it is known to be made: a network filesystem's client may
        list a directory from its cache, and may remember for a while that a name was not there, but a name that it
        never heard of it asks the server for."""
        with self._saying_what_failed():
            for number in sorted(numbers):
                if self._sign(run_id, number).exists():
                    return number
            # By now the names are in the client's cache of missing ones, so the directory is listed besides.
            prefix = self._sign(run_id, 0).name.removesuffix("0")
            names = (re.fullmatch(re.escape(prefix) + r"(\d+)", name) for name in os.listdir(self.directory))
            return min((int(name[1]) for name in names if name and int(name[1]) in numbers), default=None)

    def take_down_sign(self, run_id: str, number: int) -> None:
        with self._saying_what_failed():
            self._sign(run_id, number).unlink(missing_ok=True)

    def _sign(self, run_id: str, number: int) -> Path:
        return self.directory / f"kvbench-{run_id}.probe-{number}"

    @contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise KvbenchError(
                f"cannot make, list and remove a file in {self.directory}: {error.strerror}; "
                f"give a directory that exists on every node and is writable"
            ) from error

    def is_beside(self, directory: Path) -> bool:
        return self.is_there() and on_one_filesystem(self.directory, directory)

    def holds(self, run_id: str) -> bool:
        return RunDirectory(self.directory, run_id, 0).top.exists()

    def examine(self) -> Iterator[Finding]:
        return examine(self.directory)

    def leftovers(self) -> list[Leftover]:
        return leftovers.find(self.directory)

    def remove_leftover(self, leftover: Leftover, even_unknown: bool = False) -> Leftover:
        return leftovers.remove(leftover, even_unknown)
