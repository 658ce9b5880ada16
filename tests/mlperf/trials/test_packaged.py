"""A sequence that was carried out, as a tree: it is checked and audited like anybody's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sequence_harness import Done

from kvbench.mlperf.audit.audit import audit_trees
from kvbench.mlperf.check.checker import check_tree
from kvbench.mlperf.package.package import package

IN_MEMORY = {"kvcachePosixIoModel", "kvcacheLatencyValidity"}
"""Of a cache on tmpfs, which is page cache, every byte that is read was in it; and trials of a second may read none."""
OF_SHORT_TRIALS = {"few-requests", "working-set", "fsync-span"}
"""Kinds of findings that say that trials of a second in memory measure no storage."""


@pytest.fixture(scope="module")
def tree(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvbench.mlperf.package.report_pdf._plots", lambda path, name: ())
        (made,) = package(done.choices.results, tmp_path_factory.mktemp("packaged"))
    return made.root


def change(tree: Path, folder: Path, pattern: str, do: Callable[[Any], object]) -> Path:
    """A copy of `tree` in which `do` has changed the JSON files that match `pattern`."""
    copy = folder / tree.name
    shutil.copytree(tree, copy)
    for path in copy.rglob(pattern):
        content = json.loads(path.read_text(encoding="utf-8"))
        do(content)
        path.write_text(json.dumps(content), encoding="utf-8")
    return copy


def kinds_of(tree: Path) -> set[str]:
    (audited,) = audit_trees([tree])
    return {finding.kind for finding in audited.findings}


@pytest.mark.slow
def test_the_tree_of_a_sequence_breaks_no_rule(tree: Path) -> None:
    assert check_tree(tree).broken <= IN_MEMORY


@pytest.mark.slow
def test_an_audit_has_nothing_to_say_of_it_but_that_its_trials_are_short(tree: Path) -> None:
    assert kinds_of(tree) <= OF_SHORT_TRIALS


def test_bytes_that_leave_out_what_memory_hands_down_are_found(tree: Path, tmp_path: Path) -> None:
    def without_demotions(result: Any) -> None:
        stats, demoted = result["summary"]["cache_stats"], result["kvbench"]["demoted_gb"]
        stats["tier_storage_kv_bytes_written_gb"] -= demoted
        stats["tier_storage_write_bandwidth_gbps"] -= demoted / result["summary"]["elapsed_time"]

    changed = change(tree, tmp_path, "option_2/trial_*/rank_0/kvcache_results_*.json", without_demotions)
    assert check_tree(changed).broken - IN_MEMORY == {"kvcacheAggregateBandwidth"}


def test_a_library_that_the_environment_of_a_node_preloads_is_found(tree: Path, tmp_path: Path) -> None:
    def preload(sequence: Any) -> None:
        sequence["nodes"][0]["ld_preload"] = "/usr/lib/libeatmydata.so:/opt/libnofadvise.so"

    changed = change(tree, tmp_path, "kvbench_sequence.json", preload)
    assert kinds_of(changed) - OF_SHORT_TRIALS == {"preloaded-library"}


def test_attempts_that_did_not_come_to_their_end_are_told(tree: Path, tmp_path: Path) -> None:
    def repeat(sequence: Any) -> None:
        trial = sequence["options"][1]["trials"][0]
        trial |= {"repeated": True, "earlier_attempts": [{"status": "lost", "run_id": "x"}]}
        sequence["resumed"] = [{"at": trial["started_at"], "invocation": ["kvbench"], "hosts": ["a"]}]

    changed = change(tree, tmp_path, "kvbench_sequence.json", repeat)
    (audited,) = audit_trees([changed])
    told = [each for each in audited.findings if each.kind == "dropped-runs"]
    assert [finding.what for finding in told] == ["option 2: trial 0 was carried out 2 times, before this: lost"]
