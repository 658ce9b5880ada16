"""Run files whose content is known: rows are made here, written with RunFileWriter, and kept to be compared with.

`synthetic_run(rng)` gives a run of several ranks with every kind of row that a summary has to tell apart: two tiers,
warm-up rows, failed and canceled ones, and operations that cross the edges of the measured window.
"""

import errno
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import kvbench
from kvbench.records.file import RunFileWriter
from kvbench.records.schema import (
    RECORD_DTYPE,
    REQUEST_DTYPE,
    RESIDENT_UNKNOWN,
    Op,
    Path,
    Phase,
    RequestState,
    TimedBy,
)

MEMORY, STORAGE = 0, 1
START_NS: Final = 5_000_000_000
END_NS: Final = 15_000_000_000
BYTES_PER_TOKEN: Final = 131_072

_NUMBERS: Final = itertools.count()

Columns = Mapping[str, NDArray[Any] | Sequence[str]]
Attributes = Mapping[str, str | int | float]


@dataclass(frozen=True)
class SyntheticRun:
    """The content of a run file. `records` and `requests` hold the ranks one after the other."""

    records: NDArray[Any]
    requests: NDArray[Any]
    attributes: dict[str, str | int | float]
    tables: dict[str, Columns] = field(default_factory=dict)

    def changed(self, *, attributes: Attributes = {}, tables: Mapping[str, Columns | None] = {}) -> "SyntheticRun":  # noqa: B006
        """A copy with other attributes and tables; a table given as None is left out."""
        kept = {**self.tables, **tables}
        return replace(
            self,
            attributes={**self.attributes, **attributes},
            tables={name: table for name, table in kept.items() if table is not None},
        )

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> FilePath:
        """Write the run file and return its path."""
        with RunFileWriter(path, overwrite=overwrite) as writer:
            writer.append_records(self.records)
            writer.append_requests(self.requests)
            for name, columns in self.tables.items():
                writer.write_table(name, columns)
            writer.set_attributes(self.attributes)
            return writer.finish()


def record_rows(
    rng: np.random.Generator,
    count: int,
    *,
    rank: int = 0,
    op: Op = Op.READ,
    tier: int = STORAGE,
    path: Path = Path.BUFFERED,
    phase: Phase = Phase.MEASURE,
    tokens: int | None = None,
    errno_code: int = 0,
    start_ns: int = START_NS,
    end_ns: int = END_NS - 100_000_000,
) -> NDArray[Any]:
    """`count` rows that start between `start_ns` and `end_ns`, of 1 to 64 tokens each, for which the sum rule holds."""
    rows = np.zeros(count, RECORD_DTYPE)
    rows["t_start_ns"] = np.sort(rng.integers(start_ns, end_ns, count))
    rows["host_ns"] = rng.lognormal(11, 0.5, count)
    rows["runq_ns"] = rng.lognormal(7, 1, count)
    rows["device_ns"] = 0 if tier == MEMORY else rng.lognormal(13, 1, count)
    rows["wall_ns"] = rows["device_ns"] + rows["host_ns"] + rows["runq_ns"]
    rows["copy_ns"] = rows["host_ns"] // 2 if path == Path.COPY else 0
    rows["span_ns"] = rows["wall_ns"]
    rows["tokens"] = rng.integers(1, 65, count) if tokens is None else tokens
    rows["nbytes"] = rows["tokens"].astype(np.int64) * BYTES_PER_TOKEN
    rows["queue_ns"] = rng.lognormal(9, 1, count)
    rows["errno"] = errno_code
    rows["minor_faults"] = rng.integers(0, 5, count)
    rows["user"] = rng.integers(0, 20, count)
    rows["request"] = np.arange(count) // 4
    rows["rank"] = rank
    rows["thread"] = rng.integers(0, 16, count)
    rows["inflight"] = rng.integers(1, 17, count)
    rows["op"], rows["tier"], rows["phase"], rows["path"] = op, tier, phase, path
    rows["timed_by"] = TimedBy.PYTHON if path in (Path.DOUBLE_COPY, Path.NUMPY) else TimedBy.EXTENSION
    rows["resident_pct"] = 0 if tier == STORAGE and op == Op.READ else RESIDENT_UNKNOWN
    return rows


def request_rows(
    rng: np.random.Generator,
    count: int,
    *,
    rank: int = 0,
    phase: Phase = Phase.MEASURE,
    state: RequestState = RequestState.DONE,
    start_ns: int = START_NS,
    end_ns: int = END_NS - 1_000_000_000,
) -> NDArray[Any]:
    """`count` requests that are meant to start between `start_ns` and `end_ns`."""
    rows = np.zeros(count, REQUEST_DTYPE)
    rows["intended_ns"] = np.sort(rng.integers(start_ns, end_ns, count))
    rows["start_ns"] = rows["intended_ns"] + rng.integers(0, 1_000_000, count)
    rows["end_ns"] = rows["start_ns"] + rng.integers(1_000_000, 100_000_000, count)
    rows["storage_ns"] = (rows["end_ns"] - rows["start_ns"]) // 2
    rows["request"] = np.arange(count)
    rows["user"] = rng.integers(0, 20, count)
    rows["rank"] = rank
    rows["context_tokens"] = rng.integers(100, 5000, count)
    rows["output_tokens"] = rng.integers(10, 500, count)
    rows["hit_objects"] = rng.integers(0, 5, count)
    rows["miss_objects"] = rng.integers(0, 3, count)
    rows["hit_tokens"] = rows["hit_objects"] * 512
    rows["miss_tokens"] = rows["miss_objects"] * 300
    rows["operations"] = 4
    rows["qos"] = rng.choice(3, count, p=[0.15, 0.35, 0.5])
    rows["phase"], rows["state"] = phase, state
    return rows


def run_attributes(ranks: int, nodes: int, **changes: str | int | float) -> dict[str, str | int | float]:
    """Every attribute of a complete run, which is another one each time."""
    attributes: dict[str, str | int | float] = {
        "kvbench_version": kvbench.__version__,
        "run_id": f"synthetic-{next(_NUMBERS)}",
        "status": "complete",
        "status_message": "",
        "config_json": json.dumps(
            {
                "name": "synthetic",
                "seed": 42,
                "io": {"drop_page_cache": True},
                "workload": {"kind": "trace", "serving": "engine"},
                "pacing": {"mode": "open"},
            }
        ),
        "fingerprint": "0123456789abcdef",
        "timer": "extension",
        "ranks": ranks,
        "nodes": nodes,
        "started_at": "2026-01-02T03:04:05Z",
        "tiers_json": json.dumps(
            [
                {"name": "memory", "kind": "memory", "capacity_bytes": 2**30},
                {"name": "storage", "kind": "file", "capacity_bytes": 2**36},
            ]
        ),
        "payload": "stamped",
        "verify": "sampled",
        "read_path": "buffered",
        "write_path": "buffered",
        "arena_bytes": 2**28,
        "decision_order": "schedule",
        "measure_start_ns": START_NS,
        "measure_end_ns": END_NS,
        "clock_uncertainty_ns": 20_000,
        "bytes_per_token": BYTES_PER_TOKEN,
        "model": "llama3.1-8b",
        "qos_classes_json": json.dumps(["interactive", "responsive", "batch"]),
        "python": "3.11.0",
        "numpy": "2.0.0",
        "mpi": "none",
        "platform": "Linux",
    }
    return attributes | changes


def run_tables(records: NDArray[Any], requests: NDArray[Any], ranks: int, nodes: int) -> dict[str, Columns]:
    """/ranks, /nodes, /calibration and /samples for rows that hold the ranks one after the other."""
    rank = np.arange(ranks)
    node = rank * nodes // ranks
    rows = np.bincount(records["rank"], minlength=ranks)
    asked = np.bincount(requests["rank"], minlength=ranks)
    hosts = [f"client{number}" for number in range(nodes)]
    second = np.arange(START_NS, END_NS, 1_000_000_000)
    samples = len(second) * nodes
    return {
        "ranks": {
            "rank": rank,
            "node": node,
            "host": [hosts[number] for number in node],
            "pid": 1000 + rank,
            "first_row": np.cumsum(rows) - rows,
            "rows": rows,
            "first_request": np.cumsum(asked) - asked,
            "requests": asked,
            "arena_bytes": np.full(ranks, 2**28),
            "clock_offset_ns": rank * 1000,
            "clock_drift_ns": np.zeros(ranks, np.int64),
            "peak_rss_bytes": np.full(ranks, 2**29),
            "predicted_peak_bytes": np.full(ranks, 2**29),
            "storage_capacity_bytes": np.full(ranks, 2**36),
            "canceled_ops": np.zeros(ranks, np.int64),
            "failed_ops": np.zeros(ranks, np.int64),
            "verified_sectors": np.full(ranks, 1000),
            "too_large_objects": np.zeros(ranks, np.int64),
            "waiting_requests": np.full(ranks, 3),
            "waiting_tokens": np.full(ranks, 700),
        },
        "nodes": {
            "node": np.arange(nodes),
            "host": hosts,
            "cpus": np.full(nodes, 16),
            "memory_bytes": np.full(nodes, 2**36),
            "llc_bytes": np.full(nodes, 2**25),
            "kernel": ["6.1.0"] * nodes,
            "filesystem": ["ext4"] * nodes,
            "filesystem_group": np.arange(nodes),
        },
        "calibration": {
            "rank": np.tile(rank, 2),
            "node": np.tile(node, 2),
            "kind": ["memcpy"] * ranks + ["storage-read"] * ranks,
            "mode": ["alone"] * (2 * ranks),
            "gib_per_s": np.full(2 * ranks, 5.0),
        },
        "samples": {
            "node": np.repeat(np.arange(nodes), len(second)),
            "t_ns": np.tile(second, nodes),
            "cpu_user_pct": np.full(samples, 20.0),
            "cpu_system_pct": np.full(samples, 30.0),
            "cpu_steal_pct": np.full(samples, 0.2),
            "memory_available_bytes": np.full(samples, 2**35),
        },
    }


def synthetic_run(rng: np.random.Generator, *, ranks: int = 4, nodes: int = 2, operations: int = 1200) -> SyntheticRun:
    """A run in which each rank has `operations` storage reads, half as many writes, and a few of everything else."""
    records, requests = [], []
    for rank in range(ranks):
        few = max(operations // 50, 1)
        records += [
            record_rows(rng, few, rank=rank, phase=Phase.PRECONDITION, op=Op.WRITE, start_ns=0, end_ns=10**9),
            record_rows(rng, few, rank=rank, phase=Phase.WARMUP, start_ns=10**9, end_ns=START_NS),
            # Begun just before the window, and ended just after it.
            record_rows(rng, 2, rank=rank, start_ns=START_NS - 10_000, end_ns=START_NS),
            record_rows(rng, operations, rank=rank),
            record_rows(rng, 2, rank=rank, start_ns=END_NS - 10_000, end_ns=END_NS),
            record_rows(rng, operations // 2, rank=rank, op=Op.WRITE),
            record_rows(rng, operations // 4, rank=rank, op=Op.DEMOTE),
            record_rows(rng, operations // 2, rank=rank, tier=MEMORY, path=Path.COPY),
            record_rows(rng, few, rank=rank, op=Op.DELETE, path=Path.NONE, tokens=0),
            record_rows(rng, 1, rank=rank, op=Op.READ, errno_code=errno.EIO),
            record_rows(rng, 3, rank=rank, op=Op.READ, errno_code=errno.ECANCELED),
        ]
        requests += [
            request_rows(rng, few, rank=rank, phase=Phase.WARMUP, start_ns=10**9, end_ns=START_NS - 10**9),
            request_rows(rng, max(operations // 4, 1), rank=rank),
            request_rows(rng, 2, rank=rank, start_ns=END_NS - 2_000_000, end_ns=END_NS - 1_500_000),
            request_rows(rng, 3, rank=rank, state=RequestState.CUT_SHORT),
        ]
    rows, asked = np.concatenate(records), np.concatenate(requests)
    return SyntheticRun(rows, asked, run_attributes(ranks, nodes), run_tables(rows, asked, ranks, nodes))


def empty_run() -> SyntheticRun:
    """A run that recorded nothing."""
    return SyntheticRun(np.empty(0, RECORD_DTYPE), np.empty(0, REQUEST_DTYPE), run_attributes(1, 1))
