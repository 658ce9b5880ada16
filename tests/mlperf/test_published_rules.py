"""Trees of the published form: what is clean passes, and each tampering is found by its rule alone."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import published_mutations
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tree import Made, Plan, edit, make_tree, merge, write_json
from mutations import put, set_at
from published_mutations import CLOSED, IN_A_LEAF, OPEN, Mutation
from published_tree import Published, RealLeaf, dress, edit_commands, make_published, source_hash, with_parameters

from kvbench.commands.main import commands
from kvbench.mlperf.check.checker import Finding, Verdict, check_tree
from kvbench.mlperf.check.results_table import table_rows
from kvbench.mlperf.rules import RULES

SINGLE = [
    pytest.param(division, rule, mutation, id=f"{division}-{rule}-{mutation.__name__}")
    for division, table in (("closed", CLOSED), ("open", OPEN))
    for rule, mutations in table.items()
    for mutation in mutations
]


def of(verdict: Verdict, rule: str) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.id == rule]


def told(findings: Iterable[Finding]) -> set[tuple[str, str]]:
    return {(finding.id, finding.found) for finding in findings}


@pytest.mark.parametrize("division", ["closed", "open"])
@pytest.mark.parametrize("later", [False, True])
def test_a_clean_tree_breaks_no_rule(
    clean_published: dict[str, Published], scratch: Path, division: str, later: bool
) -> None:
    made = clean_published[division].copy(scratch)
    if later:
        dress(made)
    verdict = check_tree(made.root)
    assert (verdict.violations, verdict.old, verdict.passed) == ((), False, True)
    assert ("leafProvenance" in verdict.unchecked) is not later


def test_a_tree_of_many_clients_and_one_pool_for_all_breaks_no_rule(tmp_path: Path) -> None:
    made = make_published(tmp_path, Plan(ranks=4, hosts=("node-a", "node-b")))
    made.pool.rename(made.root / "code-images")
    assert check_tree(made.root).violations == ()


def test_trees_of_both_forms_are_checked_side_by_side(
    clean_published: dict[str, Published], clean: dict[str, Made], tmp_path: Path
) -> None:
    other = make_published(tmp_path / "other", Plan(submitter="globex"))
    older = make_tree(tmp_path / "older", Plan(submitter="umbrella"))
    root = merge(tmp_path, clean_published["closed"], other, older)
    verdict = check_tree(root)
    assert (verdict.violations, verdict.old) == ((), True)
    assert [submitter.name for submitter in verdict.tree.submitters() if submitter.old] == ["umbrella"]
    # A leaf points at an image of its own submitter, and not of another.
    shutil.rmtree(root / "globex" / f"code-{source_hash()[:8]}")
    assert check_tree(root).broken == {"codeImagePointer"}


def test_a_tree_of_the_older_form_is_said_to_be_old(clean: dict[str, Made]) -> None:
    verdict = check_tree(clean["closed"].root)
    assert (verdict.old, verdict.passed) == (True, True)
    (note,) = [finding for finding in of(verdict, "codeDirectoryContents") if finding.weight == "note"]
    assert "form of drafts" in note.found
    said = CliRunner().invoke(commands, ["mlperf", "check", str(clean["closed"].root)]).output
    assert "it would be refused" in said


@pytest.mark.parametrize(("division", "rule", "mutation"), SINGLE)
def test_what_breaks_one_rule_is_refused_for_that_rule_alone(
    clean_published: dict[str, Published], scratch: Path, division: str, rule: str, mutation: Mutation
) -> None:
    made = clean_published[division].copy(scratch)
    mutation(made)
    verdict = check_tree(made.root)
    assert verdict.broken == {rule}, [finding.message for finding in verdict.violations]


IN_A_REAL_LEAF = [
    pytest.param(plan, rule, mutation, id=f"{plan.system}-{rule}-{mutation.__name__}")
    for plan, needs_more_than_it_has in (
        (Plan(submitter="Suzhou_Zishan_Longlin", system="GalaxSphere-1Tier0", ranks=1), set()),
        # Of this one the results of rank 0 in option 1 are kept alone, and eight of nine commands.
        (
            Plan(submitter="HPE", system="K3000-kvcache", ranks=32),
            {
                published_mutations.another_seed_in_a_result,
                published_mutations.more_clients_in_a_command,
                published_mutations.a_rank_with_more_bandwidth,
                published_mutations.a_rank_that_stayed_in_memory,
                published_mutations.a_request_percentile_that_was_bettered,
            },
        ),
    )
    for rule, mutation in IN_A_LEAF
    if mutation not in needs_more_than_it_has
]


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "rule", "mutation"), IN_A_REAL_LEAF)
def test_what_breaks_one_rule_in_a_real_leaf_is_found_by_that_rule_alone(
    published: Path, scratch: Path, plan: Plan, rule: str, mutation: Mutation
) -> None:
    made = real_leaf(published, scratch, plan)
    before = told(check_tree(made.root).violations)
    mutation(made)
    after = told(check_tree(made.root).violations)
    assert {name for name, _ in after - before} == {rule}, after - before


def real_leaf(published: Path, scratch: Path, plan: Plan) -> RealLeaf:
    made = RealLeaf(published / plan.submitter, plan).copy(scratch)
    for folder, _, files in os.walk(made.root):
        Path(folder).chmod(0o755)
        for file in files:
            (Path(folder) / file).chmod(0o644)
    return made


def test_an_accepted_leaf_is_told_only_what_was_cut_out_of_it(published: Path) -> None:
    """The PDF and the source were not stored."""
    verdict = check_tree(published / "Suzhou_Zishan_Longlin")
    assert told(verdict.violations) == {
        ("codeDirectoryContents", "no source code"),
        ("systemsDirectoryFiles", "GalaxSphere-1Tier0.pdf: no such file"),
    }
    percentiles = [
        finding.wanted for finding in of(verdict, "kvcacheAggregateDeviceLatency") if "P95" in finding.wanted
    ]
    assert [text.split(",")[0] for text in percentiles] == [
        "read P95 ms 1703.81",
        "read P95 ms 158.74",
        "read P95 ms 392.397",
    ]


def test_a_leaf_whose_image_is_in_no_pool_is_told_so(published: Path) -> None:
    verdict = check_tree(published / "HPE")
    # Of its 288 results three are stored, and no PDF.
    assert verdict.broken == {"codeImagePointer", "kvcacheSharedResultsDir", "systemsDirectoryFiles"}
    (finding,) = of(verdict, "codeImagePointer")
    assert "64104f046ea4f45d52ae17edb072a0c7" in finding.found
    (unused,) = of(verdict, "codeImageUse")
    assert unused.weight == "not checked"
    # The lists of latencies were cut, and nothing else tells one client's result from another's.
    (alike,) = of(verdict, "kvcachePerClientIsolation")
    assert (alike.weight, "of 3 ranks' results" in alike.found) == ("not recorded", True)


def test_libraries_that_undo_the_io_are_told_and_an_allocator_is_noted(published: Path) -> None:
    verdict = check_tree(published / "FarmGPU")
    found = [(finding.path.split("/")[3], finding.found) for finding in of(verdict, "kvcachePosixIoModel")]
    undone = {(system, text.split(" ")[0].rpartition("/")[2]) for system, text in found if "preloaded" in text}
    open_one = "potato8-qlc-np6-open-tnf-70b"
    assert undone == {("hickory", "libnofadvise.so"), ("hickory", "libeatmydata.so"), (open_one, "nofadvise.so")}
    (note,) = [finding for finding in of(verdict, "kvcacheClosedImmutable") if finding.weight == "note"]
    assert "libtcmalloc_minimal.so.4" in note.found
    failures = [
        finding.found for finding in of(verdict, "kvcacheSharedResultsDir") if "partial_failure" in finding.found
    ]
    assert failures == ["partial_failure true", "partial_failure true of option 1", "partial_failure true of option 2"]


@pytest.mark.parametrize("key", ["aggregated_p95_latency_ms", "aggregated_read_bandwidth_gbps"])
def test_no_figure_is_less_than_what_the_ranks_that_are_there_have(published: Path, scratch: Path, key: str) -> None:
    made = real_leaf(published, scratch, Plan(submitter="HPE", system="K3000-kvcache", ranks=32))
    before = told(check_tree(made.root).violations)
    set_at(made.summary, "options", "1", key, to=1.0)
    ((rule, found),) = told(check_tree(made.root).violations) - before
    assert rule in ("kvcacheAggregateDeviceLatency", "kvcacheAggregateBandwidth")
    assert found == f"{key} 1 of option 1"


def test_messages_name_only_files_that_are_there(published: Path, clean: dict[str, Made], tmp_path: Path) -> None:
    roots = [published / name for name in ("Suzhou_Zishan_Longlin", "HPE", "FarmGPU")]
    (tmp_path / "closed").mkdir()
    for root in (*roots, clean["closed"].root, tmp_path):
        verdict = check_tree(root)
        assert verdict.findings
        assert [finding.path for finding in verdict.findings if not (root / finding.path).exists()] == []
        if root in roots:
            assert "kvbench_sequence" not in json.dumps(verdict.as_dict())


@pytest.mark.parametrize("left", ["nothing", "an empty file of metadata"])
@pytest.mark.parametrize("division", ["closed", "open"])
def test_of_a_leaf_with_nothing_in_it_no_rule_of_leaves_is_ok(
    clean_published: dict[str, Published], scratch: Path, division: str, left: str
) -> None:
    made = clean_published[division].copy(scratch)
    metadata = made.metadata
    shutil.rmtree(made.run)
    shutil.rmtree(made.pool)
    made.run.mkdir()
    made.description.unlink()
    if left != "nothing":
        write_json(metadata, {})
    verdict = check_tree(made.root)
    heavy = {finding.id for finding in verdict.findings if finding.weight != "note"}
    about_leaves = {
        name for name, rule in RULES.items() if not rule.number.startswith("2.1.") and division in rule.divisions
    }
    about_leaves |= {"codeDirectoryContents", "identicalSystemConfig"}
    # The one file is there, and holds an object; whoever looks for values in it finds none.
    found = {"runLeafMetadata"} if left != "nothing" else set()
    assert about_leaves - heavy - set(verdict.unchecked) == found


def test_defaults_that_nobody_used_are_not_believed(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    unused = {"num_users": 1, "duration": 1, "enable_autoscaling": True, "npernode": 9, "generation_mode": "fast"}
    edit(made.metadata, lambda content: (content.update(unused), content["args"].update(unused)))
    edit(made.metadata, lambda content: content["parameters"].update(unused))
    assert check_tree(made.root).violations == ()


@pytest.mark.parametrize("division", ["closed", "open"])
def test_what_a_wrapper_is_told_besides_is_its_own_business_in_open(
    clean_published: dict[str, Published], scratch: Path, division: str
) -> None:
    made = clean_published[division].copy(scratch)
    edit_commands(made, "--num-users", "--rag-num-docs 10 --num-users")
    assert check_tree(made.root).broken == ({"kvcacheClosedImmutable"} if division == "closed" else set())


def test_an_allocator_is_worth_a_note_in_closed(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    edit_commands(made, "mpirun ", "mpirun -x LD_PRELOAD=/usr/lib/libjemalloc.so.2 ")
    verdict = check_tree(made.root)
    assert verdict.violations == ()
    (note,) = of(verdict, "kvcacheClosedImmutable")
    assert (note.weight, "libjemalloc.so.2" in note.found) == ("note", True)


def test_a_commit_of_dlio_that_is_not_listed_is_noted(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    dress(made)
    assert of(check_tree(made.root), "dlioRevision") == []
    set_at(made.run / "provenance.json", "dlio", "commit", to="f" * 40)
    verdict = check_tree(made.root)
    assert (verdict.violations, [finding.weight for finding in of(verdict, "dlioRevision")]) == ((), ["note"])


def test_a_configuration_of_no_class_is_information_in_open(
    clean_published: dict[str, Published], scratch: Path
) -> None:
    made = clean_published["open"].copy(scratch)
    dress(made)
    edit(made.run / "provenance.json", lambda stamp: stamp["core_config"].update(hash="unknown"))
    (finding,) = of(check_tree(made.root), "comparabilityClass")
    assert finding.weight == "not checked"


def test_tests_and_caches_are_no_part_of_an_image(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    for name in ("tests/more.py", ".git/config", "kv_cache_benchmark/__pycache__/x.pyc", "a.egg-info/PKG-INFO"):
        put(made.code / name)
    assert check_tree(made.root).violations == ()


def test_an_image_that_another_workload_points_at_is_used(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    published_mutations.an_image_that_nobody_used(made)
    (other,) = [path for path in made.pool.glob("code-*") if path != made.code]
    digest = json.loads((other / ".code-hash.json").read_text(encoding="utf-8"))["hash"]
    put(made.system / "training" / "unet3d" / "run" / "20260102_000000" / ".mlps-code-image", f"md5-tree-v2:{digest}")
    assert check_tree(made.root).violations == ()


def test_what_breaks_one_leaf_is_not_held_against_another(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    other = made.run.with_name("20260103_030405")
    shutil.copytree(made.run, other)
    (other / made.metadata.name).rename(other / "kv_cache_20260103_030405_metadata.json")
    (other / ".mlps-code-image").unlink()
    status = {row.run.path.name: row.sound for row in table_rows([check_tree(made.root)])}
    assert status == {made.run.name: True, other.name: False}


def test_newer_parameters_have_to_agree_with_the_commands(clean_published: dict[str, Published], scratch: Path) -> None:
    made = clean_published["closed"].copy(scratch)
    with_parameters(made)
    assert check_tree(made.root).violations == ()
    set_at(made.metadata, "parameters", "options", "1", "num_users", to=100)
    (finding,) = check_tree(made.root).violations
    assert (finding.id, finding.found) == ("kvcacheFixedWorkloadPerOption", "users 100 in parameters.options.1")


HIDES_OTHERS = {
    published_mutations.no_command_of_an_option,
    published_mutations.metadata_of_another_time,
    published_mutations.a_summary_of_the_older_name,
    published_mutations.a_summary_beside_the_summary,
    published_mutations.an_image_of_another_name,
    published_mutations.an_image_without_its_hash,
    published_mutations.no_pointer,
}
"""What takes away or renames what others look into."""


@st.composite
def some_rules(draw: st.DrawFn) -> list[tuple[str, Mutation]]:
    """A few tamperings of a leaf, of different rules."""
    pairs = [(rule, mutation) for rule, mutation in IN_A_LEAF if mutation not in HIDES_OTHERS]
    return draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=4, unique_by=lambda pair: pair[0]))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(broken=some_rules())
def test_of_several_tamperings_all_are_reported_and_no_other(
    clean_published: dict[str, Published], broken: list[tuple[str, Mutation]]
) -> None:
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        made = clean_published["closed"].copy(Path(folder))
        for _, mutation in broken:
            mutation(made)
        assert check_tree(made.root).broken == {rule for rule, _ in broken}
