"""Problems of many ranks as one short message: equal problems are merged, and the size is bounded.

Nothing travels here; `agree` sends these reports up its tree. Merging two takes time and space that do not depend on
the number of ranks: at most 16 texts, each with at most 8 ranges of ranks and 4 host names.
"""

from dataclasses import dataclass, field
from typing import Final, Self

MAX_PROBLEMS: Final = 16
MAX_TEXT: Final = 4000
"""Characters kept of one problem's text."""
_MAX_RANGES: Final = 8
_MAX_HOSTS: Final = 4


@dataclass(frozen=True)
class _Where:
    """The ranks that have one problem: how many, their first ranges, and their first hosts."""

    ranks: int
    ranges: tuple[tuple[int, int], ...]
    hosts: tuple[str, ...]
    more_hosts: bool = False

    def merged_with(self, later: "_Where") -> "_Where":
        """This and `later`, all of whose ranks are higher."""
        ranges = list(self.ranges)
        for first, last in later.ranges:
            # Ranges can only be joined while none was left out before them.
            if ranges and ranges[-1][1] + 1 == first and self.ranks == _covered(self.ranges):
                ranges[-1] = (ranges[-1][0], last)
            else:
                ranges.append((first, last))
        hosts = tuple(dict.fromkeys(self.hosts + later.hosts))
        return _Where(
            self.ranks + later.ranks,
            tuple(ranges[:_MAX_RANGES]),
            hosts[:_MAX_HOSTS],
            self.more_hosts or later.more_hosts or len(hosts) > _MAX_HOSTS,
        )

    def __str__(self) -> str:
        names = [f"{first}" if first == last else f"{first}-{last}" for first, last in self.ranges]
        left_out = self.ranks - _covered(self.ranges)
        if left_out > 0:
            names.append(f"{left_out} more")
        hosts = ", ".join(self.hosts) + (" and others" if self.more_hosts else "")
        return f"{'rank' if self.ranks == 1 else 'ranks'} {', '.join(names)} on {hosts}"


@dataclass(frozen=True)
class Report:
    """The problems of a range of ranks, in the order of the first rank that has each."""

    problems: dict[str, _Where] = field(default_factory=dict)
    left_out: int = 0
    """Ranks whose problem is not among `problems`, as there were too many different ones."""

    @classmethod
    def of(cls, rank: int, host: str, text: str) -> Self:
        """One rank's report; an empty `text` means that it has nothing to say."""
        return cls({text[:MAX_TEXT]: _Where(1, ((rank, rank),), (host,))} if text else {})

    def merged_with(self, later: "Report") -> "Report":
        """This report and that of ranks that are all higher."""
        problems = dict(self.problems)
        left_out = self.left_out + later.left_out
        for text, where in later.problems.items():
            if text in problems:
                problems[text] = problems[text].merged_with(where)
            elif len(problems) < MAX_PROBLEMS:
                problems[text] = where
            else:
                left_out += where.ranks
        return Report(problems, left_out)

    def lines(self) -> list[str]:
        """A line for each problem, with the ranks that have it, and one for those that were left out."""
        lines = [f"{where}: {text}" for text, where in self.problems.items()]
        return [*lines, f"{self.left_out} more ranks with other problems"] if self.left_out else lines

    def message(self, phase: str, size: int) -> str:
        """What a user reads: one line for one problem, else a heading and a line for each. `size`: ranks in all; of one
        rank alone, or of all alike, it need not be said who has it."""
        lines = self.lines()
        if not lines:
            return f"{phase} failed, and no rank says why"
        ranks = self.left_out + sum(where.ranks for where in self.problems.values())
        if len(lines) == 1 and ranks == size:
            (text,) = self.problems
            return text if size == 1 else f"{phase} failed on all {size} ranks: {text}"
        if len(lines) == 1 and not self.left_out:
            return f"{phase} failed: {lines[0]}"
        return "\n  ".join([f"{phase} failed on {ranks} of {size} ranks:", *lines])


def _covered(ranges: tuple[tuple[int, int], ...]) -> int:
    return sum(last - first + 1 for first, last in ranges)
