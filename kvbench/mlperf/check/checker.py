"""Checking a submission tree: every rule over every part of it that it is about, and all that they find."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.mlperf.rules import RULES, Problem, Rule, Weight
from kvbench.mlperf.tree.declared import bad_numbers
from kvbench.mlperf.tree.numbers import BadNumber
from kvbench.mlperf.tree.parts import DIVISIONS, Division, Run, Submitter, System, Tree
from kvbench.mlperf.tree.tree_reading import read_tree
from kvbench.mlperf.tree.untrusted import kind_of, printable

WHERE_RUNS_ARE: Final = "a run is a directory {closed,open}/SUBMITTER/results/SYSTEM/kv_cache/MODEL/run/YYYYMMDD_HHmmss"
"""For messages on trees that have none."""
_SOMETHING: Final = "something to look at"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found in one place."""

    number: str
    id: str
    weight: Weight
    path: str
    """Relative to the tree; "." is the tree itself."""
    found: str
    wanted: str
    place: Path
    """The same in full."""
    part: Path
    """What the rule looked at as a whole: the tree, a division, a submitter, a system or a run."""

    @property
    def message(self) -> str:
        """All of it in one line."""
        return f"{self.number} {self.id}: {self.path}: found {self.found}; wanted {self.wanted}"

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "rule": self.number,
            "id": self.id,
            "weight": self.weight,
            "path": self.path,
            "found": self.found,
            "wanted": self.wanted,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to."""

    tree: Tree
    findings: tuple[Finding, ...]
    unchecked: Mapping[str, str]
    """Rules that had nothing at all to look at, by their ids, with the reason."""

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The findings that a submission is refused for."""
        return tuple(finding for finding in self.findings if finding.weight == "violation")

    @property
    def runs(self) -> int:
        """How many runs of the KV cache the tree holds."""
        return sum(1 for _ in self.tree.runs())

    @property
    def old(self) -> bool:
        """Whether something in it has the form of before v3.0 was published: it was checked by the rules of that."""
        return any(submitter.old for submitter in self.tree.submitters())

    @property
    def passed(self) -> bool:
        """Whether it can be handed in. Without a run there is nothing that could."""
        return not self.violations and self.runs > 0

    @property
    def broken(self) -> set[str]:
        """The ids of the rules that are broken."""
        return {finding.id for finding in self.violations}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = Counter(finding.id for finding in self.violations)
        return {
            "tree": printable(str(self.tree.path)),
            "passed": self.passed,
            "old": self.old,
            "runs": self.runs,
            "violations": len(self.violations),
            "rules": [
                {
                    "rule": rule.number,
                    "id": rule.id,
                    "violations": counts[rule.id],
                    "not_checked": self.unchecked.get(rule.id),
                }
                for rule in in_order(RULES.values())
            ],
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check_tree(path: Path) -> Verdict:
    """Check the tree at `path` by all rules. Raises KvbenchError only where there is no directory at `path`, or a part
    of the tree that this user may not read."""
    if not path.is_dir():
        raise KvbenchError(f"{path} is no directory: give the root of a submission tree")
    tree = read_tree(path)
    bad = {run.path: tuple(bad_numbers(run)) for run in tree.runs()}
    findings: list[Finding] = []
    unchecked: dict[str, str] = {}
    for rule in in_order(RULES.values()):
        reasons = []
        for part in (parts := _parts(rule, tree)):
            if nothing := rule.nothing(part):
                reasons.append(nothing)
                findings.append(_finding(rule, part, tree, Problem(part.path, nothing, _SOMETHING, "not checked")))
            problems = [*rule.check(part), *_bad_numbers(rule, part, bad)]
            findings += [_finding(rule, part, tree, problem) for problem in dict.fromkeys(problems)]
        if len(reasons) == len(parts):
            unchecked[rule.id] = printable(reasons[0] if reasons else _no_part(rule))
    return Verdict(tree, tuple(findings), unchecked)


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """`rules` by number; those of kvbench itself last."""

    def place(rule: Rule) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in rule.number.split(".")]

    return sorted(rules, key=place)


def _finding(rule: Rule, part: Any, tree: Tree, problem: Problem) -> Finding:
    there = _that_exists(problem.path, tree.path)
    path = printable(str(there.relative_to(tree.path)))
    absent = "" if there == problem.path else f"{problem.path.relative_to(there)}: "
    found, wanted = printable(f"{absent}{problem.found}"), printable(problem.wanted)
    return Finding(rule.number, rule.id, problem.weight, path, found, wanted, there, part.path)


def _that_exists(path: Path, root: Path) -> Path:
    """`path`, or what it would stand in: messages name files of the tree alone."""
    while path != root and kind_of(path) is None:
        path = path.parent
    return path


def _bad_numbers(rule: Rule, part: Any, bad: Mapping[Path, Sequence[BadNumber]]) -> Iterator[Problem]:
    """What stands in place of numbers that are the rule's business, in the runs of a part."""
    for run in (part,) if isinstance(part, Run) else part.runs if isinstance(part, System) else ():
        for number in bad[run.path]:
            if _owner(number, run.division) == rule.id:
                yield Problem(number.path, number.found, number.wanted)


def _owner(number: BadNumber, division: str) -> str | None:
    """The id of the rule whose business a number is."""
    return next((name for name in number.rules if division in RULES[name].divisions), None)


def _parts(rule: Rule, tree: Tree) -> list[Any]:
    """The parts of the tree that a rule is about."""
    every: dict[type[Any], Iterable[Any]] = {
        Tree: (tree,),
        Division: tree.divisions,
        Submitter: tree.submitters(),
        System: tree.systems(),
        Run: tree.runs(),
    }
    return [part for part in every[rule.part] if isinstance(part, Tree) or part.division in rule.divisions]


def _no_part(rule: Rule) -> str:
    """Why a rule has no part to look at."""
    if rule.part is Division:
        return f"no directory {rule.divisions[0]}"
    name = {Submitter: "submitter's directory", System: "system"}.get(rule.part, "run")
    return f"no {name}" + ("" if rule.divisions == DIVISIONS else f" in {rule.divisions[0]}")
