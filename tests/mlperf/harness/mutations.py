"""Ways to break a clean tree, each of which breaks one rule and no other.

The first of a rule leaves everything else where it is, so that it can be combined with any other rule's first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
from bad_numbers import PLACES, bad_number
from made_tree import STAMP, Made, edit

from kvbench.records.file import text_array

Mutation = Callable[[Made], None]

CLOSED: Final[dict[str, list[Mutation]]] = {}
"""By the id of the rule, for trees of the closed division."""
OPEN: Final[dict[str, list[Mutation]]] = {}
"""The same for open."""


def breaks(rule: str, *where: dict[str, list[Mutation]]) -> Callable[[Mutation], Mutation]:
    def register(mutation: Mutation) -> Mutation:
        for table in where or (CLOSED, OPEN):
            table.setdefault(rule, []).append(mutation)
        return mutation

    return register


def put(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def set_at(path: Path, *keys: str | int, to: Any) -> None:
    """Set the value at `keys` of the JSON in `path`."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    edit(path, change)


def scale(path: Path, *keys: str, by: float) -> None:
    """Multiply the number at `keys` of the JSON in `path`."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] *= by

    edit(path, change)


def set_attribute(made: Made, name: str, value: str) -> None:
    """Set a text attribute of the run file."""
    with h5py.File(made.trial() / "kvbench_run.h5", "r+") as file:
        file.attrs[name] = text_array(value)


def set_config(made: Made, section: str, key: str, value: Any) -> None:
    """Change a value of the configuration in the run file."""
    with h5py.File(made.trial() / "kvbench_run.h5", "r") as file:
        config = json.loads(file.attrs["config_json"])
    config[section][key] = value
    set_attribute(made, "config_json", json.dumps(config))


def storage_of_another_kind(made: Made, kind: str) -> None:
    """As if the cache had been there; the run file no longer says where it was."""
    set_at(made.sequence, "filesystems", 0, "cache", "type", to=kind)
    with h5py.File(made.trial() / "kvbench_run.h5", "r+") as file:
        if "filesystem" in file["nodes"]:
            del file["nodes/filesystem"]


@breaks("submitterRootDirectory")
def root_named_after_somebody_else(made: Made) -> None:
    made.root = made.root.rename(made.root.with_name("somebody-else"))


@breaks("submitterRootDirectory")
def root_with_a_blank(made: Made) -> None:
    division = made.submitter.parent
    made.submitter.rename(division / "ac me")
    made.root = made.root.rename(made.root.with_name("ac me"))


@breaks("submitterRootDirectory")
def run_of_another_submitter(made: Made) -> None:
    set_at(made.sequence, "submitter", to="globex")


@breaks("topLevelSubdirectories")
def more_at_the_top(made: Made) -> None:
    put(made.root / "README.txt")


@breaks("topLevelSubdirectories", CLOSED)
def division_with_a_capital(made: Made) -> None:
    (made.root / "Open").mkdir()


@breaks("openMatchesClosed", OPEN)
@breaks("closedSubmitterDirectory", CLOSED)
def file_among_the_submitters(made: Made) -> None:
    put(made.submitter.parent / "notes.txt")


@breaks("openMatchesClosed", CLOSED)
def open_without_a_submitter(made: Made) -> None:
    (made.root / "open").mkdir()


@breaks("closedSubmitterDirectory", OPEN)
def closed_without_a_submitter(made: Made) -> None:
    (made.root / "closed").mkdir()


@breaks("requiredSubdirectoriesOpen", OPEN)
@breaks("requiredSubdirectoriesClosed", CLOSED)
def another_directory_of_a_submitter(made: Made) -> None:
    (made.submitter / "docs").mkdir()


@breaks("requiredSubdirectoriesOpen", OPEN)
@breaks("requiredSubdirectoriesClosed", CLOSED)
def no_code(made: Made) -> None:
    shutil.rmtree(made.code)


@breaks("requiredSubdirectoriesOpen", OPEN)
@breaks("requiredSubdirectoriesClosed", CLOSED)
def no_systems(made: Made) -> None:
    shutil.rmtree(made.submitter / "systems")


@breaks("codeDirectoryContents")
def code_changed_afterwards(made: Made) -> None:
    put(made.code / "main.py", "print('changed')\n")


@breaks("codeDirectoryContents")
def code_renamed_afterwards(made: Made) -> None:
    (made.code / "main.py").rename(made.code / "renamed.py")


@breaks("codeDirectoryContents")
def hash_of_another_kind(made: Made) -> None:
    set_at(made.code / ".code-hash.json", "algorithm", to="sha256")


@breaks("codeDirectoryContents")
def code_without_its_hash(made: Made) -> None:
    (made.code / ".code-hash.json").unlink()


@breaks("codeDirectoryContents")
def code_captured_on_no_day(made: Made) -> None:
    set_at(made.code / ".code-hash.json", "captured_at", to="2026-02-30T00:00:00Z")


@breaks("codeDirectoryContents")
def code_of_another_commit(made: Made) -> None:
    set_at(made.code / ".code-hash.json", "git_sha", to="f" * 40)


@breaks("codeDirectoryContents")
def code_without_code(made: Made) -> None:
    shutil.rmtree(made.code / "part")
    (made.code / "main.py").unlink()
    set_at(made.code / ".code-hash.json", "hash", to=hashlib.md5(b"").hexdigest())


@breaks("systemsDirectoryFiles")
def another_file_among_the_systems(made: Made) -> None:
    put(made.description.with_suffix(".txt"))


@breaks("systemsDirectoryFiles")
def system_without_its_pdf(made: Made) -> None:
    made.description.with_suffix(".pdf").unlink()


@breaks("systemsDirectoryFiles")
def pdf_that_is_none(made: Made) -> None:
    put(made.description.with_suffix(".pdf"), "<html>")


@breaks("systemsDirectoryFiles")
def description_that_is_no_yaml(made: Made) -> None:
    put(made.description, "{ a: [ \n")


@breaks("resultsDirectorySystems")
def file_among_the_results(made: Made) -> None:
    put(made.submitter / "results" / "notes.txt")


@breaks("resultsDirectorySystems")
def system_described_under_another_name(made: Made) -> None:
    for suffix in (".yaml", ".pdf"):
        made.description.with_suffix(suffix).rename(made.description.with_name(f"other{suffix}"))


@breaks("resultsDirectorySystems")
def run_named_by_no_time(made: Made) -> None:
    made.run.rename(made.run.with_name("20261301_000000"))


@breaks("resultsDirectorySystems")
def stray_directory_among_the_runs(made: Made) -> None:
    (made.run.parent / "old").mkdir()


@breaks("resultsDirectorySystems")
def run_of_another_system(made: Made) -> None:
    set_at(made.sequence, "system", to="small-box")


@breaks("resultsDirectorySystems", CLOSED)
def code_where_open_has_it(made: Made) -> None:
    (made.run.parent / "code").mkdir()


@breaks("identicalSystemConfig")
def machine_changed_between_trials(made: Made) -> None:
    set_attribute(made, "kvbench_version", "0.0.9")


@breaks("identicalSystemConfig")
def storage_that_the_run_file_has_not_seen(made: Made) -> None:
    set_at(made.sequence, "filesystems", 0, "cache", "type", to="xfs")


@breaks("identicalSystemConfig")
def second_run_on_another_kernel(made: Made) -> None:
    other = made.run.with_name("20260103_030405")
    shutil.copytree(made.run, other)
    set_at(other / "kvbench_sequence.json", "nodes", 0, "kernel", to="5.4.0")
    (other / "option_1" / "trial_1" / "kvbench_run.h5").unlink()


@breaks("kvcacheFixedWorkloadPerOption", CLOSED)
def memory_of_a_gpu(made: Made) -> None:
    set_at(made.sequence, "options", 1, "settings", "gpu_gb", to=8)


@breaks("kvcacheFixedWorkloadPerOption", CLOSED)
def another_model_in_the_run_file(made: Made) -> None:
    with h5py.File(made.trial() / "kvbench_run.h5", "r") as file:
        config = json.loads(file.attrs["config_json"])
    set_attribute(made, "config_json", json.dumps(config | {"model": "tiny-1b"}))


@breaks("kvcacheFixedWorkloadPerOption", CLOSED)
def option_left_out(made: Made) -> None:
    shutil.rmtree(made.run / "option_3")
    edit(made.sequence, lambda sequence: sequence["options"].pop())
    edit(made.summary, lambda summary: summary["options"].pop("3"))


@breaks("kvcacheFixedWorkloadPerOption", CLOSED)
def duration_not_run(made: Made) -> None:
    """A rank of 20 s whose other figures are those of 20 s, in a sequence that claims 300 s."""
    throughputs = ("avg_throughput_tokens_per_sec", "storage_throughput_tokens_per_sec")
    less: dict[str, float] = {}

    def hurry(result: Any) -> None:
        summary = result["summary"]
        summary["elapsed_time"] /= 15
        summary["total_storage_io_time"] /= 15
        for direction in ("read", "written"):
            summary["cache_stats"][f"tier_storage_kv_bytes_{direction}_gb"] /= 15
        tokens = summary["total_tokens"]
        summary["total_tokens"] //= 15
        for name in throughputs:
            now = summary[name] * summary["total_tokens"] / (tokens / 15)
            less[name], summary[name] = summary[name] - now, now

    edit(made.rank(2, 2, 1), hurry)
    for name in throughputs:
        key = f"aggregated_{name}"
        before = json.loads(made.summary.read_text(encoding="utf-8"))["options"]["2"][key]
        set_at(made.summary, "options", "2", key, to=before - less[name] / 3)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def another_seed(made: Made) -> None:
    set_at(made.sequence, "seed", to=7)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def the_same_seed_on_every_rank(made: Made) -> None:
    set_at(made.rank(3, 1, 1), "seed", to=42)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def a_configuration_file(made: Made) -> None:
    set_at(made.sequence, "config_file", to="mine.yaml")


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def a_delay_that_no_rule_names(made: Made) -> None:
    set_at(made.sequence, "delay_between_options_s", to=60)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def a_delay_that_was_not_kept(made: Made) -> None:
    first = made_time(made, 0, 2, "ended_at")
    set_at(made.sequence, "options", 1, "trials", 0, "started_at", to=first)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def an_hour_between_two_trials(made: Made) -> None:
    set_at(made.sequence, "options", 0, "trials", 0, "started_at", to="2026-01-02T01:00:00+00:00")
    set_at(made.sequence, "options", 0, "trials", 0, "ended_at", to="2026-01-02T01:05:00+00:00")


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def a_repetition_that_nobody_asked_for(made: Made) -> None:
    """Marked as repeated, without a command that went on with the sequence."""
    an_hour_between_two_trials(made)
    set_at(made.sequence, "options", 0, "trials", 1, "repeated", to=True)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def fewer_trials_in_the_summary(made: Made) -> None:
    set_at(made.summary, "options", "1", "trial_count", to=2)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def a_trial_too_many(made: Made) -> None:
    shutil.copytree(made.trial(2, 3), made.trial(2, 4))


def made_time(made: Made, option: int, trial: int, name: str) -> str:
    content = json.loads(made.sequence.read_text(encoding="utf-8"))
    return str(content["options"][option]["trials"][trial][name])


@breaks("kvcacheAutoscalingProhibited", CLOSED)
def autoscaling_allowed(made: Made) -> None:
    set_at(made.sequence, "autoscaling", to=True)


@breaks("kvcacheAutoscalingProhibited", CLOSED)
def a_rank_that_scaled(made: Made) -> None:
    set_at(made.rank(1, 2), "summary", "autoscaling_stats", to=[{"users": 300}])


@breaks("kvcacheClientDefinition")
def more_clients_per_node_than_there_are(made: Made) -> None:
    set_at(made.sequence, "npernode", to=3)


@breaks("kvcacheClientDefinition")
def an_option_of_other_clients(made: Made) -> None:
    set_at(made.summary, "options", "2", "rank_count", to=1)


@breaks("kvcacheClientDefinition")
def a_client_too_many(made: Made) -> None:
    other = made.rank(2, 1, 2)
    shutil.copytree(made.rank(2, 1, 1).parent, other.parent)
    set_at(other, "seed", to=44)
    set_at(other, "end_to_end_latencies", to=[1.0])
    set_at(other, "kvbench", "cache_directory", to="/mnt/x/other")


@breaks("kvcacheScaleUpModel")
def load_divided_among_the_clients(made: Made) -> None:
    set_at(made.rank(1, 1, 1), "kvbench", "users", to=100)


@breaks("kvcacheScaleUpModel")
def less_concurrency_on_a_client(made: Made) -> None:
    set_at(made.rank(3, 3, 0), "kvbench", "max_concurrent_allocs", to=2)


@breaks("kvcachePerClientIsolation")
def one_cache_directory_for_two(made: Made) -> None:
    set_at(made.rank(1, 1, 1), "kvbench", "cache_directory", to="/mnt/x/kvbench-11abcdef/rank-0")


@breaks("kvcachePerClientIsolation")
def one_output_for_two(made: Made) -> None:
    first = json.loads(made.rank(2, 1, 0).read_text(encoding="utf-8"))
    for name in ("end_to_end_latencies", "storage_latencies"):
        set_at(made.rank(2, 1, 1), name, to=first[name])


@breaks("kvcachePerClientIsolation", OPEN)
def one_key_space_for_all(made: Made) -> None:
    with h5py.File(made.trial() / "kvbench_run.h5", "r") as file:
        config = json.loads(file.attrs["config_json"])
    set_attribute(made, "config_json", json.dumps(config | {"namespace": "shared"}))
    edit(made.sequence, lambda sequence: sequence["invocation"].extend(["--set", "namespace=shared"]))


@breaks("kvcachePerClientIsolation")
def two_outputs_of_one(made: Made) -> None:
    path = made.rank(2, 1, 1)
    shutil.copy(path, path.with_name("kvcache_results_20260102_040000.json"))


@breaks("kvcacheSharedResultsDir")
def a_failure_reported(made: Made) -> None:
    set_at(made.summary, "partial_failure", to=True)


@breaks("kvcacheSharedResultsDir")
def a_rank_missing(made: Made) -> None:
    shutil.rmtree(made.rank(2, 2, 1).parent)


@breaks("kvcacheSharedResultsDir")
def a_result_missing(made: Made) -> None:
    made.rank(2, 2, 1).unlink()


@breaks("kvcacheSharedResultsDir")
def a_result_cut_off(made: Made) -> None:
    path = made.rank(1, 2, 1)
    put(path, path.read_text(encoding="utf-8")[:300])


@breaks("kvcacheSharedResultsDir")
def a_result_that_is_a_link(made: Made) -> None:
    path = made.rank(1, 2, 1)
    path.rename(path.with_name("real.json"))
    path.symlink_to("real.json")


@breaks("kvcacheSharedResultsDir")
def a_result_that_is_a_pipe(made: Made) -> None:
    path = made.rank(1, 2, 1)
    path.unlink()
    os.mkfifo(path)


@breaks("kvcacheSharedResultsDir")
def a_result_named_by_no_time(made: Made) -> None:
    path = made.rank(1, 2, 1)
    path.rename(path.with_name("kvcache_results_yesterday.json"))


@breaks("kvcacheSharedResultsDir")
def a_trial_missing(made: Made) -> None:
    shutil.rmtree(made.trial(3, 2))


@breaks("kvcacheSharedResultsDir")
def a_trial_that_failed(made: Made) -> None:
    set_at(made.sequence, "options", 0, "trials", 1, "status", to="failed")


@breaks("kvcacheAggregateBandwidth")
def summary_with_more_bandwidth(made: Made) -> None:
    scale(made.summary, "options", "1", "aggregated_read_bandwidth_gbps", by=1.1)


@breaks("kvcacheAggregateBandwidth")
def rank_and_summary_with_more_bandwidth(made: Made) -> None:
    """Consistent with each other, but not with the bytes that the rank says it read."""
    scale(made.rank(2, 1), "summary", "cache_stats", "tier_storage_read_bandwidth_gbps", by=4.0)
    found = json.loads(made.rank(2, 1).read_text(encoding="utf-8"))["summary"]["cache_stats"]
    more = found["tier_storage_read_bandwidth_gbps"] * 0.75 / 3
    edit(made.summary, lambda s: s["options"]["2"].update(aggregated_read_bandwidth_gbps=_plus(s, more)))


def _plus(summary: Any, more: float) -> float:
    return float(summary["options"]["2"]["aggregated_read_bandwidth_gbps"]) + more


@breaks("kvcacheAggregateBandwidth")
def bytes_that_the_records_do_not_have(made: Made) -> None:
    """Everything in JSON agrees; the records of the run file do not."""
    path = made.rank(1, 1)
    before = json.loads(path.read_text(encoding="utf-8"))["summary"]["cache_stats"]["tier_storage_write_bandwidth_gbps"]
    for name in ("tier_storage_kv_bytes_written_gb", "tier_storage_write_bandwidth_gbps"):
        scale(path, "summary", "cache_stats", name, by=2.0)

    def more(summary: Any) -> None:
        summary["options"]["1"]["aggregated_write_bandwidth_gbps"] += before / 3

    edit(made.summary, more)


@breaks("kvcacheAggregateBandwidth")
def run_file_of_another_trial(made: Made) -> None:
    set_attribute(made, "run_id", "ffff")


@breaks("kvcacheAggregateBandwidth")
def run_file_cut_off(made: Made) -> None:
    path = made.trial() / "kvbench_run.h5"
    path.write_bytes(path.read_bytes()[:1000])


@breaks("kvcacheAggregateThroughput")
def summary_with_more_tokens(made: Made) -> None:
    scale(made.summary, "options", "3", "aggregated_storage_throughput_tokens_per_sec", by=1.001)


@breaks("kvcacheAggregateThroughput")
def tokens_that_the_records_do_not_have(made: Made) -> None:
    path = made.rank()
    before = json.loads(path.read_text(encoding="utf-8"))["summary"]
    names = ("avg_throughput_tokens_per_sec", "storage_throughput_tokens_per_sec")
    for name in ("total_tokens", *names):
        scale(path, "summary", name, by=2.0)

    def more(summary: Any) -> None:
        for name in names:
            summary["options"]["1"][f"aggregated_{name}"] += before[name] / 3

    edit(made.summary, more)


@breaks("kvcacheAggregateDeviceLatency")
def summary_with_less_latency(made: Made) -> None:
    scale(made.summary, "options", "2", "aggregated_device_read_p95_ms", by=0.9)


@breaks("kvcacheAggregateDeviceLatency")
def rank_with_less_latency_than_its_records(made: Made) -> None:
    scale(made.rank(), "summary", "cache_stats", "storage_write_device_p95_ms", by=0.5)
    largest = max(
        json.loads(path.read_text(encoding="utf-8"))["summary"]["cache_stats"]["storage_write_device_p95_ms"]
        for path in (made.run / "option_1").rglob("kvcache_results_*.json")
    )
    set_at(made.summary, "options", "1", "aggregated_device_write_p95_ms", to=largest)


@breaks("kvcacheLatencyValidity")
def a_rank_that_never_touched_storage(made: Made) -> None:
    set_at(made.rank(3, 3, 1), "summary", "cache_stats", "storage_entries", to=0)


@breaks("kvcacheHeadlineResult")
def a_headline_figure_missing(made: Made) -> None:
    edit(made.summary, lambda summary: summary["options"]["2"].pop("aggregated_device_write_p95_ms"))


@breaks("kvcacheHeadlineResult")
def no_summary(made: Made) -> None:
    made.summary.unlink()


@breaks("kvcacheHeadlineResult")
def two_summaries(made: Made) -> None:
    shutil.copy(made.summary, made.summary.with_name("kvcache_run_summary_20260102_050000.json"))


@breaks("kvcacheHeadlineResult")
def a_summary_named_by_no_time(made: Made) -> None:
    made.summary.rename(made.summary.with_name(f"kvcache_run_summary_{STAMP}0.json"))


@breaks("kvcacheHeadlineResult")
def a_summary_of_another_schema(made: Made) -> None:
    set_at(made.summary, "schema_version", to="2.0")


@breaks("kvcachePosixCacheDir")
def results_on_the_storage_under_test(made: Made) -> None:
    set_at(made.sequence, "filesystems", 0, "results", "mount_point", to="/mnt/x")


@breaks("kvcachePosixCacheDir")
def one_device_under_two_names(made: Made) -> None:
    set_at(made.sequence, "filesystems", 0, "results", "device", to="/dev/vdb")


@breaks("kvcachePosixCacheDir")
def no_results_directory(made: Made) -> None:
    set_at(made.sequence, "results_directory", to="")


@breaks("kvcachePosixCacheDir")
def a_cache_somewhere_else(made: Made) -> None:
    set_at(made.rank(2, 1, 1), "kvbench", "cache_directory", to="/home/cache/rank-1")


@breaks("kvcachePosixIoModel")
def page_cache_not_dropped(made: Made) -> None:
    set_at(made.sequence, "page_cache_dropped", to=False)


@breaks("kvcachePosixIoModel")
def blocks_in_place_of_entries(made: Made) -> None:
    set_config(made, "cache", "layout", "block")
    if made.plan.division == "open":
        edit(made.sequence, lambda sequence: sequence["invocation"].extend(["--set", "cache.layout=block"]))


@breaks("kvcachePosixIoModel")
def writes_that_are_not_synced(made: Made) -> None:
    set_config(made, "io", "sync", "none")
    if made.plan.division == "open":
        edit(made.sequence, lambda sequence: sequence["invocation"].extend(["--set", "io.sync=none"]))


@breaks("kvcachePosixIoModel")
def reads_from_the_page_cache(made: Made) -> None:
    with h5py.File(made.trial() / "kvbench_run.h5", "r+") as file:
        resident = file["records/resident_pct"]
        resident[:30] = 100


@breaks("kvcacheObjectViaGateway")
def an_address_in_place_of_a_directory(made: Made) -> None:
    set_at(made.sequence, "cache_directory", to="s3://bucket/cache")


@breaks("kvcacheObjectViaGateway")
def a_gateway_that_nobody_names(made: Made) -> None:
    storage_of_another_kind(made, "fuse.s3fs")
    put(made.description, "system: big-box\nclient_software: TO BE FILLED IN BY HAND\n")


@breaks("kvcacheObjectLatencyScope")
def nfs_without_its_options(made: Made) -> None:
    storage_of_another_kind(made, "nfs4")


@breaks("kvcacheClosedImmutable", CLOSED)
def something_set(made: Made) -> None:
    edit(made.sequence, lambda sequence: sequence["invocation"].extend(["--set", "io.io_bytes=4MiB"]))


@breaks("kvcacheClosedImmutable", CLOSED)
def something_else_that_ran(made: Made) -> None:
    set_config(made, "workload", "end_probability", 0.9)


@breaks("kvcacheClosedImmutable", CLOSED)
def a_run_of_the_open_division(made: Made) -> None:
    set_at(made.sequence, "division", to="open")


@breaks("kvcacheOpenAllowances", OPEN)
def concurrency_changed(made: Made) -> None:
    """Consistently everywhere: open may not change it at all."""
    set_at(made.sequence, "changes", to=["io.max_concurrent_allocs=8"])
    set_at(made.sequence, "options", 1, "settings", "max_concurrent_allocs", to=8)
    for path in (made.run / "option_2").rglob("kvcache_results_*.json"):
        set_at(path, "kvbench", "max_concurrent_allocs", to=8)


@breaks("kvcacheOpenAllowances", OPEN)
def something_changed_that_is_not_said(made: Made) -> None:
    set_config(made, "workload", "end_probability", 0.9)


@breaks("kvcacheOpenInvocationNote", OPEN)
def no_invocation(made: Made) -> None:
    set_at(made.sequence, "invocation", to=[])


@breaks("kvbenchRehearsal")
def a_rehearsal(made: Made) -> None:
    set_at(made.sequence, "rehearsal", to=True)


@breaks("kvbenchRehearsal")
def a_rehearsal_whose_flag_was_taken_away(made: Made) -> None:
    set_at(made.rank(2, 3, 1), "kvbench", "rehearsal", to=True)


def _one_bad_number_of_each() -> None:
    """Whatever can be wrong with a number, one after the other, over all places where numbers stand.

    Left out are the numbers by which a part is found at all: without them other rules miss that part as well.
    """
    for turn, place in enumerate(place for place in PLACES if place.key not in ("option", "trial")):
        kinds = list(place.bad().items())
        kind, value = kinds[turn % len(kinds)]
        mutation = bad_number(place, value, option=2 + turn % 2, trial=1 + turn % 3, rank=turn % 2)
        mutation.__name__ = f"{place.table}-{place.key.rpartition('.')[2]}-that-is-{kind}".replace(" ", "-")
        for division, table in (("closed", CLOSED), ("open", OPEN)):
            if rule := place.rule(division):
                table[rule].append(mutation)


_one_bad_number_of_each()
