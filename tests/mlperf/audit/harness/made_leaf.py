"""Trees in the form of v3.0 as published, made from nothing and honest in every figure, for tests to make dishonest."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

SUBMITTER, SYSTEM, STAMP = "acme", "big-box", "20260701_100000"
HASH = "0123456789abcdef0123456789abcdef"
SHA = "0123456789abcdef0123456789abcdef01234567"
_BEGAN = datetime(2026, 7, 1, 10, 0, 5)
OPTIONS = {1: ("llama3.1-8b", 200, 0, 16), 2: ("llama3.1-8b", 100, 4, 16), 3: ("llama3.1-70b-instruct", 70, 0, 4)}


@dataclass(frozen=True)
class Honest:
    """What an honest run may be like."""

    division: str = "closed"
    hosts: int = 2
    per_host: int = 2
    read_gib_per_s: float = 4.0
    """Of a rank; likewise below."""
    written: int = 600
    """Entries in a trial."""
    timed: int = 150
    """Those of option 2 that go to storage directly."""
    entry_gib: float = 0.5
    fsync_ms: float = 40.0
    longest_s: float = 200.0
    start_up_s: float = 12.0
    delay_s: float = 92.0
    memory_share: float = 0.5
    """Of what the ranks of a host write in a trial."""
    network_margin: float = 2.0
    location: str = "remote"

    @property
    def ranks(self) -> int:
        return self.hosts * self.per_host

    @property
    def memory_gib(self) -> float:
        return self.written * self.entry_gib * self.per_host * self.memory_share

    @property
    def gbit_per_s(self) -> float:
        most = max(self.read_gib_per_s, self.written * self.entry_gib / 300)
        return most * self.per_host * self.network_margin * 8 * 2**30 / 1e9


HONEST = st.builds(
    Honest,
    division=st.sampled_from(["closed", "open"]),
    hosts=st.integers(1, 3),
    per_host=st.integers(1, 2),
    read_gib_per_s=st.floats(0.5, 50),
    written=st.integers(300, 5000),
    timed=st.integers(100, 300),
    entry_gib=st.floats(0.1, 3),
    fsync_ms=st.floats(5, 2000),
    longest_s=st.floats(1, 299),
    start_up_s=st.integers(2, 50).map(float),
    delay_s=st.integers(90, 120).map(float),
    memory_share=st.floats(0.01, 0.9),
    network_margin=st.floats(1.1, 10),
    location=st.sampled_from(["remote", "remote_and_local"]),
)


@dataclass
class Made:
    """A tree on disk."""

    root: Path
    plan: Honest

    @property
    def submitter(self) -> Path:
        return self.root / self.plan.division / SUBMITTER

    @property
    def description(self) -> Path:
        return self.submitter / "systems" / f"{SYSTEM}.yaml"

    @property
    def runs(self) -> Path:
        return self.submitter / "results" / SYSTEM / "kv_cache" / "llama3.1-8b" / "run"

    @property
    def leaf(self) -> Path:
        return self.runs / STAMP

    @property
    def metadata(self) -> Path:
        return self.leaf / f"kv_cache_{STAMP}_metadata.json"

    @property
    def summary(self) -> Path:
        return self.leaf / "summary.json"

    @property
    def image(self) -> Path:
        return self.root / SUBMITTER / f"code-{HASH[:8]}" / ".code-hash.json"

    def results(self, option: int, trial: int | str = "*") -> list[Path]:
        return sorted(self.leaf.glob(f"option_{option}/trial_{trial}/rank_*/kvcache_results_*.json"))

    def edit_summary(self, option: int, **values: Any) -> None:
        edit(self.summary, lambda summary: summary["options"][str(option)].update(values))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the JSON in `path`; `change` alters what it is given."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def describe(made: Made, change: Callable[[Any], Any]) -> None:
    """Change the system description."""
    content = yaml.safe_load(made.description.read_text())
    change(content["system_under_test"])
    made.description.write_text(json.dumps(content))


def make(folder: Path, plan: Honest) -> Made:
    """An honest tree of one run in `folder`."""
    made = Made(folder / SUBMITTER, plan)
    now, commands = _BEGAN, []
    for option in OPTIONS:
        for trial in range(3):
            place = made.leaf / f"option_{option}" / f"trial_{trial}"
            for rank in range(plan.ranks):
                path = place / f"rank_{rank}" / f"kvcache_results_{now:%Y%m%d_%H%M%S}.json"
                _write(path, _result(plan, option, rank))
            commands.append({"command": _command(made, option, trial), "stdout": "x", "stderr": "x"})
            now += timedelta(seconds=300 + plan.start_up_s)
        now += timedelta(seconds=plan.delay_s)
    _write(made.summary, _summary(plan))
    _write(made.metadata, _metadata(plan, commands))
    (made.leaf / ".mlps-code-image").write_text(f"md5-tree-v2:{HASH}")
    _write(
        made.image, {"hash": HASH, "algorithm": "md5-tree-v2", "captured_at": "2026-07-01T07:00:00Z", "git_sha": SHA}
    )
    (made.root / SUBMITTER / ".mlps-image-pool").write_text("mlpstorage_version=3.0.46\n")
    made.description.parent.mkdir(parents=True)
    made.description.write_text(json.dumps({"system_under_test": _description(plan)}))
    return made


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _command(made: Made, option: int, trial: int) -> str:
    plan = made.plan
    model, users, cpu, allocs = OPTIONS[option]
    hosts = ",".join(f"n{host}:{plan.per_host}" for host in range(plan.hosts))
    return (
        f"mpirun -n {plan.ranks} -host {hosts} --npernode {plan.per_host} --map-by node /x/python /x/mlperf_wrapper.py "
        f"--rank-output-base /r/option_{option}/trial_{trial} --rank-cache-base /c --seed-base 42 --model {model} "
        f"--num-users {users} --duration 300 --gpu-mem-gb 0 --cpu-mem-gb {cpu} --max-concurrent-allocs {allocs} "
        "--generation-mode none"
    )


def _spread(median: float) -> dict[str, float]:
    """Percentiles of many values, which lie on no line."""
    return {"p50": median, "p95": median * 2, "p99": median * 3, "p999": median * 5, "p9999": median * 9}


def _result(plan: Honest, option: int, rank: int) -> dict[str, Any]:
    direct = plan.timed if option == 2 else plan.written
    written, read = plan.written * plan.entry_gib, plan.read_gib_per_s * 300
    stats: dict[str, Any] = {
        "storage_entries": plan.written,
        "prefill_writes": plan.written,
        "offloads_cpu": plan.written - direct,
        "offloads_storage": plan.written,
        "decode_reads": 4 * plan.written,
        "tier_cpu_kv_bytes_read_gb": 100.0 if option == 2 else 0.0,
        "tier_storage_kv_bytes_read_gb": read,
        "tier_storage_kv_bytes_written_gb": written,
        "tier_storage_read_bandwidth_gbps": read / 300,
        "tier_storage_write_bandwidth_gbps": written / 300,
    }
    spans = {
        "storage_read_device": 50.0,
        "storage_write_device": plan.fsync_ms,
        "storage_write": plan.fsync_ms + 10,
    }
    for name, median in spans.items():
        stats |= {f"{name}_{place}_ms": value for place, value in _spread(median).items()}
    return {
        "seed": 42 + rank,
        "summary": {
            "total_requests": 1000,
            "total_tokens": 1000,
            "elapsed_time": 300.0,
            "end_to_end_latency_ms": _spread(plan.longest_s * 1e3 / 20),
            "qos_metrics": {
                "interactive": {"latency_ms": {"max": plan.longest_s * 1e3}},
                "batch": {"total_requests": 0},
            },
            "cache_stats": stats,
        },
    }


def _summary(plan: Honest) -> dict[str, Any]:
    written = plan.written * plan.entry_gib
    option = {
        "aggregated_read_bandwidth_gbps": plan.read_gib_per_s * plan.ranks,
        "aggregated_write_bandwidth_gbps": written * plan.ranks / 300,
        "aggregated_avg_throughput_tokens_per_sec": 10.0,
        "aggregated_storage_throughput_tokens_per_sec": 10.0,
        "aggregated_p95_latency_ms": plan.longest_s * 500,
        "rank_count": plan.ranks,
        "trial_count": 3,
        "partial_failure": False,
        "missing_files": [],
        "cpu_tier_ranks": [],
    }
    return {
        "schema_version": "1.0",
        "run_datetime": STAMP,
        "npernode": plan.per_host,
        "host_count": plan.hosts,
        "total_ranks": plan.ranks,
        "trials_per_option": 3,
        "options": {str(number): {"option": number, **option} for number in OPTIONS},
        "partial_failure": False,
        "trial_failures": {},
    }


def _metadata(plan: Honest, commands: list[Any]) -> dict[str, Any]:
    memory = plan.memory_gib * 2**30
    hosts = [
        {
            "hostname": f"n{host}",
            "memory": {"total": int(memory) + host * 4096},
            "cpu": {"num_cores": 64, "model": "Imaginary 9000"},
            "system": {"kernel_version": "6.1.0"},
        }
        for host in range(plan.hosts)
    ]
    totals = [host["memory"]["total"] for host in hosts]  # type: ignore[index]  # of a mapping of many kinds
    return {
        "run_datetime": STAMP,
        "system_info": {
            "min_memory_bytes": min(totals),
            "max_memory_bytes": max(totals),
            "total_memory_bytes": sum(totals),
            "num_hosts": plan.hosts,
            "hosts": hosts,
        },
        "command_output_files": commands,
        "args": {
            "hosts": [f"n{host}" for host in range(plan.hosts)],
            "inter_option_delay": 90,
            "mpi_params": None,
            "duration": 60,
            "_validated_pool_hash": HASH,
        },
    }


def _description(plan: Honest) -> dict[str, Any]:
    network = [
        {"type": "ethernet", "speed": 1, "state": "up", "unit_count": 1, "traffic": ["management"]},
        {"type": "infiniband", "speed": plan.gbit_per_s, "state": "up", "unit_count": 1, "traffic": ["data"]},
        {"type": "infiniband", "state": "down", "unit_count": 4},
    ]
    drives = [{"interface": "nvme", "capacity_in_GB": 7680, "unit_count": 64}]
    machine = {
        "chassis": {"memory_capacity": plan.memory_gib, "cpu_cores": 64},
        "networking": network,
        "drives": drives,
        "quantity": plan.hosts,
    }
    return {
        "clients": [machine],
        "product_nodes": [machine],
        "solution": {"architecture": {"storage_location": plan.location}},
    }
