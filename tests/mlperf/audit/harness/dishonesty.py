"""What can be wrong with a run though no rule is broken: each made into an honest tree, with what must be found."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from made_leaf import HASH, STAMP, SUBMITTER, Made, describe, edit

_FORM = "%Y%m%d_%H%M%S"


@dataclass(frozen=True)
class Dishonesty:
    """A change of an honest tree."""

    change: Callable[[Made], None]
    kind: str
    weight: str
    options: tuple[int, ...] = ()


def _preloading(library: str, form: str = "-x LD_PRELOAD={}") -> Callable[[Made], None]:
    def change(made: Made) -> None:
        def preload(metadata: dict[str, object]) -> None:
            outputs = metadata["command_output_files"]
            assert isinstance(outputs, list)
            for output in outputs:
                output["command"] = output["command"].replace("--map-by", f"{form.format(library)} --map-by")

        edit(made.metadata, preload)

    return change


def _preloading_by_argument(made: Made) -> None:
    edit(made.metadata, lambda m: m["args"].update(mpi_params=["-x", "LD_PRELOAD=/x/libtcmalloc.so:/x/nofadvise.so"]))


def _preloading_by_environment(made: Made) -> None:
    setting = [{"name": "LD_PRELOAD", "value": "/lib/libeatmydata.so"}]
    describe(made, lambda system: system["clients"][0].update(environment=setting))


def _late_request(made: Made) -> None:
    path = made.results(1)[0]
    edit(path, lambda result: result["summary"]["qos_metrics"]["interactive"]["latency_ms"].update(max=450e3))


def _late_request_by_percentile(made: Made) -> None:
    def change(result: dict[str, object]) -> None:
        summary = result["summary"]
        assert isinstance(summary, dict)
        del summary["qos_metrics"]
        summary["end_to_end_latency_ms"]["p9999"] = 450e3

    edit(made.results(3)[0], change)


def _late_requests_by_summary(made: Made) -> None:
    shutil.rmtree(made.leaf / "option_3")
    made.edit_summary(3, aggregated_p95_latency_ms=320e3)


def _trials_apart(made: Made) -> None:
    """Later and later, by two minutes for each trial."""
    for number in (1, 2, 3):
        for trial in range(3):
            _shift(made, number, trial, 120.0 * ((number - 1) * 3 + trial))


def _hidden_trial(made: Made) -> None:
    """The time of a trial, and start-up, between the second and the third of option 2, and before all behind them."""
    for number, trial in ((2, 2), (3, 0), (3, 1), (3, 2)):
        _shift(made, number, trial, 400.0)


def _short_delay(made: Made) -> None:
    for trial in range(3):
        _shift(made, 3, trial, 20.0 - made.plan.delay_s)


def _shift(made: Made, option: int, trial: int, seconds: float) -> None:
    for path in made.results(option, trial):
        began = datetime.strptime(path.stem.removeprefix("kvcache_results_"), _FORM) + timedelta(seconds=seconds)
        path.rename(path.with_name(f"kvcache_results_{began:{_FORM}}.json"))


def _instant_fsync(made: Made) -> None:
    for path in made.results(1):
        edit(path, lambda r: r["summary"]["cache_stats"].update(storage_write_device_p50_ms=0.008))


def _slow_network(made: Made) -> None:
    def change(system: dict[str, list[dict[str, list[dict[str, object]]]]]) -> None:
        for name in ("clients", "product_nodes"):
            for machine in system[name]:
                machine["networking"][1]["speed"] = made.plan.gbit_per_s / made.plan.network_margin / 4
                machine["drives"] = []

    describe(made, lambda system: system["solution"]["architecture"].update(storage_location="remote"))
    describe(made, change)


def _large_memory(made: Made) -> None:
    memory = int(made.plan.memory_gib / made.plan.memory_share * 2**30 * 1.5) * made.plan.hosts
    edit(made.metadata, lambda m: m["system_info"].update(total_memory_bytes=memory))


def _large_servers(made: Made) -> None:
    memory = made.plan.memory_gib / made.plan.memory_share * 1.5
    describe(made, lambda system: system["product_nodes"][0]["chassis"].update(memory_capacity=memory))


def _large_memory_kept(made: Made) -> None:
    _large_memory(made)
    _preloading("/x/libnofadvise.so")(made)


def _lost_rank(made: Made) -> None:
    for path in made.results(1, 0)[:1]:
        path.unlink()
    lost = "/r/option_1/trial_0/rank_0"
    made.edit_summary(1, partial_failure=True, missing_files=[lost])


def _failed_trial(made: Made) -> None:
    edit(made.summary, lambda summary: summary.update(trial_failures={"option_2/trial_1": "mpirun ended with 1"}))


def _twin(made: Made) -> None:
    twin = made.runs / "20260701_095959"
    twin.mkdir()
    (made.leaf / ".mlps-code-image").rename(twin / ".mlps-code-image")


def _second_run(made: Made) -> None:
    other = made.runs / "20260630_100000"
    shutil.copytree(made.leaf, other)
    (other / made.metadata.name).rename(other / made.metadata.name.replace(STAMP, other.name))


def _missing_trial(made: Made) -> None:
    shutil.rmtree(made.leaf / "option_3" / "trial_1")


def _run_twice(made: Made) -> None:
    path = made.results(1)[0]
    shutil.copy(path, path.with_name("kvcache_results_20260701_235959.json"))


def _other_code(made: Made) -> None:
    other = HASH[::-1]
    (made.leaf / ".mlps-code-image").write_text(f"md5-tree-v2:{other}")
    edit(made.metadata, lambda m: m["args"].update(_validated_pool_hash=other))


def _two_codes(made: Made) -> None:
    edit(made.metadata, lambda m: m["args"].update(_validated_pool_hash=HASH[::-1]))


def _changed_commit(made: Made) -> None:
    other = made.root / SUBMITTER / f"code-{HASH[:8:-1][:8]}" / ".code-hash.json"
    other.parent.mkdir()
    recorded = json.loads(made.image.read_text())
    other.write_text(json.dumps(recorded | {"hash": HASH[::-1]}))


def _host_with(made: Made, **values: object) -> None:
    """One more host, and it is different."""

    def change(metadata: dict[str, dict[str, object]]) -> None:
        hosts = metadata["system_info"]["hosts"]
        assert isinstance(hosts, list)
        hosts.append(json.loads(json.dumps(hosts[0])) | {"hostname": "odd"} | values)

    edit(made.metadata, change)


def _small_host(made: Made) -> None:
    edit(
        made.metadata, lambda m: m["system_info"].update(min_memory_bytes=int(m["system_info"]["max_memory_bytes"] / 2))
    )


def _fewer_hosts(made: Made) -> None:
    describe(made, lambda system: system["clients"][0].update(quantity=made.plan.hosts + 5, networking=[]))


def _few_writes(made: Made) -> None:
    for path in made.results(2):
        edit(path, lambda r: r["summary"]["cache_stats"].update(offloads_cpu=made.plan.written - 7))


def _few_writes_by_shape(made: Made) -> None:
    """Two values, without any count: all percentiles lie on the line between them."""
    line = {
        f"storage_write_device_{name}_ms": 10.0 + 300 * place
        for name, place in {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}.items()
    }

    def change(result: dict[str, dict[str, dict[str, object]]]) -> None:
        stats = result["summary"]["cache_stats"]
        del stats["prefill_writes"], stats["offloads_cpu"]
        stats.update(line)

    for path in made.results(2):
        edit(path, change)


DISHONESTIES = {
    "no drop of the page cache": Dishonesty(_preloading("/x/libnofadvise.so"), "preloaded-library", "invalidates"),
    "no fsync": Dishonesty(_preloading("libeatmydata.so"), "preloaded-library", "invalidates"),
    "another allocator": Dishonesty(_preloading("/x/libtcmalloc_minimal.so.4"), "preloaded-library", "notable"),
    "an unknown library": Dishonesty(
        _preloading("/x/libfaster.so", "-genv LD_PRELOAD {}"), "preloaded-library", "notable"
    ),
    "a library by argument": Dishonesty(_preloading_by_argument, "preloaded-library", "invalidates"),
    "a library by environment": Dishonesty(_preloading_by_environment, "preloaded-library", "invalidates"),
    "a late request": Dishonesty(_late_request, "outlived-trial", "distorts", (1,)),
    "a late request by its percentile": Dishonesty(_late_request_by_percentile, "outlived-trial", "distorts", (3,)),
    "late requests by the summary": Dishonesty(_late_requests_by_summary, "outlived-trial", "distorts", (3,)),
    "trials apart": Dishonesty(_trials_apart, "trials-apart", "notable", (2,)),
    "a hidden trial": Dishonesty(_hidden_trial, "dropped-runs", "notable", (2,)),
    "a short delay": Dishonesty(_short_delay, "delay", "distorts", (3,)),
    "an instant fsync": Dishonesty(_instant_fsync, "fsync-span", "distorts", (1,)),
    "a slow network": Dishonesty(_slow_network, "page-cache-speed", "distorts", (1,)),
    "large memory": Dishonesty(_large_memory, "working-set", "notable", (1,)),
    "large memory that is kept": Dishonesty(_large_memory_kept, "working-set", "distorts", (1,)),
    "large servers": Dishonesty(_large_servers, "working-set", "notable", (1,)),
    "a lost rank": Dishonesty(_lost_rank, "lost-ranks", "invalidates", (1,)),
    "a failed trial": Dishonesty(_failed_trial, "lost-ranks", "invalidates"),
    "a twin": Dishonesty(_twin, "twin-leaf", "notable"),
    "a second run": Dishonesty(_second_run, "dropped-runs", "notable"),
    "a missing trial": Dishonesty(_missing_trial, "dropped-runs", "notable", (3,)),
    "a trial run twice": Dishonesty(_run_twice, "dropped-runs", "notable", (1,)),
    "code in no pool": Dishonesty(_other_code, "code", "notable"),
    "two codes": Dishonesty(_two_codes, "code", "notable"),
    "a changed commit": Dishonesty(_changed_commit, "code", "notable"),
    "another processor": Dishonesty(
        lambda m: _host_with(m, cpu={"num_cores": 64, "model": "Older"}), "hosts", "notable"
    ),
    "another number of cores": Dishonesty(
        lambda m: _host_with(m, cpu={"num_cores": 32, "model": "Imaginary 9000"}), "hosts", "notable"
    ),
    "another kernel": Dishonesty(lambda m: _host_with(m, system={"kernel_version": "5.4"}), "hosts", "notable"),
    "a small host": Dishonesty(_small_host, "hosts", "notable"),
    "other numbers of hosts": Dishonesty(_fewer_hosts, "hosts", "notable"),
    "few writes": Dishonesty(_few_writes, "few-requests", "distorts", (2,)),
    "few writes by their shape": Dishonesty(_few_writes_by_shape, "few-requests", "distorts", (2,)),
}


def leaf_of(made: Made) -> Path:
    """Where the run is that the finding has to be about."""
    return made.leaf.resolve()
