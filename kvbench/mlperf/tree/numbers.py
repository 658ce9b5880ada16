"""The numbers that rules look at: where each stands, what it may be, and whose business it is.

A number of a tree is asked for by its key in a table, and by no other way. NaN, Infinity, null, true, text, a list,
what is below zero or beyond any machine, and no number at all are None to whoever asks. `bad` names them with their
rule, and the checker adds them to what that rule finds: no rule can forget to look.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.untrusted import MISSING, dig, number, shown

MOST: Final = 2.0**62
"""No time, size or rate of any machine is more; sums of less stay finite."""


def never(content: Any) -> bool:
    """No number may be missing, whatever else there is."""
    return False


def always(content: Any) -> bool:
    """It may be missing: a rule says itself what that means."""
    return True


@dataclass(frozen=True, slots=True)
class Number:
    """What one number may be."""

    rules: tuple[str, ...]
    """Ids of rules. It belongs to the first that is about the division; where there is none, nobody looks at it."""
    whole: bool = False
    """42.0 is whole as well: JSON does not tell them apart."""
    positive: bool = False
    most: float = MOST
    title: str = ""
    """What it is, where its key does not say that well."""
    absent: Callable[[Any], bool] = never
    """Whether it may be missing, by the whole of what it would stand in."""

    def read(self, value: Any) -> float | None:
        """`value` if it is such a number, else None."""
        found = number(value)
        if found is None or not 0 <= found <= self.most or (self.positive and not found):
            return None
        return None if self.whole and not found.is_integer() else found

    def problem(self, value: Any) -> str | None:
        """What stands there instead of such a number; None where it is one."""
        if self.read(value) is not None:
            return None
        return f'"{shown(value)}"' if isinstance(value, str) else shown(value)

    @property
    def wanted(self) -> str:
        """What it should be, in words."""
        least = "above 0" if self.positive else "of 0 or more"
        most = f", at most {self.most:.0f}" if self.most != MOST else ""
        return f"a {'whole ' if self.whole else ''}number {least}{most}" + (f": {self.title}" if self.title else "")


AMOUNT: Final = Number(())
"""Any of them, of no rule in particular."""


@dataclass(frozen=True, slots=True)
class NumberList(Number):
    """A list of such numbers."""

    def problem(self, value: Any) -> str | None:
        """What stands there instead of a list, or in it instead of a number; None where all is well."""
        if not isinstance(value, list):
            return f'"{shown(value)}"' if isinstance(value, str) else shown(value)
        # Millions of numbers in a row are looked at in the fastest way there is; only then for the one that is wrong.
        if all(type(each) in (float, int) and 0 <= each <= self.most for each in value):
            return None
        bad = ((place, AMOUNT.problem(each)) for place, each in enumerate(value))
        return next((f"{problem} in place {place}" for place, problem in bad if problem is not None), None)

    @property
    def wanted(self) -> str:
        """What it should be, in words."""
        return "a list of numbers of 0 or more"


@dataclass(frozen=True, slots=True)
class BadNumber:
    """What stands where a number should."""

    path: Path
    found: str
    wanted: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping in a file of the tree, with the numbers in it that are looked at, by their dotted keys."""

    content: Any
    table: Mapping[str, Number]
    of: str = ""
    """What it is about, for messages: ` of option 2`."""

    def __getitem__(self, key: str) -> Any:
        """Whatever stands at a dotted key; MISSING where there is nothing."""
        return dig(self.content, *key.split("."))

    def number(self, key: str) -> float | None:
        """The number at `key`; None where it is bad, or absent and may be."""
        return self.table[key].read(self[key])

    def count(self, key: str) -> int | None:
        """The whole number at `key`, likewise."""
        found = self.number(key)
        return None if found is None else int(found)

    def bad(self, path: Path) -> Iterator[BadNumber]:
        """The numbers that are none; `path` is the file."""
        for key, kind in self.table.items():
            value = self[key]
            if value is MISSING and kind.absent(self.content):
                continue
            if (found := kind.problem(value)) is not None:
                yield BadNumber(path, f"{key} {found}{self.of}", kind.wanted, kind.rules)


def all_bad(path: Path, sections: Sequence[Section]) -> Iterator[BadNumber]:
    """The bad numbers of several sections of one file."""
    for section in sections:
        yield from section.bad(path)
