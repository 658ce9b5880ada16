"""How a rule is written down: a function of one part of the tree, registered with the number and id it has in Rules.md.

The function yields what it found wrong as `Problem`s; `checker` runs all rules over all parts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from kvbench.mlperf.tree.parts import DIVISIONS

Part = TypeVar("Part")
Weight = Literal["violation", "not recorded", "note"]
"""`not recorded`: the tree does not hold what would have to be looked at, and no rule demands that it does."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a rule has to say about one path."""

    path: Path
    found: str
    wanted: str
    weight: Weight = "violation"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule."""

    number: str
    id: str
    part: type[Any]
    """The part of the tree that `check` takes; it is called for each."""
    divisions: tuple[str, ...]
    check: Callable[[Any], Iterable[Problem]]


RULES: Final[dict[str, Rule]] = {}
"""Every rule by its id, in the order of Rules.md as far as `rules` imports them so."""


def rule(
    number: str, identifier: str, part: type[Part], divisions: tuple[str, ...] = DIVISIONS
) -> Callable[[Callable[[Part], Iterable[Problem]]], Callable[[Part], Iterable[Problem]]]:
    """Register a function as the rule `identifier`, which has this number, for every `part` of the tree."""

    def register(check: Callable[[Part], Iterable[Problem]]) -> Callable[[Part], Iterable[Problem]]:
        assert identifier not in RULES, f"{identifier} is registered twice"
        RULES[identifier] = Rule(number, identifier, part, divisions, check)
        return check

    return register
