"""Every number of a tree that a rule looks at, whose business it is, and what may stand there that is no such number.

Written down without the checker's own tables, which a test holds against this.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any, Final

from made_tree import Made, edit

MISSING: Final = "missing"
"""In place of a bad value: the key is taken away."""

BAD: Final[Mapping[str, Any]] = {
    "NaN": nan,
    "Infinity": inf,
    "minus Infinity": -inf,
    "null": None,
    "true": True,
    "text": "1.5",
    "a list": [1.5],
    "a mapping": {"value": 1.5},
    "below zero": -1.5,
    "below zero and whole": -1,
    "beyond any machine": 2.0**63,
    "hundreds of digits": 10**400,
    MISSING: MISSING,
}
"""What no number of a tree may be; besides, of whole ones 1.5, and of positive ones 0."""


@dataclass(frozen=True)
class Place:
    """Where a number stands."""

    table: str
    """In which kind of place: a table of the checker."""
    key: str
    closed: str
    """The id of the rule whose business it is in closed; "" where nobody looks."""
    open: str
    whole: bool = False
    positive: bool = False
    optional: bool = False
    """It may be missing without being bad."""
    many: bool = False
    """It is a list of numbers."""

    @property
    def name(self) -> str:
        return f"{self.table}-{self.key}"

    def rule(self, division: str) -> str:
        return self.closed if division == "closed" else self.open

    def bad(self) -> dict[str, Any]:
        """What may not stand here, by what it is."""
        values = dict(BAD)
        if self.whole:
            values["a fraction"] = 1.5
        if self.positive:
            values["zero"] = 0
        if self.optional:
            del values[MISSING]
        if self.many:
            del values["a list"]
        return values


def _of(table: str, rule: str, *keys: str, other: str | None = None, **kinds: bool) -> list[Place]:
    """`other` is the rule in open, where it is not the same."""
    return [Place(table, key, rule, rule if other is None else other, **kinds) for key in keys]


_STATS: Final = "summary.cache_stats"
_DEVICE: Final = [f"{_STATS}.storage_{direction}_device_{{}}_ms" for direction in ("read", "write")]

PLACES: Final = [
    *_of("rank", "kvcacheClosedSequenceLocks", "seed", other="", whole=True),
    *_of("rank", "kvcachePerClientIsolation", "end_to_end_latencies", "storage_latencies", many=True),
    *_of("rank", "kvcacheAggregateBandwidth", "summary.elapsed_time", positive=True),
    *_of("rank", "kvcacheAggregateThroughput", "summary.total_tokens", whole=True),
    *_of(
        "rank",
        "kvcacheAggregateThroughput",
        "summary.total_storage_io_time",
        "summary.avg_throughput_tokens_per_sec",
        "summary.storage_throughput_tokens_per_sec",
    ),
    *_of(
        "rank",
        "kvcacheAggregateDeviceLatency",
        *(f"summary.storage_io_latency_ms.{name}" for name in ("p50", "p95", "p99", "p999", "p9999")),
        optional=True,
    ),
    *_of("rank", "kvcacheLatencyValidity", f"{_STATS}.storage_entries", whole=True),
    *_of(
        "rank",
        "kvcacheAggregateBandwidth",
        f"{_STATS}.tier_storage_kv_bytes_read_gb",
        f"{_STATS}.tier_storage_kv_bytes_written_gb",
        f"{_STATS}.tier_storage_read_bandwidth_gbps",
        f"{_STATS}.tier_storage_write_bandwidth_gbps",
    ),
    *_of("rank", "kvcacheAggregateDeviceLatency", *(key.format("p95") for key in _DEVICE)),
    *_of(
        "rank",
        "kvcacheAggregateDeviceLatency",
        *(key.format(name) for key in _DEVICE for name in ("p50", "p99", "p999", "p9999")),
        optional=True,
    ),
    *_of("rank", "kvcacheScaleUpModel", "kvbench.users", "kvbench.max_concurrent_allocs", whole=True, positive=True),
    *_of("summary", "kvcacheClientDefinition", "npernode", "host_count", "total_ranks", whole=True, positive=True),
    *_of(
        "summary",
        "kvcacheClosedSequenceLocks",
        "trials_per_option",
        other="kvcacheSharedResultsDir",
        whole=True,
        positive=True,
    ),
    *_of("summary option", "kvcacheHeadlineResult", "option", whole=True),
    *_of(
        "summary option",
        "kvcacheHeadlineResult",
        "aggregated_read_bandwidth_gbps",
        "aggregated_device_read_p95_ms",
        "aggregated_device_write_p95_ms",
        "aggregated_storage_throughput_tokens_per_sec",
    ),
    *_of("summary option", "kvcacheAggregateDeviceLatency", "aggregated_p95_latency_ms", optional=True),
    *_of("summary option", "kvcacheAggregateBandwidth", "aggregated_write_bandwidth_gbps"),
    *_of("summary option", "kvcacheAggregateThroughput", "aggregated_avg_throughput_tokens_per_sec"),
    *_of("summary option", "kvcacheClientDefinition", "rank_count", whole=True, positive=True),
    *_of(
        "summary option",
        "kvcacheClosedSequenceLocks",
        "trial_count",
        other="kvcacheSharedResultsDir",
        whole=True,
        positive=True,
    ),
    *_of("sequence", "kvcacheClientDefinition", "npernode", "total_ranks", whole=True, positive=True),
    *_of("sequence", "kvcacheClosedSequenceLocks", "seed", other="", whole=True),
    *_of("sequence", "kvcacheClosedSequenceLocks", "delay_between_options_s", other=""),
    *_of("option", "kvcacheFixedWorkloadPerOption", "option", other="kvcacheOpenAllowances", whole=True),
    *_of(
        "option",
        "kvcacheFixedWorkloadPerOption",
        "settings.users",
        "settings.max_concurrent_allocs",
        other="kvcacheOpenAllowances",
        whole=True,
        positive=True,
    ),
    *_of(
        "option",
        "kvcacheFixedWorkloadPerOption",
        "settings.duration_s",
        other="kvcacheOpenAllowances",
        positive=True,
    ),
    *_of(
        "option",
        "kvcacheFixedWorkloadPerOption",
        "settings.gpu_gb",
        "settings.cpu_gb",
        other="kvcacheOpenAllowances",
    ),
    *_of("trial", "kvcacheClosedSequenceLocks", "trial", other="kvcacheSharedResultsDir", whole=True),
    *_of("trial", "kvcacheClosedSequenceLocks", "delay_before_s", other=""),
    *_of("node", "identicalSystemConfig", "cpus", "memory_bytes", whole=True, positive=True),
]


def put_number(made: Made, place: Place, value: Any, option: int = 1, trial: int = 1, rank: int = 0) -> Path:
    """Put `value` where a number of `place` stands, of one of the options, trials and ranks; returns the file."""
    path, above = _where(made, place.table, option, trial, rank)
    *sections, last = place.key.split(".")

    def change(content: Any) -> None:
        for key in (*above, *sections):
            content = content[key]
        if value is MISSING:
            content.pop(last, None)
        else:
            content[last] = value

    edit(path, change)
    return path


def bad_number(place: Place, value: Any, option: int, trial: int, rank: int) -> Callable[[Made], None]:
    """A mutation that puts `value` there."""

    def mutation(made: Made) -> None:
        put_number(made, place, value, option, trial, rank)

    return mutation


def _where(made: Made, table: str, option: int, trial: int, rank: int) -> tuple[Path, tuple[str | int, ...]]:
    """The file, and the keys of the mapping in it."""
    places: dict[str, tuple[Path, tuple[str | int, ...]]] = {
        "rank": (made.rank(option, trial, rank), ()),
        "summary": (made.summary, ()),
        "summary option": (made.summary, ("options", str(option))),
        "sequence": (made.sequence, ()),
        "option": (made.sequence, ("options", option - 1)),
        "trial": (made.sequence, ("options", option - 1, "trials", trial - 1)),
        "node": (made.sequence, ("nodes", 0)),
    }
    return places[table]
