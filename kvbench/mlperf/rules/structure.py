"""Rules 2.1.1 to 2.1.5, 2.1.7 and 2.1.8: which directories and files a tree has, and what they are called."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.code_images import SHARED_POOL
from kvbench.mlperf.tree.document import read_document
from kvbench.mlperf.tree.parts import DIVISIONS, WORKLOAD, Division, Submitter, System, Tree, is_stamp
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.tree_reading import MANIFEST_NAME, TABLES
from kvbench.mlperf.tree.untrusted import MISSING, Entry, Unreadable, opened, shown

_NO_NAME: Final = re.compile(r"[\s\x00-\x1f\x7f/\\]")
"""What a submitter's name cannot hold as a directory (2.1.1 has each replaced by a dash)."""
_OTHER_WORKLOADS: Final = frozenset({"training", "checkpointing", "vector_database"})
_DIRECTORIES: Final = ("results", "systems")
_CLOSED_OF_BEFORE: Final = ("code", *_DIRECTORIES)


def _no_submitter(tree: Tree) -> str:
    return "" if any(True for _ in tree.submitters()) else "no submitter's directory"


def _no_descriptions(submitter: Submitter) -> str:
    return "" if any(not entry.hidden for entry in submitter.descriptions) else "nothing in a directory systems"


def _no_results(submitter: Submitter) -> str:
    return "" if submitter.has("results") else "no directory results"


@rule("2.1.1", "submitterRootDirectory", Tree, nothing=_no_submitter)
def submitter_root_directory(tree: Tree) -> Iterator[Problem]:
    """One root directory, called as its submitter is, in characters that a name of a file can hold."""
    names = sorted({submitter.name for submitter in tree.submitters()})
    for run in tree.runs():
        told = Recorded(run)["submitter"]
        if isinstance(told, str) and _NO_NAME.sub("-", told) != run.submitter:
            yield Problem(
                Recorded(run).where, f"the submitter {shown(told)}", f"{shown(run.submitter)}, as the directory"
            )
    for name in dict.fromkeys([tree.path.name, *names] if names else ()):
        if _NO_NAME.search(name):
            yield Problem(tree.path, f"the name {shown(name)!r}", "a name without blanks; `-` in the place of each")
    if len(names) == 1 and tree.path.name != names[0]:
        yield Problem(
            tree.path,
            f"a root directory called {shown(tree.path.name)} for the one submitter {shown(names[0])}",
            f"a root directory called {shown(names[0])}",
        )


@rule("2.1.2", "topLevelSubdirectories", Tree)
def top_level_subdirectories(tree: Tree) -> Iterator[Problem]:
    """`closed` and/or `open`, pools of code images, and nothing else but dot entries."""
    wanted = f"only the directories closed and open, one or both, and pools of code images ({SHARED_POOL}, submitters)"
    submitters = {submitter.name for submitter in tree.submitters()}
    pools = {pool.name for pool in tree.pools if pool.shared or pool.name in submitters}
    if not tree.divisions:
        yield Problem(tree.path, "neither a directory closed nor one called open", wanted)
    for entry in tree.entries:
        if not entry.hidden and not (entry.name in (*DIVISIONS, *pools) and entry.kind == "directory"):
            yield Problem(entry.path, _what(entry), wanted)


@rule("2.1.3", "openMatchesClosed", Division, ("open",))
def open_matches_closed(division: Division) -> Iterator[Problem]:
    """`open` is made as `closed` is: one directory per submitter."""
    yield from _only_submitters(division)


@rule("2.1.4", "closedSubmitterDirectory", Division, ("closed",))
def closed_submitter_directory(division: Division) -> Iterator[Problem]:
    """`closed` has one directory per submitter, at least one."""
    yield from _only_submitters(division)


@rule("2.1.5.a", "requiredSubdirectoriesClosed", Submitter, ("closed",))
def required_subdirectories_closed(submitter: Submitter) -> Iterator[Problem]:
    """Exactly results and systems; in trees of before code as well."""
    yield from _exactly(submitter, _CLOSED_OF_BEFORE if submitter.old else _DIRECTORIES)


@rule("2.1.5.b", "requiredSubdirectoriesOpen", Submitter, ("open",))
def required_subdirectories_open(submitter: Submitter) -> Iterator[Problem]:
    """Exactly results and systems; in trees of before the code stands at results/<system>/kv_cache/code."""
    yield from _exactly(submitter, _DIRECTORIES)
    for system in submitter.systems if submitter.old else ():
        if system.has_workload and not any(e.name == "code" and e.kind == "directory" for e in system.workload):
            yield Problem(
                system.path / WORKLOAD / "code", "no such directory", "the code that ran, at each leaf of open"
            )


@rule("2.1.7", "systemsDirectoryFiles", Submitter, nothing=_no_descriptions)
def systems_directory_files(submitter: Submitter) -> Iterator[Problem]:
    """A .yaml and a .pdf per system; Markdown and dot entries besides, and nothing else."""
    kinds = {entry.name: entry for entry in submitter.descriptions if not entry.hidden}
    wanted = "a .yaml and a .pdf of each system's name, both of them files"
    for name, entry in kinds.items():
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix == ".md" and entry.kind == "file":
            continue
        if suffix not in {".yaml", ".pdf"} or entry.kind != "file":
            yield Problem(entry.path, _what(entry), f"{wanted}, Markdown, and nothing else")
            continue
        partner = f"{stem}{'.pdf' if suffix == '.yaml' else '.yaml'}"
        if partner not in kinds:
            yield Problem(entry.path.with_name(partner), "no such file", wanted)
        if suffix == ".yaml":
            document = read_document(entry.path, as_yaml=True)
            if not document.readable or not isinstance(document.content, dict) or not document.content:
                yield Problem(entry.path, document.problem or "no mapping", "a system description in YAML")
        elif not _is_pdf(entry.path):
            yield Problem(entry.path, "no PDF", "a PDF")


@rule("2.1.8", "resultsDirectorySystems", Submitter, nothing=_no_results)
def results_directory_systems(submitter: Submitter) -> Iterator[Problem]:
    """A directory of results for each system that is described, and no other; its runs named by their time."""
    if not submitter.has("results"):
        return
    described = {
        Path(entry.name).stem
        for entry in submitter.descriptions
        if not entry.hidden and Path(entry.name).suffix in {".yaml", ".pdf"}
    }
    with_results = {system.name for system in submitter.systems}
    for entry in submitter.results:
        if entry.kind != "directory" and not entry.hidden and not _is_table(entry):
            yield Problem(entry.path, _what(entry), "one directory per system, tables of results, and nothing else")
    if not with_results:
        yield Problem(submitter.path / "results", "no results of any system", "one directory per system")
    if submitter.has("systems"):
        for name in sorted(with_results - described):
            yield Problem(
                submitter.path / "results" / name,
                "results of a system that is not described",
                f"systems/{shown(name)}.yaml and .pdf",
            )
        for name in sorted(described - with_results) if with_results else ():
            yield Problem(submitter.path / "results" / name, "no such directory", "results of each system described")
    for system in submitter.systems:
        yield from _runs_of(system)


def _runs_of(system: System) -> Iterator[Problem]:
    for entry in system.entries:
        if entry.hidden or _is_table(entry) or (entry.name == WORKLOAD and entry.kind == "directory"):
            continue
        if entry.name in _OTHER_WORKLOADS and entry.kind == "directory":
            yield Problem(entry.path, "results of another workload", "checked by its own rules, not here", "note")
        else:
            yield Problem(entry.path, _what(entry), f"only directories of workloads, such as {WORKLOAD}")
    if not system.has_workload and not any(entry.name in _OTHER_WORKLOADS for entry in system.entries):
        yield Problem(system.path / WORKLOAD, "no such directory", "the results of the system")
    elif system.has_workload and not system.runs:
        yield Problem(system.path / WORKLOAD, "no run", "a directory named YYYYMMDD_HHmmss for each run")
    for stray in system.strays:
        yield Problem(stray, "no run in it", "only runs (and, in open, code)")
    old = any(run.old for run in system.runs)
    if old and system.division == "closed" and any(entry.name == "code" for entry in system.workload):
        yield Problem(
            system.path / WORKLOAD / "code", "code beside the runs", "code in the submitter's directory alone"
        )
    for run in system.runs:
        told = Recorded(run)["system"]
        if told != system.name and (Recorded(run).ours or told is not MISSING):
            yield Problem(Recorded(run).where, f"the system {shown(told)}", f"{shown(system.name)}, as the directory")
        if not is_stamp(run.path.name):
            yield Problem(run.path, f"the name {shown(run.path.name)}", "the time of the run, YYYYMMDD_HHmmss")


def _only_submitters(division: Division) -> Iterator[Problem]:
    wanted = "one directory per submitter, and nothing else"
    for entry in division.entries:
        if entry.kind != "directory" and not entry.hidden:
            yield Problem(entry.path, _what(entry), wanted)
    if not division.submitters:
        yield Problem(division.path, "no submitter's directory", wanted)


def _exactly(submitter: Submitter, wanted: tuple[str, ...]) -> Iterator[Problem]:
    text = f"exactly the directories {', '.join(wanted)}"
    there = {entry.name: entry for entry in submitter.entries if not entry.hidden}
    for name in wanted:
        if name not in there:
            yield Problem(submitter.path / name, "no such directory", text)
    for name, entry in there.items():
        if name == MANIFEST_NAME and entry.kind == "file" and not submitter.old:
            continue
        # Code where drafts had it is the business of CHECK-04.
        moved = name == "code" and entry.kind == "directory" and not submitter.old
        if not moved and (name not in wanted or entry.kind != "directory"):
            yield Problem(entry.path, _what(entry), text)


def _is_table(entry: Entry) -> bool:
    return entry.name in TABLES and entry.kind == "file"


def _what(entry: Entry) -> str:
    names = {
        "directory": "a directory",
        "file": "a file",
        "link": "a symbolic link",
        "other": "neither file nor directory",
    }
    return f"{names[entry.kind]} called {shown(entry.name)}"


def _is_pdf(path: Path) -> bool:
    try:
        with opened(path) as descriptor:
            return os.read(descriptor, 5) == b"%PDF-"
    except (Unreadable, OSError):
        return False
