"""One rank's result file, cut down to what the rules look at: a tree may hold thousands of them.

The long lists (a number per request) are kept as a digest, which tells whether two ranks hold the same measurements.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.numbers import AMOUNT, BadNumber, Number, NumberList, Section, always
from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, dig, read_json, whole

_LISTS: Final = (
    "end_to_end_latencies",
    "storage_latencies",
    "generation_latencies",
    "throughput_timeline",
    "prefill_latencies",
    "decode_latencies",
)
_MEASURED: Final = ("end_to_end_latencies", "storage_latencies")
"""The lists by which two results are told apart."""
_STATS: Final = "summary.cache_stats"
_PERCENTILES: Final = ("p50", "p95", "p99", "p999", "p9999")
_OF_REQUESTS: Final = tuple(f"summary.storage_io_latency_ms.{name}" for name in _PERCENTILES)
"""The storage time of requests, which published summaries have the P95 of."""

_BANDWIDTH: Final = ("kvcacheAggregateBandwidth",)
_THROUGHPUT: Final = ("kvcacheAggregateThroughput",)
_LATENCY: Final = ("kvcacheAggregateDeviceLatency",)
_SCALE_UP: Final = ("kvcacheScaleUpModel",)
_ENTRIES: Final = ("prefill_writes", "offloads_cpu")
"""New entries, and those of them that went to memory."""
_VERB: Final = {"read": "read", "write": "written"}


def _moved_nothing(direction: str) -> Callable[[Any], bool]:
    """Whether a result says that nothing was read from storage (or written to it): then it has no percentile.

    Bytes written count what memory hands down, and percentiles do not: where every entry went to memory first there is
    none of those either.
    """

    def answer(content: Any) -> bool:
        if direction == "write":
            entries, to_memory = (whole(dig(content, *_STATS.split("."), key)) for key in _ENTRIES)
            if entries is not None and entries == to_memory:
                return True
        keys = ("storage_entries", f"tier_storage_kv_bytes_{_VERB[direction]}_gb")
        stats = dig(content, *_STATS.split("."))
        return any(RANK_RESULT[f"{_STATS}.{key}"].read(dig(stats, key)) == 0 for key in keys)

    return answer


def _of_another_tool(content: Any) -> bool:
    return dig(content, "kvbench") is MISSING


def _percentiles(direction: str) -> dict[str, Number]:
    """The one of the rules has to be there where something was moved; the others are looked at for their order."""
    return {
        f"{_STATS}.storage_{direction}_device_{name}_ms": Number(
            _LATENCY, absent=_moved_nothing(direction) if name == "p95" else always
        )
        for name in _PERCENTILES
    }


RANK_RESULT: Final[Mapping[str, Number]] = {
    "seed": Number(("kvcacheClosedSequenceLocks",), whole=True),
    "end_to_end_latencies": NumberList(("kvcachePerClientIsolation",)),
    "storage_latencies": NumberList(("kvcachePerClientIsolation",)),
    "summary.elapsed_time": Number(_BANDWIDTH, positive=True),
    "summary.total_tokens": Number(_THROUGHPUT, whole=True),
    "summary.total_storage_io_time": Number(_THROUGHPUT),
    "summary.avg_throughput_tokens_per_sec": Number(_THROUGHPUT),
    "summary.storage_throughput_tokens_per_sec": Number(_THROUGHPUT),
    **{key: Number(_LATENCY, absent=always) for key in _OF_REQUESTS},
    f"{_STATS}.storage_entries": Number(("kvcacheLatencyValidity",), whole=True),
    f"{_STATS}.tier_storage_kv_bytes_read_gb": Number(_BANDWIDTH),
    f"{_STATS}.tier_storage_kv_bytes_written_gb": Number(_BANDWIDTH),
    f"{_STATS}.tier_storage_read_bandwidth_gbps": Number(_BANDWIDTH),
    f"{_STATS}.tier_storage_write_bandwidth_gbps": Number(_BANDWIDTH),
    **_percentiles("read"),
    **_percentiles("write"),
    "kvbench.users": Number(_SCALE_UP, whole=True, positive=True, absent=_of_another_tool),
    "kvbench.max_concurrent_allocs": Number(_SCALE_UP, whole=True, positive=True, absent=_of_another_tool),
}
"""The numbers of a result that rules look at."""


@dataclass(frozen=True, slots=True)
class RankFile:
    """The content of a kvcache_results file without its lists."""

    path: Path
    content: Any
    """MISSING where the file cannot be read or holds no mapping."""
    problem: str
    """Why not; "" where it can."""
    measured: str
    """Digest of the latencies of its requests; "" where it has none."""
    bad: tuple[BadNumber, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether there is a content."""
        return not self.problem

    def __getitem__(self, key: str) -> Any:
        """The value at a dotted key, such as `kvbench.cache_directory`; MISSING where there is none."""
        return dig(self.content, *key.split("."))

    @property
    def longest_request_s(self) -> float | None:
        """The longest latency of a request, by the classes of service in its summary; None where none is told."""
        classes = dig(self.content, "summary", "qos_metrics")
        each = classes.values() if isinstance(classes, dict) else ()
        longest = [ms for of in each if (ms := AMOUNT.read(dig(of, "latency_ms", "max"))) is not None]
        return max(longest) / 1000 if longest else None

    def number(self, key: str) -> float | None:
        """The number at a key of RANK_RESULT; None where it is bad (then it is among `bad`) or absent."""
        return RANK_RESULT[key].read(self[key])


def read_rank_file(path: Path) -> RankFile:
    """The result at `path`, or why it cannot be read."""
    try:
        content = read_json(path)
    except Unreadable as error:
        return RankFile(path, MISSING, str(error), "")
    if not isinstance(content, dict):
        return RankFile(path, MISSING, "no JSON object", "")
    lists = [content[name] for name in _MEASURED if content.get(name)]
    try:
        digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest() if lists else ""
    except RecursionError:
        return RankFile(path, MISSING, "JSON nested too deeply", "")
    section = Section(content, RANK_RESULT)
    bad = (*section.bad(path), *_out_of_order(section, path))
    return RankFile(path, {key: value for key, value in content.items() if key not in _LISTS}, "", digest, bad)


def _out_of_order(section: Section, path: Path) -> list[BadNumber]:
    """Percentiles that are less than a lower one: such numbers are of no set of operations."""
    found = []
    devices = [[f"{_STATS}.storage_{way}_device_{name}_ms" for name in _PERCENTILES] for way in _VERB]
    for keys in (*devices, _OF_REQUESTS):
        there = [(key, value) for key in keys if (value := section.number(key)) is not None]
        found += [
            BadNumber(path, f"{key} {value:.6g}", f"{least:.6g} or more, which is {lower.rpartition('.')[2]}", _LATENCY)
            for (lower, least), (key, value) in pairwise(there)
            if value < least * (1 - 1e-9)
        ]
    return found
