"""Trees of the form in which v3.0 was published, made from those of before: small, complete, and consistent.

A leaf holds the metadata of `mlpstorage` with its commands and its unused defaults, a pointer to an image of the code
in the pool of its submitter, and a summary.json with the percentile of whole requests.
"""

import hashlib
import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from made_tree import SHA, STAMP, Made, Plan, edit, make_tree, write_json

from kvbench.mlperf.option_table import OPTIONS, wanted_settings

MODEL: Final = "llama3.1-8b"
CACHE: Final = "/mnt/cache/kvcache"
RESULTS: Final = "/mnt/results"
_SOURCE: Final = {"kv_cache_benchmark/config.yaml": "users: 100\n", "main.py": "print('hello')\n"}
_LEFT_OUT: Final = {"tests/test_main.py": "assert True\n", "a/__pycache__/x.pyc": "no"}


@dataclass
class Published(Made):
    """A tree of that form."""

    @property
    def run(self) -> Path:
        return self.system / "kv_cache" / MODEL / "run" / STAMP

    @property
    def summary(self) -> Path:
        return self.run / "summary.json"

    @property
    def metadata(self) -> Path:
        return self.run / f"kv_cache_{STAMP}_metadata.json"

    @property
    def pointer(self) -> Path:
        return self.run / ".mlps-code-image"

    @property
    def pool(self) -> Path:
        return self.root / self.plan.submitter

    @property
    def a_result(self) -> Path:
        """Of rank 0, in a trial of option 3."""
        return next((self.run / "option_3" / "trial_1" / "rank_0").glob("kvcache_results_*.json"))

    @property
    def code(self) -> Path:
        """The image."""
        return self.pool / f"code-{source_hash()[:8]}"


@dataclass
class RealLeaf(Published):
    """A copy of a published package of one leaf."""

    @property
    def run(self) -> Path:
        return self.summary.parent

    @property
    def summary(self) -> Path:
        return next(self.system.rglob("summary.json"))

    @property
    def metadata(self) -> Path:
        return next(self.system.rglob("kv_cache_*_metadata.json"))

    @property
    def code(self) -> Path:
        return next(self.pool.glob("code-*"))


def source_hash() -> str:
    """`md5-tree-v2` of the source that is put into the image."""
    return hashlib.md5(b"".join(f"{name}{_SOURCE[name]}".encode() for name in sorted(_SOURCE))).hexdigest()


def make_published(folder: Path, plan: Plan) -> Published:
    """A clean tree of one submitter, in `folder`."""
    old = make_tree(folder, Plan(**{**vars(plan), "first_trial": 0}))
    made = Published(old.root, plan)
    old.sequence.unlink()
    shutil.rmtree(old.code)
    made.run.parent.mkdir(parents=True)
    old.run.rename(made.run)
    for path in made.run.rglob("kvbench_run.h5"):
        path.unlink()
    for path in made.run.rglob("kvcache_results_*.json"):
        edit(path, lambda result: result.pop("kvbench"))
    summary = made.run / f"kvcache_run_summary_{STAMP}.json"
    edit(summary, lambda content: _as_published(content, made.run))
    summary.rename(made.summary)
    write_json(made.metadata, _metadata(plan))
    made.pointer.write_text(f"md5-tree-v2:{source_hash()}", encoding="utf-8")
    _make_image(made.code)
    (made.pool / ".mlps-image-pool").write_text(
        "mlpstorage_version=3.0.46\nmigration_completed_at=2026-01-02T03:04:05Z\n", encoding="utf-8"
    )
    return made


def edit_commands(made: Published, old: str, new: str, *, option: int | None = None, trial: int | None = None) -> None:
    """Put `new` in place of `old` in the commands of an option and a trial, or of all; it has to be there."""
    changed = 0

    def change(content: Any) -> None:
        nonlocal changed
        for entry in content["command_output_files"]:
            place = f"/option_{option}/" if option is not None else "/option_"
            if place not in entry["command"] or (trial is not None and f"/trial_{trial} " not in entry["command"]):
                continue
            changed += old in entry["command"]
            entry["command"] = entry["command"].replace(old, new)

    edit(made.metadata, change)
    assert changed, old


def with_parameters(made: Published) -> None:
    """As later tools write metadata: the settings of the options as well."""
    options = {
        str(option): dict(zip(_NAMES, wanted_settings(option).as_dict().values(), strict=True)) for option in OPTIONS
    }
    sequence = {"seed": 42, "trials": 3, "inter_option_delay_s": 90, "config": "default"}
    edit(made.metadata, lambda m: m["parameters"].update(options=options, sequence=sequence, features={}))


_NAMES: Final = (
    "model",
    "num_users",
    "duration",
    "gpu_mem_gb",
    "cpu_mem_gb",
    "max_concurrent_allocs",
    "generation_mode",
)


def _as_published(summary: Any, run: Path) -> None:
    summary |= {"trial_failures": {}}
    del summary["kvbench"]
    for option, entry in summary["options"].items():
        results = [json.loads(path.read_text("utf-8")) for path in (run / f"option_{option}").rglob("kvcache_results*")]
        entry["aggregated_p95_latency_ms"] = max(r["summary"]["storage_io_latency_ms"]["p95"] for r in results)
        for direction in ("read", "write"):
            del entry[f"aggregated_device_{direction}_p95_ms"]


def _metadata(plan: Plan) -> dict[str, Any]:
    unused = {"num_users": 100, "duration": 60, "gpu_mem_gb": 16.0, "cpu_mem_gb": 32.0, "generation_mode": "realistic"}
    leaf = f"{RESULTS}/{plan.division}/{plan.submitter}/results/{plan.system}/kv_cache/{MODEL}/run/{STAMP}"
    per_node = plan.ranks // len(plan.hosts)
    hosts = ",".join(f"{host}:{per_node}" for host in plan.hosts)
    commands = []
    for option in OPTIONS:
        settings = zip(_NAMES, wanted_settings(option).as_dict().values(), strict=True)
        words = [word for name, value in settings for word in (f"--{name.replace('_', '-')}", f"{value}")]
        for trial in range(3):
            command = [
                *("mpirun", "-n", f"{plan.ranks}", "-host", hosts, "--npernode", f"{per_node}", "/opt/python3"),
                *("/opt/kv_cache_benchmark/mlperf_wrapper.py", "--rank-output-base"),
                *(f"{leaf}/option_{option}/trial_{trial}", "--rank-cache-base", CACHE, "--seed-base", "42"),
                *("--config", "/opt/kv_cache_benchmark/config.yaml", *words),
            ]
            commands.append({"command": shlex.join(command), "stdout": "x.log", "stderr": "y.log"})
    return {
        "benchmark_type": "kv_cache",
        "model": MODEL,
        "command": "run",
        "run_datetime": STAMP,
        "num_processes": None,
        "result_dir": leaf,
        "parameters": {"model": MODEL, **unused},
        "system_info": {"hosts": [_host(host) for host in plan.hosts]},
        "command_output_files": commands,
        "executed_command": commands[-1]["command"],
        "args": {
            **unused,
            "mode": plan.division,
            "cache_dir": CACHE,
            "results_dir": RESULTS,
            "systemname": plan.system,
            "orgname": plan.submitter,
            "config_file": None,
            "num_processes": None,
            "hosts": list(plan.hosts),
            "mpi_params": None,
            "npernode": 1,
            "enable_rag": True,
            "enable_autoscaling": True,
            "seed": 42,
            "trials": 3,
            "inter_option_delay": 90,
            "_validated_pool_hash": source_hash(),
        },
        **unused,
    }


def _host(name: str) -> dict[str, Any]:
    return {
        "hostname": name,
        "memory": {"total": 2**36},
        "cpu": {"num_cores": 16, "model": "Imaginary 9000"},
        "system": {"kernel_version": "6.1.0", "os_release": {"PRETTY_NAME": "Imaginary Linux 1"}},
    }


def _make_image(image: Path) -> None:
    for name, text in (_SOURCE | _LEFT_OUT).items():
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        (image / name).write_text(text, encoding="utf-8")
    write_json(
        image / ".code-hash.json",
        {
            "hash": source_hash(),
            "algorithm": "md5-tree-v2",
            "captured_at": "2026-01-02T03:04:05Z",
            "mlpstorage_version": "3.0.46",
            "git_sha": SHA,
        },
    )


def dress(made: Published) -> None:
    """Put everything that later tools write beside a leaf: its stamp, the manifest, and tables of results."""
    with_parameters(made)
    parameters = json.loads(made.metadata.read_text(encoding="utf-8"))["parameters"]
    values = {f"options.{o}.{name}": value for o, each in parameters["options"].items() for name, value in each.items()}
    values |= {"sequence.seed": 42, "sequence.config": "default"}
    plain = {key: int(value) if isinstance(value, float) else value for key, value in values.items()}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
    stamp = {
        "schema": "mlps-run-provenance/1",
        "rules_edition": "3.0",
        "layout_version": 3,
        "tool": {"name": "mlpstorage", "version": "3.1.0", "code_image": f"md5-tree-v2:{source_hash()}"},
        "dlio": {"version": "3.0.4", "commit": "edaf4bb3d6343ef2fb6b9f6dbafa6102032ae8bf"},
        "core_config": {"algorithm": "core-config-v1", "hash": digest, "keys": sorted(values)},
    }
    write_json(made.run / "provenance.json", stamp)
    edit(made.metadata, lambda content: content.update(provenance_file="provenance.json"))
    leaf = made.run.relative_to(made.submitter).as_posix()
    manifest = {"schema": "mlps-submission-manifest/1", "rules_edition": "3.0", "runs": [{"leaf": leaf}]}
    # JSON is YAML.
    write_json(made.submitter / "submission.yaml", manifest)
    rows = [{"Public ID": "3.0-0042", "model": MODEL}, {"Public ID": "", "model": MODEL}]
    for folder in (made.submitter / "results", made.system / "kv_cache" / MODEL / "run"):
        write_json(folder / "results.json", rows)
        (folder / "results.csv").write_text("Public ID\n3.0-0042\n", encoding="utf-8")
