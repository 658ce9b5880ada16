"""A submission tree as it was found: its divisions, submitters, systems and runs, with what could be read of each.

Nothing is judged here: what is missing, misplaced or broken stays visible as such, for the rules to name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.code_images import Pointer, Pool
from kvbench.mlperf.tree.document import Document
from kvbench.mlperf.tree.metadata import Metadata
from kvbench.mlperf.tree.rank_result import RankFile
from kvbench.mlperf.tree.trial_records import TrialRecords
from kvbench.mlperf.tree.untrusted import MISSING, Entry

DIVISIONS: Final = ("closed", "open")
SEQUENCE_NAME: Final = "kvbench_sequence.json"
RUN_FILE_NAME: Final = "kvbench_run.h5"
WORKLOAD: Final = "kv_cache"

_STAMP: Final = re.compile(r"\d{8}_\d{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rank:
    """rank_<N> of a trial."""

    number: int
    path: Path
    results: tuple[Entry, ...]
    """What is named like a rank's result."""
    file: RankFile
    """The result, of the first of them."""

    @property
    def stamp(self) -> datetime | None:
        """When the launcher began the trial, by the name of the result: local time, the same on all ranks."""
        return (
            stamp_time(self.results[0].name.removeprefix("kvcache_results_").removesuffix(".json"))
            if self.results
            else None
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """trial_<T> of an option."""

    number: int
    path: Path
    ranks: dict[int, Rank]
    records: TrialRecords | None
    """Of the run file, where there is one (kvbench's own)."""

    @property
    def stamps(self) -> tuple[datetime, ...]:
        """The different times at which its ranks say that it began, in order; one where all is well."""
        return tuple(sorted({stamp for rank in self.ranks.values() if (stamp := rank.stamp) is not None}))


@dataclass(frozen=True, slots=True)
class Option:
    """option_<O> of a run."""

    number: int
    path: Path
    trials: dict[int, Trial]


@dataclass(frozen=True, slots=True)
class Run:
    """One sequence of options, a leaf: a directory with a time stamp for a name, below results/<system>/kv_cache."""

    division: str
    submitter: str
    system: str
    path: Path
    description: Document
    """systems/<system>.yaml."""
    sequence: Document
    """What kvbench records of a sequence; `no such file` for another tool's."""
    metadata: Metadata
    """What the reference tool records; of several files that which is called by the leaf's stamp, else the first."""
    metadata_files: tuple[Entry, ...]
    """All files that are called as its metadata is."""
    pointer: Pointer
    """To the image of the code that ran."""
    provenance: Document
    """provenance.json, which later tools write."""
    summaries: tuple[Document, ...]
    options: dict[int, Option]
    old: bool = False
    """Whether it stands in a tree of the form before v3.0 was published."""

    @property
    def model(self) -> str | None:
        """The directory between kv_cache and `run`, which is called after a model; None where there is none."""
        parts = self.path.parts
        below = parts[len(parts) - parts[::-1].index(WORKLOAD) :] if WORKLOAD in parts else ()
        return below[0] if len(below) > 1 else None

    @property
    def stamp(self) -> datetime | None:
        """When it began, by its name: local time."""
        return stamp_time(self.path.name)

    @property
    def summary(self) -> Any:
        """The content of the run summary; MISSING where there is not exactly one that can be read."""
        return self.summaries[0].content if len(self.summaries) == 1 else MISSING

    def trials(self) -> Iterator[tuple[Option, Trial]]:
        """All trials that have a directory, in order."""
        for option in self.options.values():
            for trial in option.trials.values():
                yield option, trial


@dataclass(frozen=True, slots=True)
class System:
    """results/<system> of a submitter, with its runs of the KV cache."""

    division: str
    name: str
    path: Path
    entries: tuple[Entry, ...]
    workload: tuple[Entry, ...]
    """The entries of its kv_cache directory."""
    runs: tuple[Run, ...]
    strays: tuple[Path, ...]
    """Entries of kv_cache in which no run was found."""

    @property
    def has_workload(self) -> bool:
        """Whether it has results of the KV cache."""
        return any(entry.name == WORKLOAD and entry.kind == "directory" for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Submitter:
    """The directory of a submitter in a division."""

    division: str
    name: str
    path: Path
    entries: tuple[Entry, ...]
    descriptions: tuple[Entry, ...]
    """The entries of `systems`."""
    results: tuple[Entry, ...]
    """The entries of `results`."""
    systems: tuple[System, ...]
    manifest: Document
    """submission.yaml."""
    rollup: Document
    """results/results.json, the table of all its results."""
    tables: tuple[Document, ...]
    """results.json below the systems."""
    pointers: tuple[Pointer, ...]
    """Of all leaves of all workloads, to the images of their code."""
    old: bool = False
    """Whether it has the form of drafts: code directories in place of images, summaries of the old name."""

    def has(self, name: str) -> bool:
        """Whether it has a directory of that name."""
        return any(entry.name == name and entry.kind == "directory" for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Division:
    """`closed` or `open`."""

    division: str
    path: Path
    entries: tuple[Entry, ...]
    submitters: tuple[Submitter, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """All of it."""

    path: Path
    entries: tuple[Entry, ...]
    divisions: tuple[Division, ...]
    pools: tuple[Pool, ...] = ()
    """Images of source code, beside the divisions."""

    def submitters(self) -> Iterator[Submitter]:
        """The submitters of all divisions."""
        for division in self.divisions:
            yield from division.submitters

    def systems(self) -> Iterator[System]:
        """The systems of all submitters."""
        for submitter in self.submitters():
            yield from submitter.systems

    def runs(self) -> Iterator[Run]:
        """The runs of all systems."""
        for system in self.systems():
            yield from system.runs


def no_results(run: Run) -> str:
    """That there is no rank's result to look at; "" where there is one."""
    some = any(rank.file.readable for _, trial in run.trials() for rank in trial.ranks.values())
    return "" if some else "no rank's result that can be read"


def stamp_time(text: str) -> datetime | None:
    """The time that `text` is as the rules write it, YYYYMMDD_HHmmss; None where it is none on the calendar."""
    if not _STAMP.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%d_%H%M%S")
    except ValueError:
        return None


def is_stamp(text: str) -> bool:
    """Whether `text` is such a time."""
    return stamp_time(text) is not None
