"""The rules of sections 2.1 and 6, of code images, leaves and stamps: functions named after their ids, all in `RULES`.

A rule reads what `tree` has found of a submission. Never: a path that it opens itself, or a file that it writes.
"""

from kvbench.mlperf.rules import (
    access,
    clients,
    code,
    divisions,
    figures,
    leaves,
    provenance,
    structure,
    systems,
    workload,
)
from kvbench.mlperf.rules.registry import RULES, Problem, Rule, Weight

__all__ = [
    "RULES",
    "Problem",
    "Rule",
    "Weight",
    "access",
    "clients",
    "code",
    "divisions",
    "figures",
    "leaves",
    "provenance",
    "structure",
    "systems",
    "workload",
]
