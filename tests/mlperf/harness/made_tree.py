"""Submission trees made from nothing: small, complete and in every figure consistent, for the tests to break.

Ranks' results and run files are made of the same synthetic rows, and the summary of the results, by code that shares
nothing with the checker's.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from synthetic import SyntheticRun, record_rows, request_rows, run_attributes, run_tables

import kvbench
from kvbench.mlperf.option_table import OPTIONS, option_preset, wanted_settings
from kvbench.records.schema import Op

STAMP: Final = "20260102_030405"
STORAGE: Final = 1
RECORDED: Final = {(1, 1)}
"""(option, trial) that keep a run file, in a tree of kvbench's own: one is enough, and quicker."""
SHA: Final = "0123456789abcdef0123456789abcdef01234567"
_START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Plan:
    """What is made."""

    division: str = "closed"
    submitter: str = "acme"
    system: str = "big-box"
    ranks: int = 2
    hosts: tuple[str, ...] = ("node-a",)
    filesystem: str = "ext4"
    delay_s: int = 90
    first_trial: int = 1
    rehearsal: bool = False


@dataclass
class Made:
    """A tree on disk; mutations of it move `root` where they rename it."""

    root: Path
    plan: Plan

    @property
    def submitter(self) -> Path:
        return self.root / self.plan.division / self.plan.submitter

    @property
    def system(self) -> Path:
        return self.submitter / "results" / self.plan.system

    @property
    def run(self) -> Path:
        return self.system / "kv_cache" / STAMP

    @property
    def sequence(self) -> Path:
        return self.run / "kvbench_sequence.json"

    @property
    def summary(self) -> Path:
        return self.run / f"kvcache_run_summary_{STAMP}.json"

    @property
    def description(self) -> Path:
        return self.submitter / "systems" / f"{self.plan.system}.yaml"

    @property
    def code(self) -> Path:
        return (self.submitter if self.plan.division == "closed" else self.system / "kv_cache") / "code"

    def trial(self, option: int = 1, trial: int = 1) -> Path:
        return self.run / f"option_{option}" / f"trial_{trial}"

    def rank(self, option: int = 1, trial: int = 1, rank: int = 0) -> Path:
        return self.trial(option, trial) / f"rank_{rank}" / f"kvcache_results_{STAMP}.json"

    def copy(self, root: Path) -> Self:
        """The same tree below `root`, for itself."""
        shutil.copytree(self.root, root / self.root.name, symlinks=True)
        return type(self)(root / self.root.name, self.plan)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the JSON in `path`; `change` alters what it is given."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON to `path`, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def make_tree(folder: Path, plan: Plan) -> Made:
    """A clean tree of one submitter, in `folder`."""
    made = Made(folder / plan.submitter, plan)
    results: dict[int, list[list[dict[str, Any]]]] = {}
    for option in OPTIONS:
        results[option] = [_make_trial(made, option, plan.first_trial + place) for place in range(3)]
    write_json(made.sequence, _sequence(plan))
    write_json(made.summary, _summary(plan, results))
    _make_code(made.code)
    made.description.parent.mkdir()
    made.description.write_text(
        f"system: {plan.system}\nclient_software: nfs-utils 2.6.2\n" + ("rehearsal: true\n" if plan.rehearsal else ""),
        encoding="utf-8",
    )
    made.description.with_suffix(".pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    return made


def merge(folder: Path, *trees: Made) -> Path:
    """One tree of several submitters, as reviewers have it."""
    root = folder / "merged"
    for made in trees:
        for division in made.root.iterdir():
            shutil.copytree(division, root / division.name, dirs_exist_ok=True)
    (root / ".git").mkdir()
    return root


def foreign_tree(folder: Path) -> Made:
    """What the reference tool leaves: trials from 0, no sequence file, no run files, its metadata instead."""
    made = make_tree(folder, Plan(first_trial=0))
    made.sequence.unlink()
    for path in made.run.rglob("kvbench_run.h5"):
        path.unlink()
    for path in made.run.rglob("kvcache_results_*.json"):
        edit(path, lambda result: result.pop("kvbench"))
    arguments = {"seed": 42, "trials": 3, "inter_option_delay": 90, "config": None, "cache_dir": "/mnt/x"}
    write_json(made.run / f"kvcache_metadata_{STAMP}.json", {"args": arguments, "hosts": ["node-a"]})
    return made


def _rows(option: int, trial: int, rank: int) -> NDArray[Any]:
    rng = np.random.default_rng((option, trial, rank))
    reads = record_rows(rng, 30, rank=rank)
    reads["resident_pct"] = 0
    return np.concatenate([reads, record_rows(rng, 12, rank=rank, op=Op.WRITE)])


def _make_trial(made: Made, option: int, trial: int) -> list[dict[str, Any]]:
    plan = made.plan
    every = [_rows(option, trial, rank) for rank in range(plan.ranks)]
    asked = [request_rows(np.random.default_rng(rank), 5, rank=rank) for rank in range(plan.ranks)]
    results = [_result(plan, option, trial, rows, of) for rows, of in zip(every, asked, strict=True)]
    for rank, result in enumerate(results):
        write_json(made.rank(option, trial, rank), result)
    if (option, trial) in RECORDED:
        rows = np.concatenate(every)
        tables = run_tables(rows, np.concatenate(asked), plan.ranks, len(plan.hosts))
        config = option_preset(option).model_dump(mode="json")
        if plan.rehearsal:
            config["duration_s"] = 10.0
        nodes: dict[str, Any] = {
            **tables["nodes"],
            "host": list(plan.hosts),
            "cpu_model": [_NODE["cpu_model"]] * len(plan.hosts),
            "filesystem": [plan.filesystem] * len(plan.hosts),
            "memory_bytes": np.full(len(plan.hosts), _NODE["memory_bytes"]),
        }
        attributes = run_attributes(
            plan.ranks, len(plan.hosts), run_id=_run_id(option, trial), config_json=json.dumps(config)
        )
        SyntheticRun(rows, np.concatenate(asked), attributes, {**tables, "nodes": nodes}).write(
            made.trial(option, trial) / "kvbench_run.h5"
        )
    return results


_NODE: Final = {"cpus": 16, "cpu_model": "Imaginary 9000", "memory_bytes": 2**36, "kernel": "6.1.0"}


def _run_id(option: int, trial: int) -> str:
    return f"{option}{trial}abcdef"


def _result(plan: Plan, option: int, trial: int, rows: NDArray[Any], asked: NDArray[Any]) -> dict[str, Any]:
    rank = int(rows["rank"][0])
    reads, writes = rows[rows["op"] == Op.READ], rows[rows["op"] == Op.WRITE]
    elapsed = (10.0 if plan.rehearsal else 300.0) + 0.25 * rank
    tokens = int(asked["output_tokens"].sum())
    storage_time = float(rows["wall_ns"][np.isin(rows["request"], asked["request"])].sum()) / 1e9
    read_gib, write_gib = (float(part["nbytes"].sum()) / 2**30 for part in (reads, writes))
    return {
        "requests_completed": 3,
        "end_to_end_latencies": [0.5 + rank + trial, 0.25 * option, 0.125],
        "storage_latencies": [0.25 + rank, 0.125, 0.0625],
        "seed": 42 + rank,
        "summary": {
            "total_requests": 3,
            "total_tokens": tokens,
            "elapsed_time": elapsed,
            "avg_throughput_tokens_per_sec": tokens / elapsed,
            "total_storage_io_time": storage_time,
            "storage_throughput_tokens_per_sec": tokens / storage_time,
            "storage_io_latency_ms": {
                name: float(np.percentile(rows["wall_ns"] / 1e6, part))
                for name, part in (("p50", 50), ("p95", 95), ("p99", 99))
            },
            "cache_stats": {
                "storage_entries": 12,
                "decode_reads": len(reads),
                "tier_storage_kv_bytes_read_gb": read_gib,
                "tier_storage_kv_bytes_written_gb": write_gib,
                "tier_storage_read_bandwidth_gbps": read_gib / elapsed,
                "tier_storage_write_bandwidth_gbps": write_gib / elapsed,
                "storage_read_device_p95_ms": float(np.percentile(reads["span_ns"] / 1e6, 95)),
                "storage_write_device_p95_ms": float(np.percentile(writes["span_ns"] / 1e6, 95)),
            },
            "autoscaling_stats": [],
            "autoscaling_summary": None,
        },
        "kvbench": {
            "rank": rank,
            "host": plan.hosts[rank * len(plan.hosts) // plan.ranks],
            "cache_directory": f"/mnt/x/kvbench-{_run_id(option, trial)}/rank-{rank}",
            "users": wanted_settings(option).users,
            "max_concurrent_allocs": wanted_settings(option).max_concurrent_allocs,
            "rehearsal": plan.rehearsal,
        },
    }


def _sequence(plan: Plan) -> dict[str, Any]:
    options, now = [], _START
    duration = 10.0 if plan.rehearsal else 300.0
    for option in OPTIONS:
        trials = []
        for place in range(3):
            pause = float(plan.delay_s) if option > 1 and place == 0 else 0.0
            now += timedelta(seconds=pause + 2)
            started = now
            now += timedelta(seconds=duration + 3)
            trials.append(
                {
                    "trial": plan.first_trial + place,
                    "status": "complete",
                    "started_at": started.isoformat(),
                    "ended_at": now.isoformat(),
                    "run_id": _run_id(option, plan.first_trial + place),
                    "delay_before_s": pause,
                    "fingerprint": "0123456789abcdef",
                }
            )
        settings = wanted_settings(option).as_dict() | {"duration_s": duration}
        config = option_preset(option).model_dump(mode="json") | {"duration_s": duration}
        options.append({"option": option, "settings": settings, "config": config, "trials": trials})
    words = ["kvbench", "mlperf", "run", "--division", plan.division, "--system", plan.system, "--dir", "/mnt/x"]
    rehearsal = ["--rehearsal", "--trial-seconds", "10"] if plan.rehearsal else []
    cache = {"type": plan.filesystem, "device": "/dev/vdb", "mount_point": "/mnt/x", "options": "rw,relatime"}
    if plan.filesystem.startswith("nfs"):
        cache |= {"device": "filer:/export", "options": "rw,vers=4.2,rsize=1048576,wsize=1048576"}
    results = {"type": "ext4", "device": "/dev/vda", "mount_point": "/", "options": "rw"}
    return {
        "format": "kvbench-mlperf-sequence",
        "version": 1,
        "division": plan.division,
        "submitter": plan.submitter,
        "system": plan.system,
        "rehearsal": plan.rehearsal,
        "invocation": words + rehearsal,
        "kvbench_version": kvbench.__version__,
        "git_sha": SHA,
        "npernode": plan.ranks // len(plan.hosts),
        "hosts": list(plan.hosts),
        "total_ranks": plan.ranks,
        "seed": 42,
        "config_file": None,
        "autoscaling": False,
        "options": options,
        "delay_between_options_s": plan.delay_s,
        "delay_between_trials_s": 0,
        "cache_directory": "/mnt/x",
        "results_directory": "/results",
        "filesystems": [{"host": host, "cache": cache, "results": results} for host in plan.hosts],
        "nodes": [{"host": host, **_NODE} for host in plan.hosts],
        "page_cache_dropped": True,
        "cache_emptied": True,
    }


def _summary(plan: Plan, results: dict[int, list[list[dict[str, Any]]]]) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "run_datetime": STAMP,
        "npernode": plan.ranks // len(plan.hosts),
        "host_count": len(plan.hosts),
        "total_ranks": plan.ranks,
        "trials_per_option": 3,
        "options": {str(option): _option_summary(option, trials) for option, trials in results.items()},
        "partial_failure": False,
        "kvbench": {"rehearsal": plan.rehearsal},
    }


def _option_summary(option: int, trials: list[list[dict[str, Any]]]) -> dict[str, Any]:
    def values(*keys: str) -> NDArray[np.float64]:
        """Of each trial (a row) and rank (a column)."""
        rows = []
        for trial in trials:
            row = []
            for result in trial:
                value: Any = result["summary"]
                for key in keys:
                    value = value[key]
                row.append(float(value))
            rows.append(row)
        return np.array(rows)

    def total(*keys: str) -> float:
        return float(values(*keys).sum(axis=1).mean())

    return {
        "option": option,
        "aggregated_read_bandwidth_gbps": total("cache_stats", "tier_storage_read_bandwidth_gbps"),
        "aggregated_write_bandwidth_gbps": total("cache_stats", "tier_storage_write_bandwidth_gbps"),
        "aggregated_avg_throughput_tokens_per_sec": total("avg_throughput_tokens_per_sec"),
        "aggregated_storage_throughput_tokens_per_sec": total("storage_throughput_tokens_per_sec"),
        "aggregated_device_read_p95_ms": float(values("cache_stats", "storage_read_device_p95_ms").max()),
        "aggregated_device_write_p95_ms": float(values("cache_stats", "storage_write_device_p95_ms").max()),
        "rank_count": len(trials[0]),
        "trial_count": len(trials),
        "partial_failure": False,
        "missing_files": [],
        "cpu_tier_ranks": [],
    }


def _make_code(code: Path) -> None:
    sources = {"main.py": "print('hello')\n", "part/other.py": "x = 1\n"}
    left_out = {".hidden": "a", "tests/test_main.py": "assert True\n", "part/__pycache__/other.pyc": "no"}
    for name, text in (sources | left_out).items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text, encoding="utf-8")
    digest = hashlib.md5(b"".join(name.encode() + sources[name].encode() for name in sorted(sources))).hexdigest()
    write_json(
        code / ".code-hash.json",
        {
            "hash": digest,
            "algorithm": "md5-tree-v1",
            "captured_at": "2026-01-02T03:04:05Z",
            "mlpstorage_version": "3.0.0",
            "git_sha": SHA,
        },
    )
