"""How a rule is written down: a function of one part of the tree, registered with the number and id it has in Rules.md.

The function yields what it found wrong as `Problem`s; `checker` runs all rules over all parts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from kvbench.mlperf.tree.parts import DIVISIONS

Part = TypeVar("Part")
Weight = Literal["violation", "not recorded", "not checked", "note"]
"""`not recorded`: the tree does not hold what would have to be looked at, and no rule demands that it does.
`not checked`: of what the rule is about there is nothing here, so that it looked at nothing."""


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
    nothing: Callable[[Any], str]
    """Why there is nothing for it to look at in a part; "" where there is something."""


RULES: Final[dict[str, Rule]] = {}
"""Every rule by its id, in the order of Rules.md as far as `rules` imports them so."""


def always_something(part: object) -> str:
    """For rules that have something to say of any part: that what they look for is not there, for one."""
    return ""


def rule(
    number: str,
    identifier: str,
    part: type[Part],
    divisions: tuple[str, ...] = DIVISIONS,
    nothing: Callable[[Part], str] = always_something,
) -> Callable[[Callable[[Part], Iterable[Problem]]], Callable[[Part], Iterable[Problem]]]:
    """Register a function as the rule `identifier`, which has this number, for every `part` of the tree."""

    def register(check: Callable[[Part], Iterable[Problem]]) -> Callable[[Part], Iterable[Problem]]:
        assert identifier not in RULES, f"{identifier} is registered twice"
        RULES[identifier] = Rule(number, identifier, part, divisions, check, nothing)
        return check

    return register
