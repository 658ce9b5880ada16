"""Ways to break a clean tree of the published form, each of which breaks one rule and no other.

Those of IN_A_LEAF need nothing but one leaf and its pool, and are made in real leaves as well.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from typing import Any, Final

import mutations
from made_tree import STAMP, edit, write_json
from mutations import put, scale, set_at
from published_tree import CACHE, RESULTS, Published, dress, edit_commands, with_parameters

Mutation = Callable[[Published], None]

CLOSED: Final[dict[str, list[Mutation]]] = {}
OPEN: Final[dict[str, list[Mutation]]] = {}
IN_A_LEAF: Final[list[tuple[str, Mutation]]] = []
"""(id of the rule, mutation), of closed."""


def breaks(rule: str, *where: dict[str, list[Mutation]], leaf: bool = False) -> Callable[[Mutation], Mutation]:
    def register(mutation: Mutation) -> Mutation:
        for table in where or (CLOSED, OPEN):
            table.setdefault(rule, []).append(mutation)
        if leaf:
            IN_A_LEAF.append((rule, mutation))
        return mutation

    return register


for _rule, _mutations in {
    "submitterRootDirectory": [mutations.root_named_after_somebody_else],
    "topLevelSubdirectories": [mutations.more_at_the_top],
    "systemsDirectoryFiles": [mutations.system_without_its_pdf, mutations.description_that_is_no_yaml],
    "resultsDirectorySystems": [mutations.file_among_the_results, mutations.system_described_under_another_name],
    "kvcachePerClientIsolation": [mutations.one_output_for_two, mutations.two_outputs_of_one],
    "kvcacheSharedResultsDir": [
        mutations.a_failure_reported,
        mutations.a_rank_missing,
        mutations.a_result_missing,
        mutations.a_result_cut_off,
        mutations.a_trial_missing,
    ],
    "kvcacheAggregateBandwidth": [
        mutations.summary_with_more_bandwidth,
        mutations.rank_and_summary_with_more_bandwidth,
    ],
    "kvcacheAggregateThroughput": [mutations.summary_with_more_tokens],
    "kvcacheHeadlineResult": [mutations.no_summary, mutations.a_summary_of_another_schema],
}.items():
    for _mutation in _mutations:
        breaks(_rule)(_mutation)
for _division, _rule in ((CLOSED, "closedSubmitterDirectory"), (OPEN, "openMatchesClosed")):
    breaks(_rule, _division)(mutations.file_among_the_submitters)
breaks("openMatchesClosed", CLOSED)(mutations.open_without_a_submitter)
breaks("closedSubmitterDirectory", OPEN)(mutations.closed_without_a_submitter)
for _division, _rule in ((CLOSED, "requiredSubdirectoriesClosed"), (OPEN, "requiredSubdirectoriesOpen")):
    breaks(_rule, _division)(mutations.another_directory_of_a_submitter)
    breaks(_rule, _division)(mutations.no_systems)


@breaks("topLevelSubdirectories")
def a_pool_of_nobody(made: Published) -> None:
    put(made.root / "globex" / ".mlps-image-pool", "mlpstorage_version=3.0.46\n")


@breaks("codeDirectoryContents")
def an_image_without_source(made: Published) -> None:
    for path in made.code.iterdir():
        if path.name != ".code-hash.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@breaks("codeImagePointer", leaf=True)
def no_pointer(made: Published) -> None:
    made.pointer.unlink()


@breaks("codeImagePointer", leaf=True)
def a_pointer_of_another_algorithm(made: Published) -> None:
    put(made.pointer, made.pointer.read_text(encoding="utf-8").replace("v2", "v1"))


@breaks("codeImagePointer", leaf=True)
def a_pointer_cut_off(made: Published) -> None:
    put(made.pointer, made.pointer.read_text(encoding="utf-8")[:30])


@breaks("codeImagePointer", leaf=True)
def a_pointer_to_nothing(made: Published) -> None:
    put(made.pointer, f"md5-tree-v2:{'0' * 32}")
    set_at(made.metadata, "args", "_validated_pool_hash", to="0" * 32)


@breaks("codeImagePointer", leaf=True)
def metadata_of_another_image(made: Published) -> None:
    set_at(made.metadata, "args", "_validated_pool_hash", to="0" * 32)


@breaks("codeImageHash", leaf=True)
def an_image_of_another_name(made: Published) -> None:
    made.code.rename(made.pool / "code-00000000")


@breaks("codeImageHash")
def source_changed_afterwards(made: Published) -> None:
    put(made.code / "main.py", "print('changed')\n")


@breaks("codeImageHash")
def source_that_counts_although_it_is_hidden(made: Published) -> None:
    put(made.code / ".hidden")


@breaks("codeImageHash", leaf=True)
def an_image_without_its_hash(made: Published) -> None:
    (made.code / ".code-hash.json").unlink()


@breaks("codeImageHash", leaf=True)
def an_image_of_the_older_hash(made: Published) -> None:
    set_at(made.code / ".code-hash.json", "algorithm", to="md5-tree-v1")


@breaks("codeImageUse")
def an_image_that_nobody_used(made: Published) -> None:
    digest = hashlib.md5(b"x.pyx").hexdigest()
    other = made.pool / f"code-{digest[:8]}"
    put(other / "x.py")
    content = json.loads((made.code / ".code-hash.json").read_text(encoding="utf-8"))
    write_json(other / ".code-hash.json", content | {"hash": digest})


@breaks("codeImagePool", leaf=True)
def a_pool_without_its_marker(made: Published) -> None:
    (made.pool / ".mlps-image-pool").unlink()


@breaks("codeImagePool")
def code_where_drafts_had_it(made: Published) -> None:
    put(made.submitter / "code" / "main.py")


@breaks("codeImagePool")
def code_at_the_leaf_as_in_drafts(made: Published) -> None:
    put(made.system / "kv_cache" / "code" / "main.py")


@breaks("runLeafMetadata", leaf=True)
def two_metadata_files(made: Published) -> None:
    shutil.copy(made.metadata, made.metadata.with_name("kv_cache_20260101_000000_metadata.json"))


@breaks("runLeafMetadata", leaf=True)
def metadata_of_another_time(made: Published) -> None:
    made.metadata.rename(made.metadata.with_name("kv_cache_20260101_000000_metadata.json"))


@breaks("resultsDirectorySystems", leaf=True)
def a_leaf_of_another_system(made: Published) -> None:
    set_at(made.metadata, "args", "systemname", to="small-box")


@breaks("identicalSystemConfig")
def a_second_leaf_on_another_kernel(made: Published) -> None:
    other = made.run.with_name("20260103_030405")
    shutil.copytree(made.run, other)
    metadata = other / "kv_cache_20260103_030405_metadata.json"
    (other / made.metadata.name).rename(metadata)
    set_at(metadata, "system_info", "hosts", 0, "system", "kernel_version", to="5.4.0")


@breaks("kvcacheFixedWorkloadPerOption", CLOSED, leaf=True)
def other_users_in_a_command(made: Published) -> None:
    edit_commands(made, "--num-users 200", "--num-users 20", option=1, trial=2)


@breaks("kvcacheFixedWorkloadPerOption", CLOSED, leaf=True)
def a_setting_left_out_of_a_command(made: Published) -> None:
    edit_commands(made, "--generation-mode none", "", option=3, trial=1)


@breaks("kvcacheFixedWorkloadPerOption", CLOSED, leaf=True)
def another_model_in_an_option(made: Published) -> None:
    edit_commands(made, "--model llama3.1-70b-instruct", "--model llama3.1-8b", option=3)


@breaks("kvcacheFixedWorkloadPerOption", CLOSED)
def other_memory_in_the_parameters(made: Published) -> None:
    with_parameters(made)
    set_at(made.metadata, "parameters", "options", "2", "cpu_mem_gb", to=8)


@breaks("kvcacheFixedWorkloadPerOption", CLOSED, leaf=True)
def no_command_of_an_option(made: Published) -> None:
    edit(
        made.metadata,
        lambda content: content.update(
            command_output_files=[e for e in content["command_output_files"] if "/option_2/" not in e["command"]]
        ),
    )


@breaks("kvcacheClosedSequenceLocks", CLOSED, leaf=True)
def another_seed_in_a_command(made: Published) -> None:
    edit_commands(made, "--seed-base 42", "--seed-base 7", option=2, trial=0)


@breaks("kvcacheClosedSequenceLocks", CLOSED, leaf=True)
def another_configuration_in_a_command(made: Published) -> None:
    edit_commands(made, "kv_cache_benchmark/config.yaml", "mine/config.yaml", option=3, trial=0)


@breaks("kvcacheClosedSequenceLocks", CLOSED, leaf=True)
def the_delay_of_drafts(made: Published) -> None:
    set_at(made.metadata, "args", "inter_option_delay", to=20)


@breaks("kvcacheClosedSequenceLocks", CLOSED, leaf=True)
def fewer_trials_in_the_arguments(made: Published) -> None:
    set_at(made.metadata, "args", "trials", to=1)


@breaks("kvcacheClosedSequenceLocks", CLOSED)
def another_configuration_in_the_parameters(made: Published) -> None:
    with_parameters(made)
    set_at(made.metadata, "parameters", "sequence", "config", to="custom")


@breaks("kvcacheClosedSequenceLocks", CLOSED, leaf=True)
def another_seed_in_a_result(made: Published) -> None:
    set_at(made.a_result, "seed", to=7)


@breaks("kvcacheAutoscalingProhibited", CLOSED, leaf=True)
def autoscaling_in_a_command(made: Published) -> None:
    edit_commands(made, "--seed-base 42", "--enable-autoscaling --seed-base 42", option=1, trial=1)


@breaks("kvcacheAutoscalingProhibited", CLOSED)
def autoscaling_among_the_features(made: Published) -> None:
    with_parameters(made)
    set_at(made.metadata, "parameters", "features", to={"enable_autoscaling": True})


@breaks("kvcacheClientDefinition", leaf=True)
def more_clients_in_a_command(made: Published) -> None:
    edit_commands(made, f"-n {made.plan.ranks} ", f"-n {made.plan.ranks + 1} ", option=1, trial=0)


@breaks("kvcacheClientDefinition", leaf=True)
def fewer_clients_in_the_summary_of_an_option(made: Published) -> None:
    set_at(made.summary, "options", "2", "rank_count", to=made.plan.ranks + 1)


@breaks("kvcacheClientDefinition", leaf=True)
def another_number_of_processes(made: Published) -> None:
    set_at(made.metadata, "args", "num_processes", to=made.plan.ranks + 1)


@breaks("kvcacheSharedResultsDir", leaf=True)
def a_trial_that_failed(made: Published) -> None:
    set_at(made.summary, "trial_failures", to={"1": [{"trial": 0, "exit_code": 137}]})


@breaks("kvcacheAggregateBandwidth", leaf=True)
def a_rank_with_more_bandwidth(made: Published) -> None:
    """By so little that the mean of the summary cannot show it."""
    scale(made.a_result, "summary", "cache_stats", "tier_storage_kv_bytes_read_gb", by=1.01)


@breaks("kvcacheAggregateDeviceLatency", leaf=True)
def a_request_percentile_that_was_bettered(made: Published) -> None:
    scale(made.summary, "options", "1", "aggregated_p95_latency_ms", by=0.9)


@breaks("kvcacheAggregateDeviceLatency")
def a_request_percentile_of_a_rank_below_its_median(made: Published) -> None:
    set_at(made.a_result, "summary", "storage_io_latency_ms", "p95", to=0.001)


@breaks("kvcacheAggregateDeviceLatency")
def a_device_percentile_that_no_rank_has(made: Published) -> None:
    set_at(made.summary, "options", "1", "aggregated_device_read_p95_ms", to=0.001)


@breaks("kvcacheLatencyValidity", leaf=True)
def a_rank_that_stayed_in_memory(made: Published) -> None:
    set_at(made.a_result, "summary", "cache_stats", "storage_entries", to=0)


@breaks("kvcacheHeadlineResult", leaf=True)
def a_summary_of_the_older_name(made: Published) -> None:
    made.summary.rename(made.summary.with_name(f"kvcache_run_summary_{STAMP}.json"))


@breaks("kvcacheHeadlineResult", leaf=True)
def a_summary_beside_the_summary(made: Published) -> None:
    shutil.copy(made.summary, made.summary.with_name(f"kvcache_run_summary_{STAMP}.json"))


@breaks("kvcacheHeadlineResult", leaf=True)
def a_figure_left_out(made: Published) -> None:
    edit(made.summary, lambda summary: summary["options"]["3"].pop("aggregated_storage_throughput_tokens_per_sec"))


@breaks("kvcachePosixCacheDir", leaf=True)
def a_cache_below_the_results(made: Published) -> None:
    results = json.loads(made.metadata.read_text(encoding="utf-8"))["args"]["results_dir"]
    set_at(made.metadata, "args", "cache_dir", to=f"{results}/cache")


@breaks("kvcachePosixCacheDir")
def results_below_the_cache_of_a_command(made: Published) -> None:
    edit_commands(made, f"--rank-cache-base {CACHE}", f"--rank-cache-base {RESULTS}/closed", option=1, trial=0)


@breaks("kvcachePosixIoModel", leaf=True)
def writes_that_are_not_synced_in_a_command(made: Published) -> None:
    edit_commands(made, "--npernode", "-x LD_PRELOAD=/usr/lib/libeatmydata.so --npernode", option=2, trial=2)


@breaks("kvcachePosixIoModel", leaf=True)
def a_page_cache_that_is_kept(made: Published) -> None:
    set_at(made.metadata, "args", "mpi_params", to=["-x", "LD_PRELOAD=/x/libtcmalloc.so.4:/x/libnofadvise.so"])


@breaks("kvcacheClosedImmutable", CLOSED, leaf=True)
def a_library_that_nobody_knows(made: Published) -> None:
    edit_commands(made, "mpirun ", "env LD_PRELOAD=/opt/faster.so mpirun ", option=1, trial=1)


@breaks("kvcacheClosedImmutable", CLOSED, leaf=True)
def another_setting_in_a_command(made: Published) -> None:
    edit_commands(made, "--seed-base 42", "--disable-prefix-caching --seed-base 42")


@breaks("kvcacheClosedImmutable", CLOSED)
def another_feature(made: Published) -> None:
    with_parameters(made)
    set_at(made.metadata, "parameters", "features", to={"disable_multi_turn": True})


@breaks("kvcacheOpenAllowances", OPEN)
def concurrency_changed_in_a_command(made: Published) -> None:
    edit_commands(made, "--max-concurrent-allocs 16", "--max-concurrent-allocs 64", option=2, trial=1)


@breaks("kvcacheOpenInvocationNote", OPEN)
def no_commands(made: Published) -> None:
    set_at(made.metadata, "command_output_files", to=[])


@breaks("kvbenchRehearsal")
def a_system_that_is_a_rehearsal(made: Published) -> None:
    put(made.description, "system: big-box\nrehearsal: true\n")


def dressed(change: Mutation) -> Mutation:
    """`change`, in a tree with everything that later tools write."""

    def mutation(made: Published) -> None:
        dress(made)
        change(made)

    mutation.__name__ = change.__name__
    return mutation


@breaks("leafProvenance")
@dressed
def a_stamp_of_another_image(made: Published) -> None:
    set_at(made.run / "provenance.json", "tool", "code_image", to=f"md5-tree-v2:{'0' * 32}")


@breaks("leafProvenance")
@dressed
def a_stamp_that_is_gone(made: Published) -> None:
    (made.run / "provenance.json").unlink()


@breaks("leafProvenance")
def a_stamp_that_is_none(made: Published) -> None:
    put(made.run / "provenance.json", "{")


@breaks("submissionManifest")
@dressed
def a_manifest_of_a_leaf_that_is_gone(made: Published) -> None:
    edit(made.submitter / "submission.yaml", lambda m: m["runs"].append({"leaf": "results/x/kv_cache/y/run/z"}))


@breaks("submissionManifest")
@dressed
def a_manifest_without_a_leaf(made: Published) -> None:
    set_at(made.submitter / "submission.yaml", "runs", to=[])


@breaks("submissionManifest")
@dressed
def a_manifest_of_another_schema(made: Published) -> None:
    set_at(made.submitter / "submission.yaml", "schema", to="mlps-submission-manifest/9")


@breaks("rulesEdition")
@dressed
def an_edition_that_nobody_knows(made: Published) -> None:
    for path in (made.submitter / "submission.yaml", made.run / "provenance.json"):
        set_at(path, "rules_edition", to="9.9")


@breaks("checkableEdition")
@dressed
def an_edition_of_before(made: Published) -> None:
    for path in (made.submitter / "submission.yaml", made.run / "provenance.json"):
        set_at(path, "rules_edition", to="2.0")


@breaks("comparabilityClass")
@dressed
def a_hash_of_another_configuration(made: Published) -> None:
    set_at(made.run / "provenance.json", "core_config", "hash", to="0123456789abcdef")


@breaks("comparabilityClass", CLOSED)
@dressed
def a_configuration_without_one_of_its_keys(made: Published) -> None:
    """Its hash is right, and that of no class."""
    parameters = json.loads(made.metadata.read_text(encoding="utf-8"))["parameters"]

    def change(stamp: Any) -> None:
        stamp["core_config"]["keys"] = ["sequence.seed"]
        text = json.dumps({"sequence.seed": parameters["sequence"]["seed"]}, separators=(",", ":"))
        stamp["core_config"]["hash"] = hashlib.sha256(text.encode()).hexdigest()[:16]

    edit(made.run / "provenance.json", change)


@breaks("rollupTableAgreement")
@dressed
def a_result_in_the_rollup_alone(made: Published) -> None:
    edit(made.submitter / "results" / "results.json", lambda rows: rows.append({"Public ID": "3.0-0099"}))


@breaks("rollupTableAgreement")
@dressed
def a_result_that_the_rollup_lacks(made: Published) -> None:
    write_json(made.submitter / "results" / "results.json", [])
