"""The audit of trees: every question put to every run, and all that was found or could not be looked at."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.mlperf.audit.finding import KINDS, WEIGHTS, Answer, Finding, NotAudited
from kvbench.mlperf.audit.gather import leaves_of
from kvbench.mlperf.audit.leaf import LeafFacts
from kvbench.mlperf.audit.questions import lost_ranks, origin, outlived, preloads, speed, stamps, writes
from kvbench.mlperf.check.checker import WHERE_RUNS_ARE
from kvbench.mlperf.tree.parts import Tree
from kvbench.mlperf.tree.tree_reading import read_tree

Question = Callable[[LeafFacts], Iterable[Answer]]
QUESTIONS: Final[tuple[Question, ...]] = (
    preloads.preloads,
    outlived.outlived,
    stamps.apart,
    stamps.room,
    stamps.delays,
    writes.fsync_spans,
    writes.few_requests,
    speed.page_cache_speed,
    speed.working_set,
    lost_ranks.lost_ranks,
    origin.hosts,
)
"""About one leaf alone; `origin` has those about several."""


@dataclass(frozen=True, slots=True)
class LeafAudit:
    """What was found in one run."""

    leaf: LeafFacts
    path: Path
    """Where it is, to find it again."""
    findings: tuple[Finding, ...]
    """The heaviest first, then in the order of KINDS."""
    not_audited: tuple[NotAudited, ...]

    @property
    def clean(self) -> tuple[str, ...]:
        """The kinds that were looked at, wholly, and of which nothing was found."""
        others = {each.kind for each in self.findings} | {each.kind for each in self.not_audited}
        return tuple(kind for kind in KINDS if kind not in others)

    def marks(self, option: int) -> str:
        """What concerns an option in few words, for a table: `distorts: fsync-span, few-requests`."""
        words = []
        for weight in WEIGHTS:
            kinds = dict.fromkeys(
                each.kind for each in self.findings if each.weight == weight and each.concerns(option)
            )
            if kinds:
                words.append(f"{weight}: {', '.join(kinds)}")
        return "; ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        leaf = self.leaf
        return {
            "tree": leaf.tree,
            "division": leaf.division,
            "submitter": leaf.submitter,
            "system": leaf.system,
            "run": leaf.stamp,
            "path": leaf.path,
            "has_figures": leaf.has_figures,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_audited": [
                {"kind": each.kind, "why": each.why, "options": list(each.options)} for each in self.not_audited
            ],
            "nothing_found": list(self.clean),
        }


def audit_trees(paths: Sequence[Path], upstream: Sequence[str] = ()) -> list[LeafAudit]:
    """The audits of all runs in the trees at `paths`; `upstream` are the hashes of upstream's code, where they are
    known, by all readings of the rules.

    Raises KvbenchError where one is no directory, holds no run of the KV cache, or has a part that this user may not
    read.
    """
    trees = []
    for path in paths:
        if not path.is_dir():
            raise KvbenchError(f"{path} is no directory: give the root of a submission tree")
        trees.append((read_tree(path), str(path)))
        if not any(trees[-1][0].runs()):
            raise KvbenchError(f"no run of the KV cache in {path}: {WHERE_RUNS_ARE}")
    return audit(trees, upstream)


def audit(trees: Sequence[tuple[Tree, str]], upstream: Sequence[str] = ()) -> list[LeafAudit]:
    """Likewise of trees that are read already, each with its name."""
    runs = [found for tree, name in trees for found in leaves_of(tree, name)]
    answers = audit_leaves([leaf for _, leaf in runs], upstream)
    return [LeafAudit(leaf, run.path, *_sorted(found)) for (run, leaf), found in zip(runs, answers, strict=True)]


def audit_leaves(leaves: Sequence[LeafFacts], upstream: Sequence[str] = ()) -> list[list[Answer]]:
    """Every answer about each of `leaves`, in their order."""
    found: list[list[Answer]] = [list(_alone(leaf, upstream)) for leaf in leaves]
    for about_several in (origin.same_commit, origin.twins, origin.other_runs):
        for leaf, finding in about_several(leaves):
            found[next(place for place, each in enumerate(leaves) if each is leaf)].append(finding)
    return found


def _alone(leaf: LeafFacts, upstream: Sequence[str]) -> Iterator[Answer]:
    if not leaf.has_figures:
        for kind in KINDS:
            yield NotAudited(kind, "the leaf holds no figures")
        return
    if not leaf.options:
        for kind in KINDS:
            yield NotAudited(kind, "the run names no option")
        return
    for question in QUESTIONS:
        yield from question(leaf)
    yield from origin.code(leaf, upstream)


def _sorted(answers: Iterable[Answer]) -> tuple[tuple[Finding, ...], tuple[NotAudited, ...]]:
    kinds = list(KINDS)
    every = list(answers)
    findings = [each for each in every if isinstance(each, Finding)]
    findings.sort(key=lambda each: (WEIGHTS.index(each.weight), kinds.index(each.kind), each.options))
    not_audited = [each for each in every if isinstance(each, NotAudited)]
    not_audited.sort(key=lambda each: kinds.index(each.kind))
    return tuple(findings), tuple(not_audited)
