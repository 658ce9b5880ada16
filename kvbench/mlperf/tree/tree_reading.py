"""Reading a submission tree into its parts (`tree`). Links are not followed, and what is broken is kept as such."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from kvbench.mlperf.tree.code_images import POINTER_NAME, Pointer, Pool, read_pointer, read_pools
from kvbench.mlperf.tree.document import Document, absent, read_document
from kvbench.mlperf.tree.metadata import metadata_of
from kvbench.mlperf.tree.parts import (
    DIVISIONS,
    RUN_FILE_NAME,
    SEQUENCE_NAME,
    WORKLOAD,
    Division,
    Option,
    Rank,
    Run,
    Submitter,
    System,
    Tree,
    Trial,
    is_stamp,
)
from kvbench.mlperf.tree.rank_result import read_rank_file
from kvbench.mlperf.tree.trial_records import read_records
from kvbench.mlperf.tree.untrusted import Entry, entries_of

_SUMMARY: Final = re.compile(r"(?:kvcache_run_summary.*|summary)\.json", re.DOTALL)
_OLD_SUMMARY: Final = re.compile(r"kvcache_run_summary.*\.json", re.DOTALL)
_METADATA: Final = re.compile(r".*metadata.*\.json", re.DOTALL)
_RANK_RESULT: Final = re.compile(r"kvcache_results.*\.json", re.DOTALL)
TABLE_NAME: Final = "results.json"
MANIFEST_NAME: Final = "submission.yaml"
PROVENANCE_NAME: Final = "provenance.json"
TABLES: Final = frozenset({TABLE_NAME, "results.csv"})
"""Tables of results; they stand beside systems, models and runs."""
_NO_RUNS: Final = frozenset({"code", "datasize", "datagen"})
"""Directories below kv_cache that hold no results."""
_DEEPEST_LEAF: Final = 6
"""Directories between results and a leaf of any workload: system, workload, model, command, time."""
_DEEPEST_RUN: Final = 3
"""Directories between kv_cache and a run at most: other tools put the model and the command there."""


def read_tree(path: Path) -> Tree:
    """What stands at `path`; an empty tree where that is no directory."""
    root = path.resolve()
    entries = tuple(entries_of(root))
    pools = read_pools(entries, DIVISIONS)
    divisions = tuple(
        _division(entry.name, entry.path, pools)
        for entry in entries
        if entry.name in DIVISIONS and entry.kind == "directory"
    )
    return Tree(root, entries, divisions, pools)


def find_runs(directory: Path) -> tuple[list[Path], list[Path]]:
    """(runs, strays) below `directory`: where the results of a sequence begin, and entries without any."""
    runs: list[Path] = []
    strays: list[Path] = []
    for entry in entries_of(directory):
        if entry.hidden or entry.name in _NO_RUNS or (entry.name in TABLES and entry.kind == "file"):
            continue
        below = _runs_below(entry, 1)
        runs += below
        if not below:
            strays.append(entry.path)
    return runs, strays


def read_run(path: Path, division: str, submitter: str, system: str, description: Document) -> Run:
    """The run in the directory `path`, which is known to be one of `system`."""
    entries = [entry for entry in entries_of(path) if not entry.hidden]
    metadata = tuple(entry for entry in entries if _METADATA.fullmatch(entry.name))
    # Of several that which is called as the leaf is; that there are several is said by a rule.
    chosen = sorted(metadata, key=lambda entry: path.name not in entry.name)
    return Run(
        division=division,
        submitter=submitter,
        system=system,
        path=path,
        description=description,
        sequence=read_document(path / SEQUENCE_NAME),
        metadata=metadata_of(read_document(chosen[0].path) if chosen else absent(path)),
        metadata_files=metadata,
        pointer=read_pointer(path),
        provenance=read_document(path / PROVENANCE_NAME),
        summaries=tuple(read_document(entry.path) for entry in entries if _SUMMARY.fullmatch(entry.name)),
        options={
            number: Option(number, place, {trial: _trial(trial, below) for trial, below in _numbered(place, "trial_")})
            for number, place in _numbered(path, "option_")
        },
    )


def _runs_below(entry: Entry, depth: int) -> list[Path]:
    if entry.kind != "directory" or entry.name in _NO_RUNS:
        return []
    inside = [inner for inner in entries_of(entry.path) if not inner.hidden]
    if is_stamp(entry.name) or any(_marks_a_run(inner) for inner in inside):
        return [entry.path]
    if depth == _DEEPEST_RUN:
        return []
    return [path for inner in inside for path in _runs_below(inner, depth + 1)]


def _marks_a_run(entry: Entry) -> bool:
    if entry.kind == "directory":
        return entry.name.startswith("option_")
    return entry.name == SEQUENCE_NAME or bool(_SUMMARY.fullmatch(entry.name))


def _division(name: str, path: Path, pools: Sequence[Pool]) -> Division:
    entries = tuple(entries_of(path))
    submitters = tuple(
        _in_its_form(_submitter(name, entry), pools)
        for entry in entries
        if entry.kind == "directory" and not entry.hidden
    )
    return Division(name, path, entries, submitters)


def _submitter(division: str, place: Entry) -> Submitter:
    entries = tuple(entries_of(place.path))
    # Listed only where they are directories: a link to one may lead out of the tree.
    real = {entry.name for entry in entries if entry.kind == "directory"}
    results = tuple(entries_of(place.path / "results")) if "results" in real else ()
    descriptions = tuple(entries_of(place.path / "systems")) if "systems" in real else ()
    return Submitter(
        division=division,
        name=place.name,
        path=place.path,
        entries=entries,
        descriptions=descriptions,
        results=results,
        systems=tuple(
            _system(division, place, entry, "systems" in real)
            for entry in results
            if entry.kind == "directory" and not entry.hidden
        ),
        manifest=read_document(place.path / MANIFEST_NAME, as_yaml=True),
        rollup=read_document(place.path / "results" / TABLE_NAME) if "results" in real else absent(place.path),
        tables=tuple(
            read_document(path)
            for entry in results
            if entry.kind == "directory" and not entry.hidden
            for path in _tables_below(entry.path, 1)
        ),
        pointers=tuple(_pointers_below(place.path / "results", 0)) if "results" in real else (),
    )


def _in_its_form(submitter: Submitter, pools: Sequence[Pool]) -> Submitter:
    """`submitter`, marked as old where it has what only drafts had, and nothing of what came in its place."""
    runs = [run for system in submitter.systems for run in system.runs]
    newer = any(pool.name == submitter.name for pool in pools) or any(run.pointer.document.exists for run in runs)
    named = any(_OLD_SUMMARY.fullmatch(summary.path.name) for run in runs for summary in run.summaries)
    code = submitter.has("code") or any(
        entry.name == "code" for system in submitter.systems for entry in system.workload
    )
    if newer or not (named or code):
        return submitter
    systems = tuple(
        replace(system, runs=tuple(replace(run, old=True) for run in system.runs)) for system in submitter.systems
    )
    return replace(submitter, old=True, systems=systems)


def _tables_below(directory: Path, depth: int) -> Iterator[Path]:
    """The tables of results between a system and its runs."""
    for entry in entries_of(directory):
        if entry.name == TABLE_NAME:
            yield entry.path
        elif entry.kind == "directory" and not entry.hidden and depth <= _DEEPEST_RUN and not is_stamp(entry.name):
            yield from _tables_below(entry.path, depth + 1)


def _pointers_below(directory: Path, depth: int) -> Iterator[Pointer]:
    """The pointers of leaves, of any workload; what is inside of a leaf is not looked through."""
    entries = entries_of(directory)
    if any(entry.name == POINTER_NAME for entry in entries):
        yield read_pointer(directory)
    elif depth < _DEEPEST_LEAF:
        for entry in entries:
            if entry.kind == "directory" and not entry.hidden and not entry.name.startswith("option_"):
                yield from _pointers_below(entry.path, depth + 1)


def _system(division: str, submitter: Entry, place: Entry, described: bool) -> System:
    entries = tuple(entries_of(place.path))
    path = submitter.path / "systems" / f"{place.name}.yaml"
    description = read_document(path, as_yaml=True) if described else absent(path)
    workload = place.path / WORKLOAD
    there = any(entry.name == WORKLOAD and entry.kind == "directory" for entry in entries)
    runs, strays = find_runs(workload) if there else ([], [])
    return System(
        division=division,
        name=place.name,
        path=place.path,
        entries=entries,
        workload=tuple(entries_of(workload)) if there else (),
        runs=tuple(read_run(run, division, submitter.name, place.name, description) for run in runs),
        strays=tuple(strays),
    )


def _trial(number: int, path: Path) -> Trial:
    entries = {entry.name: entry for entry in entries_of(path)}
    run_file = entries.get(RUN_FILE_NAME)
    ranks = {rank: _rank(rank, place) for rank, place in _numbered(path, "rank_")}
    return Trial(number, path, ranks, None if run_file is None else read_records(run_file.path))


def _rank(number: int, path: Path) -> Rank:
    results = tuple(entry for entry in entries_of(path) if _RANK_RESULT.fullmatch(entry.name))
    return Rank(number, path, results, read_rank_file(results[0].path if results else path / "kvcache_results_*.json"))


def _numbered(path: Path, prefix: str) -> list[tuple[int, Path]]:
    """The directories named `prefix` and a number, in the order of the numbers."""
    found = []
    for entry in entries_of(path):
        digits = entry.name.removeprefix(prefix)
        plain = entry.name.startswith(prefix) and digits.isascii() and digits.isdecimal() and len(digits) <= 9
        if plain and str(int(digits)) == digits and entry.kind == "directory":
            found.append((int(digits), entry.path))
    return sorted(found)
