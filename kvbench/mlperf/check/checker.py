"""Checking a submission tree: every rule over every part of it that it is about, and all that they find."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.errors import KvbenchError
from kvbench.mlperf.rules import RULES, Rule, Weight
from kvbench.mlperf.tree.parts import Division, Run, Submitter, System, Tree
from kvbench.mlperf.tree.tree_reading import read_tree
from kvbench.mlperf.tree.untrusted import printable

_PARTS: Final = (Tree, Division, Submitter, System, Run)


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

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The findings that a submission is refused for."""
        return tuple(finding for finding in self.findings if finding.weight == "violation")

    @property
    def broken(self) -> set[str]:
        """The ids of the rules that are broken."""
        return {finding.id for finding in self.violations}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = Counter(finding.id for finding in self.violations)
        return {
            "tree": printable(str(self.tree.path)),
            "passed": not self.violations,
            "violations": len(self.violations),
            "rules": [
                {"rule": rule.number, "id": rule.id, "violations": counts[rule.id]} for rule in in_order(RULES.values())
            ],
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check_tree(path: Path) -> Verdict:
    """Check the tree at `path` by all rules. Raises KvbenchError only where there is no directory at `path`."""
    if not path.is_dir():
        raise KvbenchError(f"{path} is no directory: give the root of a submission tree")
    tree = read_tree(path)
    findings = tuple(finding for rule in in_order(RULES.values()) for finding in _apply(rule, tree))
    return Verdict(tree, findings)


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """`rules` by number; those of kvbench itself last."""

    def place(rule: Rule) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in rule.number.split(".")]

    return sorted(rules, key=place)


def _apply(rule: Rule, tree: Tree) -> Iterator[Finding]:
    for part in _parts(rule.part, tree):
        if isinstance(part, Tree) or part.division in rule.divisions:
            for problem in dict.fromkeys(rule.check(part)):
                path = printable(str(problem.path.relative_to(tree.path)))
                found, wanted = printable(problem.found), printable(problem.wanted)
                yield Finding(rule.number, rule.id, problem.weight, path, found, wanted, part.path)


def _parts(kind: type[Any], tree: Tree) -> Iterable[Any]:
    assert kind in _PARTS, kind
    if kind is Tree:
        return (tree,)
    if kind is Division:
        return tree.divisions
    if kind is Submitter:
        return tree.submitters()
    return tree.systems() if kind is System else tree.runs()
