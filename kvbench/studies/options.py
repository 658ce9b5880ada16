"""What the user of a study may choose, as text of the command line and as values. Measures nothing."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, Self

from kvbench.config.models import shipped_model
from kvbench.errors import KvbenchError
from kvbench.records.schema import PATHS, READ_PATHS, Path, label
from kvbench.units import SECTOR_BYTES, format_bytes, parse_bytes, parse_seconds

MINIMUM_REPEATS: Final = 5
"""Fewer repeats give no confidence interval worth the name."""

MOST_RANKS: Final = 100_000
_MOST_THREADS: Final = 1024


@dataclass(frozen=True, slots=True)
class CopyPathChoices:
    """What a copy-path study is to measure: every combination of directories, ranks, threads, paths and sizes."""

    directories: tuple[FilePath, ...]
    """Absolute."""
    ranks: tuple[int, ...]
    """Ranks of each node that take part."""
    threads: tuple[int, ...]
    """Per rank."""
    read_paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    """Bytes of an object, multiples of the sector."""
    seconds: float
    """Of each turn: one rank alone, or all at once."""
    repeats: int
    seed: int
    model: str
    """Only for `tokens`: bytes are what is read."""

    def to_json(self) -> dict[str, Any]:
        """The choices as JSON holds them."""
        return {
            "directories": [str(directory) for directory in self.directories],
            "ranks": list(self.ranks),
            "threads": list(self.threads),
            "read_paths": [label(path) for path in self.read_paths],
            "sizes": list(self.sizes),
            "seconds": self.seconds,
            "repeats": self.repeats,
            "seed": self.seed,
            "model": self.model,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The choices that `to_json` gave."""
        return cls(
            directories=tuple(FilePath(directory) for directory in content["directories"]),
            ranks=tuple(content["ranks"]),
            threads=tuple(content["threads"]),
            read_paths=tuple(PATHS[name] for name in content["read_paths"]),
            sizes=tuple(content["sizes"]),
            seconds=content["seconds"],
            repeats=content["repeats"],
            seed=content["seed"],
            model=content["model"],
        )


def read_choices(
    *,
    directories: Iterable[FilePath],
    ranks: str,
    threads: str,
    paths: str,
    sizes: str,
    seconds: str,
    repeats: int,
    seed: int,
    model: str,
) -> CopyPathChoices:
    """The choices in options of the command line, lists separated by commas. Raises KvbenchError naming the option."""
    if repeats < MINIMUM_REPEATS:
        raise KvbenchError(
            f"--repeats {repeats}: a confidence interval needs at least {MINIMUM_REPEATS}; shorten --seconds instead"
        )
    shipped_model(model)
    return CopyPathChoices(
        directories=tuple(dict.fromkeys(directory.absolute() for directory in directories)),
        ranks=read_counts("--ranks", ranks, MOST_RANKS),
        threads=read_counts("--threads", threads, _MOST_THREADS),
        read_paths=_read_paths(paths),
        sizes=_read_sizes(sizes),
        seconds=read_duration("--seconds", seconds),
        repeats=repeats,
        seed=seed,
        model=model,
    )


def read_counts(option: str, text: str, most: int) -> tuple[int, ...]:
    """Whole numbers from 1 to `most` in `text`, separated by commas, each once, in rising order."""
    numbers = set()
    for word in _words(option, text):
        if not (word.isascii() and word.isdecimal() and 1 <= int(word) <= most):
            raise KvbenchError(f"{option} {text}: expected whole numbers from 1 to {most} such as 1,2,4, not {word!r}")
        numbers.add(int(word))
    return tuple(sorted(numbers))


def read_duration(option: str, text: str) -> float:
    """Seconds in `text`, more than none."""
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise KvbenchError(f"{option} {text}: {error}") from error
    if seconds <= 0:
        raise KvbenchError(f"{option} {text}: expected more than 0 seconds, such as 2s or 500ms")
    return seconds


def _read_paths(text: str) -> tuple[Path, ...]:
    if text == "all":
        return READ_PATHS
    chosen, names = set(), [label(path) for path in READ_PATHS]
    for word in _words("--paths", text):
        if word not in names:
            near = difflib.get_close_matches(word, names, n=1, cutoff=0.0)[0]
            known = ", ".join(names)
            raise KvbenchError(f"--paths {text}: no read path {word!r}: did you mean {near}? (known: {known}; or all)")
        chosen.add(PATHS[word])
    return tuple(path for path in READ_PATHS if path in chosen)


def _read_sizes(text: str) -> tuple[int, ...]:
    sizes = set()
    for word in _words("--size", text):
        try:
            nbytes = parse_bytes(word)
        except ValueError as error:
            raise KvbenchError(f"--size {text}: {word}: {error}") from error
        if nbytes == 0 or nbytes % SECTOR_BYTES:
            near = max(SECTOR_BYTES, round(nbytes / SECTOR_BYTES) * SECTOR_BYTES)
            raise KvbenchError(
                f"--size {text}: {word} is not a multiple of {format_bytes(SECTOR_BYTES)}; the nearest is {near} bytes"
            )
        sizes.add(nbytes)
    return tuple(sorted(sizes))


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise KvbenchError(f"{option} {text!r}: expected values separated by commas, and none left empty")
    return words
