"""What a search for the highest load keeps of its probes: the tables of its study file, and what was asked.

A study file is a run file without rows of operations and requests (docs/hdf5-schema.md): /probes has a row for each
probe, /objectives one for each objective, and /measured one for each objective in each probe.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

import numpy as np

KIND: Final = "study-search"
"""The attribute `kind` of its files."""

ASKED: Final = "search_json"
"""The attribute that holds what was asked."""

PROBE_DTYPE: Final = np.dtype(
    [
        ("probe", "<i8"),
        ("load", "<f8"),
        ("seed", "<i8"),
        ("started_at", "S32"),
        ("took_s", "<f8"),
        ("seconds", "<f8"),
        ("requests", "<i8"),
        ("offered_per_s", "<f8"),
        ("served_per_s", "<f8"),
        ("served_share", "<f8"),
        ("grew", "<i8"),
        ("unserved", "<i8"),
    ]
)
"""`load` is per rank, all counts and rates are of all ranks. `seconds` is how long the load came; `took_s` is the whole
run. `requests` came in that time, and `unserved` of them were not done at its end. `served_share` is what was done in
it of what came in it, at most 1. `grew`: the backlog grew, so that the load was not served."""

OBJECTIVE_DTYPE: Final = np.dtype(
    [
        ("objective", "<i8"),
        ("text", "S96"),
        ("figure", "S16"),
        ("qos", "S32"),
        ("percentile", "<f8"),
        ("bound_s", "<f8"),
    ]
)
"""`percentile` is NaN where the objective bounds the mean, `qos` is empty where it is of all classes."""

MEASURED_DTYPE: Final = np.dtype(
    [
        ("probe", "<i8"),
        ("objective", "<i8"),
        ("requests", "<i8"),
        ("figure_s", "<f8"),
        ("over_share", "<f8"),
        ("inflation", "<f8"),
    ]
)
"""`figure_s` is the figure that the objective bounds. `over_share` of the requests took longer than the bound; where
the mean is bounded, it is the logarithm of the mean by the bound. `inflation` is by how much the variance of it exceeds
that of independent requests (0: not known); where the mean is bounded, the variance itself."""

WAITED: Final = frozenset({"ttft", "latency", "queue"})
"""Figures that contain the wait for the start."""

Aim = Literal["objectives", "max-throughput"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search was asked for: one that goes on with a file has to be asked the same."""

    source: str
    """The configuration, as it was named."""
    config: str
    """The configuration, whole, as JSON."""
    trace_digest: str
    """Of the trace's content; empty where there is none."""
    key: str
    """What is varied."""
    objectives: tuple[str, ...]
    aim: Aim
    place: str
    """Under test; empty where there is none."""
    engine: str
    ranks: int
    low: float
    high: float
    start: float
    seconds: float
    """Of each probe."""
    warmup_s: float
    """Before each."""
    precision: float
    """Half of the interval by the estimate, at which the search ends."""
    most: int
    """Probes."""

    @property
    def whole(self) -> bool:
        """Whether only whole loads are there."""
        return self.key == "workload.users"

    def to_json(self) -> str:
        """As the attribute ASKED."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Asked":
        """What `to_json` gave. Raises ValueError, TypeError or KeyError where the text is something else."""
        content = json.loads(text)
        return Asked(**content | {"objectives": tuple(map(str, content["objectives"]))})

    def differences(self, other: "Asked") -> list[str]:
        """The names of what `other` asks otherwise; when a search ends says nothing of what its probes are."""
        names = (field.name for field in fields(self) if field.name not in ("most", "precision"))
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def asked_of(attributes: Mapping[str, Any]) -> Asked | None:
    """What a study file says it was asked for; None where it is none of a search, or does not say it all."""
    if attributes.get("kind") != KIND:
        return None
    try:
        asked = Asked.from_json(str(attributes.get(ASKED)))
        numbers = asked.low, asked.high, asked.start, asked.seconds, asked.warmup_s, asked.precision, asked.most
        good = all(isinstance(number, int | float) for number in (*numbers, asked.ranks))
    except (ValueError, TypeError, KeyError):
        return None
    return asked if good and asked.aim in ("objectives", "max-throughput") else None
