"""kv_cache_<stamp>_metadata.json: what a sequence is, in the terms of the reference tool, for tools that read leaves.

Only what is true of the sequence stands in it: the defaults that the reference tool writes beside it are left out, and
so are commands of trials, as all trials are one job of MPI. What is not recorded is null.
"""

from collections.abc import Mapping
from datetime import datetime
from shlex import join
from typing import Any, Final

from kvbench.mlperf.tree.parts import SEQUENCE_NAME, WORKLOAD
from kvbench.mlperf.trials.sequence import COMMAND, TrialSequence

_SETTINGS: Final = {
    "model": "model",
    "users": "num_users",
    "duration_s": "duration",
    "gpu_gb": "gpu_mem_gb",
    "cpu_gb": "cpu_mem_gb",
    "max_concurrent_allocs": "max_concurrent_allocs",
    "generation": "generation_mode",
}
"""A row of the option table: the reference tool's names."""
_SHIPPED: Final = "default"


def metadata_name(sequence: TrialSequence) -> str:
    """The name of the file in the sequence's directory."""
    return f"{WORKLOAD}_{sequence.stamp}_metadata.json"


def metadata_of(sequence: TrialSequence) -> dict[str, Any]:
    """The content of the file, as far as the sequence has come."""
    told = sequence.content
    begun, ended = told["begun_at"], _last_end(told)
    return {
        "benchmark_type": WORKLOAD,
        "model": sequence.directory.parent.parent.name,
        "command": COMMAND,
        "run_datetime": sequence.stamp,
        "num_processes": told["total_ranks"],
        "accelerator": None,
        "result_dir": str(sequence.directory.absolute()),
        "parameters": {
            "options": {str(option["option"]): _settings(option["settings"]) for option in told["options"]},
            "sequence": {
                "seed": told["seed"],
                "trials": _trials(told),
                "inter_option_delay_s": told["delay_between_options_s"],
                "config": _SHIPPED,
            },
            "features": {},
        },
        "override_parameters": dict(_assignment(change) for change in told["changes"]),
        "system_info": _system(told),
        "timeseries_data": None,
        "runtime": (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if ended else None,
        "invocation_start_time": _local(begun),
        "invocation_end_time": _local(ended) if ended else None,
        "verification": None,
        "executed_command": join(told["invocation"]),
        "command_output_files": [],
        "args": {
            "mode": told["division"],
            "benchmark": WORKLOAD,
            "command": COMMAND,
            "cache_dir": told["cache_directory"],
            "results_dir": told["results_directory"],
            "systemname": told["system"],
            "orgname": told["submitter"],
            "config_file": told["config_file"],
            "exec_type": "mpi",
            "num_processes": told["total_ranks"],
            "npernode": told["npernode"],
            "hosts": told["hosts"],
            "num_client_hosts": len(told["hosts"]),
            "mpi_params": None,
            "seed": told["seed"],
            "trials": _trials(told),
            "inter_option_delay": told["delay_between_options_s"],
        },
        "kvbench": {"rehearsal": told["rehearsal"], "version": told["kvbench_version"], "sequence": SEQUENCE_NAME},
    }


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {theirs: settings[ours] for ours, theirs in _SETTINGS.items()}


def _trials(told: Mapping[str, Any]) -> int:
    return max(len(option["trials"]) for option in told["options"])


def _assignment(change: str) -> tuple[str, str]:
    key, _, value = change.partition("=")
    return key, value


def _system(told: Mapping[str, Any]) -> dict[str, Any]:
    nodes = told["nodes"]
    memory = [node["memory_bytes"] for node in nodes]
    return {
        "total_memory_bytes": sum(memory),
        "total_cores": sum(node["cpus"] for node in nodes),
        "num_hosts": len(nodes),
        "min_memory_bytes": min(memory),
        "max_memory_bytes": max(memory),
        "collection_method": "mpi",
        "collection_timestamp": told["begun_at"].replace("+00:00", "Z"),
        "hosts": [_host(node) for node in nodes],
    }


def _host(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hostname": node["host"],
        "memory": {"total": node["memory_bytes"]},
        # Processors that the kernel runs threads on; how many cores they make is not known.
        "cpu": {"num_logical_cores": node["cpus"], "model": node["cpu_model"]},
        "network": [{"interface_name": link.partition(" ")[0]} for link in node["network"]],
        "system": {"kernel_version": node["kernel"]},
    }


def _last_end(told: Mapping[str, Any]) -> str | None:
    ends = [trial["ended_at"] for option in told["options"] for trial in option["trials"] if trial.get("ended_at")]
    return max(ends, default=None)


def _local(time_utc: str) -> str:
    """As the reference tool writes it: local, without a zone."""
    return datetime.fromisoformat(time_utc).astimezone().replace(tzinfo=None).isoformat()
