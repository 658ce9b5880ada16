"""What an audit shows besides its findings: the figures of each option, and what was not looked at, in words."""

import json
from collections.abc import Sequence
from typing import Final

from kvbench.mlperf.audit.audit import LeafAudit
from kvbench.mlperf.audit.finding import KINDS, WEIGHTS, NotAudited, listed
from kvbench.mlperf.audit.leaf import LeafFacts
from kvbench.mlperf.audit.questions.outlived import P95
from kvbench.mlperf.audit.questions.speed import (
    READ,
    WRITE,
    hosts_memory_gib,
    servers_memory_gib,
    written_gib,
)

TITLE: Final = "MLPerf Storage, KV cache: audit"
MEANING: Final = (
    ("invalidates", "the figure is not what the rules define"),
    ("distorts", "it is, and says something else than it seems to"),
    ("notable", "worth knowing for whoever reads it"),
)
OVERVIEW: Final = ("submitter", "division", "system", "run", *WEIGHTS, "not audited")
LEGEND: Final = (
    "P95: of the storage time of a rank's requests, the largest. Written: to storage in a trial, and how many times "
    "the memory of all hosts and of all servers that is."
)
FIGURES: Final = (
    "option",
    "read GiB/s",
    "per client",
    "per host",
    "write GiB/s",
    "per client",
    "per host",
    "P95 s",
    "written GiB",
    "x hosts",
    "x servers",
)


def overview(audits: Sequence[LeafAudit]) -> list[tuple[str, ...]]:
    """A row for each run: how many findings of each weight, and how many kinds were not or not wholly looked at."""
    rows = []
    for audit in audits:
        leaf = audit.leaf
        counts = [str(sum(1 for each in audit.findings if each.weight == weight)) for weight in WEIGHTS]
        open_kinds = str(len({each.kind for each in audit.not_audited}))
        rows.append((leaf.submitter, leaf.division, leaf.system, leaf.stamp, *counts, open_kinds))
    return rows


def figures(audit: LeafAudit) -> list[tuple[str, ...]]:
    """A row for each option of a run, as the summary has it, and divided by clients and hosts."""
    leaf, rows = audit.leaf, []
    for option in leaf.options:
        cells = [str(option.number)]
        for key in (READ, WRITE):
            value = option.figures.get(key)
            cells += [_number(value), _number(_per(value, leaf.total_ranks)), _number(_per(value, leaf.host_count))]
        p95_ms, written = option.figures.get(P95), written_gib(option)
        cells += [_number(None if p95_ms is None else p95_ms / 1e3), _number(written)]
        cells += [_times(written, memory[0] if memory else None) for memory in _memories(leaf)]
        rows.append(tuple(cells))
    return rows


def not_audited(audit: LeafAudit) -> list[tuple[str, str]]:
    """(what, why) of all that could not be looked at."""
    return [(KINDS[each.kind], _why(each)) for each in audit.not_audited]


def nothing_found(audit: LeafAudit) -> list[str]:
    """What was looked at wholly, without a finding."""
    return [KINDS[kind] for kind in audit.clean]


def _why(each: NotAudited) -> str:
    return f"{listed(each.options)}: {each.why}" if each.options else each.why


def _memories(leaf: LeafFacts) -> tuple[tuple[float, object] | None, ...]:
    return hosts_memory_gib(leaf), servers_memory_gib(leaf)


def _per(value: float | None, count: int | None) -> float | None:
    return None if value is None or not count else value / count


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if value < 1e4 else f"{value:.0f}"


def _times(value: float | None, of: float | None) -> str:
    return "-" if value is None or not of else f"{value / of:.2f}"


def as_json(audits: Sequence[LeafAudit]) -> str:
    """The whole audit for programs."""
    return json.dumps([audit.as_dict() for audit in audits], indent=2) + "\n"
