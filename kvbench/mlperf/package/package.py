"""From a results directory of `kvbench mlperf run` to a submission tree.

Everything is made in a directory beside its place and moved there when it is complete; what is there already is never
touched. Sequences that are not complete are refused, with what they lack.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.mlperf.option_table import OPTIONS
from kvbench.mlperf.package.code_pool import PoolKind, Source, make_image, new_parts, point_at, pool_name
from kvbench.mlperf.package.manifest import check_manifest, write_manifest
from kvbench.mlperf.package.report_pdf import write_pdf
from kvbench.mlperf.package.system_description import as_yaml, describe
from kvbench.mlperf.tree.declared import declared_ranks, declared_trials
from kvbench.mlperf.tree.document import Document
from kvbench.mlperf.tree.parts import DIVISIONS, RUN_FILE_NAME, SEQUENCE_NAME, SUMMARY_NAME, WORKLOAD, Run, is_stamp
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.tree_reading import find_runs, read_run
from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, dig, read_json, shown
from kvbench.records.outputs import check_folder, make_folder
from kvbench.records.unfinished import SUFFIX, unfinished_folder

_MOST_NAMED: Final = 20
_FOLDER_PREFIX: Final = ".kvbench-package-"


@dataclass(frozen=True, slots=True)
class Packaged:
    """What was made."""

    root: Path
    """The root of the submission: what `check` takes."""
    parts: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """The runs of one system."""

    division: str
    submitter: str
    system: str
    runs: tuple[Run, ...]


def package(
    results: Path, out: Path, *, stamps: Sequence[str] = (), records: bool = True, pool: PoolKind = "tree"
) -> list[Packaged]:
    """Make `out`/<submitter>/<division>/<submitter>/... of the sequences in `results` (all, or those of `stamps`).

    Without `records` run files stay behind: figures can then be recomputed from the ranks' results alone. `pool` is
    where the source that ran goes. Raises KvbenchError, before anything is written, for what is incomplete, not
    kvbench's, or there already.
    """
    check_folder(out)
    runs = [_read(path) for path in _chosen(results, stamps)]
    lacking = [lack for run in runs for lack in _lacks(run)]
    if lacking:
        more = f"\n  and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
        raise KvbenchError(
            "not complete, so not packaged:\n  " + "\n  ".join(lacking[:_MOST_NAMED]) + more
            + "\nRun the same `kvbench mlperf run` again: it goes on with what is missing"
        )  # fmt: skip
    groups = _groups(runs)
    place = out.resolve()
    if any(run.path == place or run.path in place.parents for run in runs):
        raise KvbenchError(f"{out} is in the results that the tree is to be made of: give another tree with -o")
    if pool == "submitter" and any(group.submitter in DIVISIONS for group in groups):
        raise KvbenchError("a pool called as this submitter is would be a division: give --pool tree")
    there = [path for group in groups for path in _targets(group, out) if os.path.lexists(path)]
    for group in groups:
        check_manifest(_home(group, out))
    if there:
        names = "\n  ".join(shown(str(path)) for path in there)
        raise KvbenchError(f"already there, and left as it is:\n  {names}\nGive another tree with -o, or move it away")
    make_folder(out, "the tree", "choose another -o")
    try:
        with unfinished_folder(out, _FOLDER_PREFIX) as folder:
            images: dict[tuple[str, Source], str] = {}
            made = [_make(group, folder, records, pool, images) for group in groups]
            return [
                _move(
                    group,
                    folder,
                    out,
                    parts,
                    pool_name(pool, group.submitter),
                    [digest for (name, _), digest in images.items() if name == group.submitter],
                )
                for group, parts in zip(groups, made, strict=True)
            ]
    except OSError as error:
        raise KvbenchError(f"cannot write {error.filename or out}: {error.strerror}") from error


def _chosen(results: Path, stamps: Sequence[str]) -> list[Path]:
    """The directories of the sequences, whether `results` is that of --results, its kv_cache, or a sequence itself."""
    if (results / SEQUENCE_NAME).is_file():
        return [results.resolve()]
    base = results / WORKLOAD if (results / WORKLOAD).is_dir() else results
    found = [path.resolve() for path in find_runs(base)[0] if (path / SEQUENCE_NAME).is_file()]
    unknown = [stamp for stamp in stamps if stamp not in {path.name for path in found}]
    if unknown or not found:
        what = f"no sequence {shown(unknown[0])}" if unknown else f"no {SEQUENCE_NAME}"
        raise KvbenchError(f"{results} has {what}: give the directory that `kvbench mlperf run` had as --results")
    return [path for path in found if not stamps or path.name in stamps]


def _read(path: Path) -> Run:
    try:
        told = read_json(path / SEQUENCE_NAME)
    except Unreadable as error:
        raise KvbenchError(f"{path / SEQUENCE_NAME}: {error}") from error
    names = [dig(told, key) for key in ("division", "submitter", "system")]
    if names[0] not in DIVISIONS or not all(isinstance(n, str) and n and "/" not in n for n in names):
        raise KvbenchError(f"{path / SEQUENCE_NAME} names no division, submitter and system")
    division, submitter, system = names
    return read_run(path, division, submitter, system, Document(path, None, "no such file"))


def _lacks(run: Run) -> Iterator[str]:
    """What the sequence still has to do, and what has gone missing since."""
    recorded, where = Recorded(run), shown(run.path.name)
    planned = recorded.options()
    # Open, and a rehearsal, may have some of the options.
    some = recorded.rehearsal or run.division == "open"
    wanted = sorted(planned) if some else sorted({*planned, *OPTIONS})
    for option in wanted:
        if option not in planned:
            yield f"{where}: option {option} was not run"
        for trial in declared_trials(run, option) if option in planned else ():
            name = f"{where}: option {option}, trial {trial}"
            told = recorded.trials(option).get(trial)
            status = MISSING if told is None else told["status"]
            there = run.options[option].trials.get(trial) if option in run.options else None
            if status != "complete":
                yield f"{name} is {shown(status)}"
            elif there is None:
                yield f"{name} has no results"
            else:
                ranks = [rank for rank in range(declared_ranks(run)) if rank not in there.ranks]
                unread = [rank.number for rank in there.ranks.values() if not rank.file.readable]
                if ranks or unread:
                    yield f"{name} has no result of rank {', '.join(map(str, [*ranks, *unread][:_MOST_NAMED]))}"
    if not any(summary.path.name == SUMMARY_NAME and summary.readable for summary in run.summaries):
        before = ", but one of an earlier kvbench, which has to package it" if run.summaries else ""
        yield f"{where}: no {SUMMARY_NAME}{before}"
    elif len(run.metadata_files) != 1:
        yield f"{where}: {len(run.metadata_files)} metadata files, not one"
    if not is_stamp(run.path.name):
        yield f"{where}: the name of the directory is no time (YYYYMMDD_HHmmss)"


def _groups(runs: Iterable[Run]) -> list[_Group]:
    found: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.division, run.submitter, run.system].append(run)
    return [_Group(*names, tuple(of)) for names, of in found.items()]


def _home(group: _Group, out: Path) -> Path:
    return out / group.submitter / group.division / group.submitter


def _leaf(run: Run, group: _Group, out: Path) -> Path:
    """Where a run stands in the tree: as in the results, below kv_cache, MODEL/run/STAMP."""
    return _home(group, out) / "results" / group.system / WORKLOAD / Path(*run.path.parts[-3:])


def _source(run: Run) -> Source:
    """The version and the commit of kvbench that ran."""
    version, git_sha = (Recorded(run)[name] for name in ("kvbench_version", "git_sha"))
    return version if isinstance(version, str) else "", git_sha if isinstance(git_sha, str) else None


def _targets(group: _Group, out: Path) -> list[Path]:
    """What a group becomes; nothing of it may be there. Images are looked at when they are moved."""
    systems = _home(group, out) / "systems"
    descriptions = [systems / f"{group.system}{suffix}" for suffix in (".yaml", ".pdf")]
    return [*descriptions, *(_leaf(run, group, out) for run in group.runs)]


def _make(
    group: _Group, folder: Path, records: bool, pool: PoolKind, images: dict[tuple[str, Source], str]
) -> list[Path]:
    """The group's parts below `folder`, with the paths that they will have below the tree; `images` is added to."""
    told: dict[str, Any] = group.runs[-1].sequence.content
    ignore = shutil.ignore_patterns(".*", f"*{SUFFIX}", *(() if records else (RUN_FILE_NAME,)))
    place = folder / group.submitter / pool_name(pool, group.submitter)
    for run in group.runs:
        leaf, source = _leaf(run, group, folder), _source(run)
        shutil.copytree(run.path, leaf, ignore=ignore)
        if (group.submitter, source) not in images:
            images[group.submitter, source] = make_image(place, source)
        point_at(leaf, images[group.submitter, source])
    text = as_yaml(describe(told))
    description = _home(group, folder) / "systems" / f"{group.system}.yaml"
    description.parent.mkdir(parents=True, exist_ok=True)
    description.write_text(text, encoding="utf-8")
    write_pdf(description.with_suffix(".pdf"), f"{group.submitter}: {group.system}", text, group.runs)
    return [path.relative_to(folder) for path in _targets(group, folder)]


def _move(group: _Group, folder: Path, out: Path, parts: Sequence[Path], pool: str, digests: Sequence[str]) -> Packaged:
    submitter = Path(group.submitter)
    images = [submitter / part for part in new_parts(out / submitter, pool, digests)]
    moved = []
    for part in [*images, *parts]:
        target = out / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise KvbenchError(f"{target} has appeared meanwhile, and is left as it is")
        (folder / part).rename(target)
        moved.append(target)
    moved.append(write_manifest(_home(group, out), group.division))
    return Packaged(out / submitter, tuple(moved))
