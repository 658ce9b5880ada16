"""One rank's result as the reference tool writes it, filled from the records of a run file: same keys, same units.

docs/mlperf.md lists where a meaning differs. Of the reference's words: "device" is the span of the load or of the fsync
(`span_ns`), "host" the rest of the operation; GB are GiB. Nothing here is read or written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.records.schema import Op
from kvbench.units import GIB
from kvbench.workload.request import QOS_CLASSES

Columns = Mapping[str, NDArray[Any]]

PERCENTILES: Final = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99}
QOS_TARGETS_P95_MS: Final = {"interactive": 50, "responsive": 100, "batch": 1000}
_WRITE_TARGET_MS: Final = 500
_READ_TARGET_MS: Final = 200
_MEMORY_TARGET_MS: Final = 150
_HIT_RATE_TARGET: Final = 0.3
_COMPLIANT: Final = 0.95
"""Of the requests of a class, within the target: then its P95 is met."""


@dataclass(frozen=True, slots=True)
class RankRows:
    """What one rank did in the measured phase."""

    seed: int
    records: Columns
    """Rows without an error, of any operation; `storage`, a boolean column, says whether the tier is storage."""
    requests: Columns
    """Requests that were carried out to their end, by the time of their end."""
    look_ups: Mapping[str, int]
    """The rank's row of /look_ups."""
    elapsed_s: float
    bytes_per_token: int


def rank_result(rows: RankRows) -> dict[str, Any]:
    """The content of kvcache_results_<stamp>.json."""
    moved = _Moved.of(rows)
    requests, look_ups = rows.requests, rows.look_ups
    latencies_s = (requests["end_ns"] - requests["intended_ns"]) / 1e9
    storage_s = moved.seconds_of(requests["request"], moved.reads | moved.writes)
    generation_s = np.zeros(len(latencies_s))
    tokens = int(requests["output_tokens"].sum())
    completed = len(latencies_s)
    hits, misses = look_ups["history_hits"], look_ups["history_misses"]
    total_storage_s = float(storage_s.sum())
    summary = {
        "total_requests": completed,
        "total_tokens": tokens,
        "elapsed_time": rows.elapsed_s,
        "avg_throughput_tokens_per_sec": tokens / rows.elapsed_s,
        "total_storage_io_time": total_storage_s,
        "storage_throughput_tokens_per_sec": tokens / total_storage_s if total_storage_s else 0.0,
        "requests_per_second": completed / rows.elapsed_s,
        "end_to_end_latency_ms": _latency_ms(latencies_s),
        "storage_io_latency_ms": _latency_ms(storage_s),
        "generation_latency_ms": _latency_ms(generation_s),
        "cache_stats": cache_stats(rows, moved),
        "qos_metrics": _qos_metrics(requests["qos"], latencies_s * 1e3),
        "prefix_cache_stats": {
            "prefix_hits": look_ups["prompt_misses"],
            "prefix_misses": look_ups["plain_requests"],
            "system_prompt_reuse": look_ups["prompt_misses"],
            "common_phrase_reuse": 0,
            "bytes_saved": look_ups["prompt_tokens"] * rows.bytes_per_token,
        },
        "autoscaling_stats": [],
        "autoscaling_summary": None,
        "multi_turn_stats": {
            "cache_hits": hits,
            "cache_misses": misses,
            "hit_rate": hits / max(hits + misses, 1),
        },
    }
    decoded = moved.decode_seconds(requests["request"])
    return {
        "requests_completed": completed,
        "total_tokens_generated": tokens,
        "total_storage_io_latency": total_storage_s,
        "total_generation_latency": 0.0,
        "end_to_end_latencies": latencies_s.tolist(),
        "storage_latencies": storage_s.tolist(),
        "generation_latencies": generation_s.tolist(),
        "throughput_timeline": [],
        "prefill_latencies": (moved.columns["wall_ns"][moved.writes] / 1e9).tolist(),
        "decode_latencies": decoded.tolist(),
        "multi_turn_cache_hits": hits,
        "multi_turn_cache_misses": misses,
        "seed": rows.seed,
        "summary": summary,
    }


@dataclass(frozen=True, slots=True)
class _Moved:
    """The rows of a rank by time, and which of them the reference counts as what."""

    columns: Columns
    reads: NDArray[np.bool_]
    """Reads that requests asked for, on any tier."""
    writes: NDArray[np.bool_]
    """New entries, on any tier; what memory hands down is none."""
    storage: NDArray[np.bool_]
    bytes_per_token: int

    @classmethod
    def of(cls, rows: RankRows) -> "_Moved":
        order = np.argsort(rows.records["t_start_ns"], kind="stable")
        columns = {name: column[order] for name, column in rows.records.items()}
        op = columns["op"]
        return cls(columns, op == Op.READ, op == Op.WRITE, columns["storage"].astype(bool), rows.bytes_per_token)

    def seconds_of(self, requests: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Summed wall time of the chosen rows of each of `requests`."""
        order = np.argsort(requests, kind="stable")
        place = np.searchsorted(requests[order], self.columns["request"][chosen])
        place = np.minimum(place, max(len(requests) - 1, 0))
        numbers = self.columns["request"][chosen]
        found = requests[order][place] == numbers if len(requests) else np.zeros(len(numbers), bool)
        sums = np.zeros(len(requests))
        np.add.at(sums, order[place[found]], self.columns["wall_ns"][chosen][found] / 1e9)
        return sums

    def decode_seconds(self, requests: NDArray[Any]) -> NDArray[np.float64]:
        """Summed decode reads of each of `requests` that decoded: what it read after it had written."""
        written: dict[int, int] = {}
        numbers, starts = self.columns["request"], self.columns["t_start_ns"]
        for number, start in zip(numbers[self.writes].tolist(), starts[self.writes].tolist(), strict=True):
            written.setdefault(number, start)
        wrote_at = np.array([written.get(number, 2**63 - 1) for number in numbers.tolist()], dtype=np.int64)
        decode = self.reads & (starts > wrote_at)
        return self.seconds_of(requests, decode)[np.isin(requests, numbers[decode])]

    def nbytes(self, chosen: NDArray[np.bool_]) -> int:
        return int(self.columns["nbytes"][chosen].sum())

    def tokens(self, chosen: NDArray[np.bool_]) -> float:
        return float(self.columns["tokens"][chosen].sum())

    def held(self, storage: bool) -> tuple[int, int]:
        """(entries, bytes) on the storage or in memory at the end: what went there less what left. Moves between the
        two stand on the storage."""
        op = self.columns["op"]
        demoted = op == Op.DEMOTE
        here = self.storage == storage
        came = (here & self.writes) | (demoted if storage else np.zeros(len(op), bool))
        left = (here & (op == Op.DELETE)) | (np.zeros(len(op), bool) if storage else demoted)
        return int(came.sum()) - int(left.sum()), self.nbytes(came) - self.nbytes(left)


def cache_stats(rows: RankRows, moved: _Moved) -> dict[str, Any]:
    """`summary.cache_stats`."""
    look_ups, columns = rows.look_ups, moved.columns
    hits = look_ups["history_hits"] + look_ups["context_hits"]
    misses = look_ups["history_misses"] + look_ups["context_misses"] + look_ups["prompt_misses"]
    hit_rate = hits / (hits + misses) if hits + misses else 0.0
    demoted = columns["op"] == Op.DEMOTE
    read = {"cpu": moved.reads & ~moved.storage, "storage": moved.reads & moved.storage}
    written = {"cpu": moved.writes & ~moved.storage, "storage": moved.writes & moved.storage}
    storage_entries, _ = moved.held(storage=True)
    memory_entries, memory_bytes = moved.held(storage=False)
    total_read, total_written = moved.nbytes(moved.reads), moved.nbytes(moved.writes)
    stats: dict[str, Any] = {
        "cache_hit_rate": hit_rate,
        "cache_hits": hits,
        "cache_misses": misses,
        "gpu_entries": 0,
        "cpu_entries": memory_entries,
        "storage_entries": storage_entries,
        "gpu_memory_used_gb": 0.0,
        "cpu_memory_used_gb": memory_bytes / GIB,
        "offloads_cpu": int(written["cpu"].sum()),
        "offloads_storage": int((written["storage"] | demoted).sum()),
        "prefill_writes": int(moved.writes.sum()),
        "decode_reads": int(moved.reads.sum()),
        "system_prompt_hits": look_ups["prompted_hits"],
        "common_phrase_hits": 0,
        "user_cache_hits": look_ups["context_hits"] - look_ups["prompted_hits"],
        "multi_turn_hits": look_ups["history_hits"],
        "total_read_bytes": total_read,
        "total_write_bytes": total_written,
        "total_read_gb": total_read / GIB,
        "total_write_gb": total_written / GIB,
        "read_write_ratio": total_read / max(total_written, 1),
        "read_iops": int(moved.reads.sum()),
        "write_iops": int(moved.writes.sum()),
        "storage_tokens_processed": moved.tokens(read["storage"] | written["storage"] | demoted),
    }
    # Bytes of a tier count what memory hands down, as read there and written here. The latencies below do not.
    carried = {
        "read": {**read, "cpu": read["cpu"] | demoted},
        "write": {**written, "storage": written["storage"] | demoted},
    }
    for tier in ("gpu", "cpu", "storage"):
        for name, verb in (("read", "read"), ("write", "written")):
            gib = moved.nbytes(carried[name][tier]) / GIB if tier in carried[name] else 0.0
            stats[f"tier_{tier}_kv_bytes_{verb}_gb"] = gib
            stats[f"tier_{tier}_{name}_bandwidth_gbps"] = gib / rows.elapsed_s
    for tier in ("cpu", "storage"):
        for name, by_tier in (("read", read), ("write", written)):
            wall_ms = columns["wall_ns"][by_tier[tier]] / 1e6
            stats |= percentiles(wall_ms, f"{tier}_{name}_", "_ms")
            if tier == "storage":
                span_ms = columns["span_ns"][by_tier[tier]] / 1e6
                stats |= percentiles(span_ms, f"storage_{name}_device_", "_ms")
                stats |= percentiles(wall_ms - span_ms, f"storage_{name}_host_", "_ms")
    stats["storage_health"] = _health(stats, hits + misses, columns["wall_ns"][read["cpu"] | written["cpu"]] / 1e6)
    return stats


def percentiles(values: NDArray[Any], prefix: str = "", suffix: str = "") -> dict[str, float]:
    """The reference's percentiles of `values` (interpolated linearly); no keys where there is no value."""
    if not len(values):
        return {}
    found = np.percentile(values, list(PERCENTILES.values()))
    return {f"{prefix}{name}{suffix}": float(value) for name, value in zip(PERCENTILES, found, strict=True)}


def _latency_ms(seconds: NDArray[np.float64]) -> dict[str, float]:
    """No keys where no request was carried out."""
    values = percentiles(seconds * 1e3)
    return {"mean": float(seconds.mean() * 1e3), **values} if values else {}


def _health(stats: Mapping[str, Any], look_ups: int, memory_ms: NDArray[np.float64]) -> dict[str, Any]:
    """The criteria of the reference's latency profile; one that nothing was measured for is left out."""
    criteria: list[dict[str, Any]] = []

    def judge(name: str, target: float, actual: float, unit: str, passed: bool) -> None:
        criteria.append({"name": name, "target": target, "actual": actual, "unit": unit, "passed": passed})

    for name, target in (("Write", _WRITE_TARGET_MS), ("Read", _READ_TARGET_MS)):
        p95_ms = stats.get(f"storage_{name.lower()}_device_p95_ms")
        if p95_ms is not None:
            judge(f"Storage Tier {name} Device P95 < {target}ms", target, p95_ms, "ms", p95_ms < target)
    if len(memory_ms):
        p95_ms = float(np.percentile(memory_ms, 95))
        judge(f"CPU RAM P95 < {_MEMORY_TARGET_MS}ms", _MEMORY_TARGET_MS, p95_ms, "ms", p95_ms < _MEMORY_TARGET_MS)
    if look_ups:
        rate = stats["cache_hit_rate"]
        judge("Cache Hit Rate > 30%", _HIT_RATE_TARGET, rate, "ratio", rate > _HIT_RATE_TARGET)
    passed = sum(criterion["passed"] for criterion in criteria)
    return {
        "overall_status": "PASS" if passed == len(criteria) else "FAIL",
        "criteria": criteria,
        "passed_count": passed,
        "total_count": len(criteria),
    }


def _qos_metrics(qos: NDArray[Any], latencies_ms: NDArray[np.float64]) -> dict[str, Any]:
    return {
        name: _qos_class(latencies_ms[qos == code], QOS_TARGETS_P95_MS[name]) for code, name in enumerate(QOS_CLASSES)
    }


def _qos_class(latencies_ms: NDArray[np.float64], target_ms: float) -> dict[str, Any]:
    """A class without a request keeps its keys, with null for what cannot be said."""
    some = len(latencies_ms) > 0
    names: Sequence[str] = ("p50", "p95", "p99")
    found = percentiles(latencies_ms)
    compliance = float((latencies_ms <= target_ms).mean()) if some else None
    return {
        "total_requests": len(latencies_ms),
        "latency_ms": {
            "mean": float(latencies_ms.mean()) if some else None,
            **{name: found.get(name) for name in names},
            "max": float(latencies_ms.max()) if some else None,
        },
        "sla": {
            "target_p95_ms": target_ms,
            "actual_p95_ms": found.get("p95"),
            "compliance": compliance,
            "met": None if compliance is None else compliance >= _COMPLIANT,
        },
    }
