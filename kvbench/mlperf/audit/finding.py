"""What an audit finds: of three weights, each with its evidence and what it does to a figure; or why not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

Weight = Literal["invalidates", "distorts", "notable"]
WEIGHTS: Final[tuple[Weight, ...]] = get_args(Weight)
"""From the heaviest: the figure is not what the rules define; it is, and misleads; worth knowing."""

KINDS: Final = {
    "preloaded-library": "libraries loaded before the benchmark's own",
    "outlived-trial": "requests that go on after the trial",
    "trials-apart": "time between the beginnings of trials",
    "fsync-span": "spans of fsync",
    "page-cache-speed": "bandwidth against what is described",
    "working-set": "what was written against memory",
    "lost-ranks": "ranks that died",
    "twin-leaf": "leaves that belong together",
    "dropped-runs": "runs and trials that are not in the figures",
    "delay": "delay between options",
    "code": "the code that ran",
    "hosts": "hosts that differ",
    "few-requests": "percentiles of few operations",
}
"""What is looked at, in the order of the report."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A value in a file of the tree."""

    path: str
    key: str
    value: str

    def __str__(self) -> str:
        """In one line."""
        return f"{self.path}: {self.key} {self.value}".rstrip()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    weight: Weight
    kind: str
    what: str
    """In one sentence."""
    effect: str
    """On the figures, recomputed where the tree allows it."""
    evidence: tuple[Evidence, ...]
    options: tuple[int, ...] = ()
    """Whose figures it is about; all where there is none."""

    def concerns(self, option: int) -> bool:
        """Whether it is about the figures of `option`."""
        return not self.options or option in self.options

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weight": self.weight,
            "kind": self.kind,
            "options": list(self.options),
            "what": self.what,
            "effect": self.effect,
            "evidence": [{"path": one.path, "key": one.key, "value": one.value} for one in self.evidence],
        }


@dataclass(frozen=True, slots=True)
class NotAudited:
    """What could not be looked at in this tree, wholly or for some options."""

    kind: str
    why: str
    options: tuple[int, ...] = ()


Answer = Finding | NotAudited


def few(evidence: Sequence[Evidence], most: int = 6) -> tuple[Evidence, ...]:
    """The first `most` of a long list; the last of them says how many more there are."""
    if len(evidence) <= most:
        return tuple(evidence)
    last = evidence[most - 1]
    return (*evidence[: most - 1], replace(last, value=f"{last.value} (and {len(evidence) - most} more such)"))


def listed(numbers: Sequence[int]) -> str:
    """`options 1 and 3`, `option 2`."""
    words = [str(number) for number in numbers]
    text = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"option{'s' if len(words) > 1 else ''} {text}"
