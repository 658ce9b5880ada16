"""Every rule refuses what breaks it, and only that; what breaks none passes."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import published_mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tree import Made, Plan, make_tree, merge
from mutations import CLOSED, OPEN, Mutation

from kvbench.mlperf.check.checker import check_tree
from kvbench.mlperf.rules import RULES

MUTATIONS = {"closed": CLOSED, "open": OPEN}
"""Of trees of the form of drafts, which have records of all operations."""
PUBLISHED = {"closed": published_mutations.CLOSED, "open": published_mutations.OPEN}

# The rule table: number, id, and the divisions in which something breaks the rule ("none": it only warns).
TABLE = """
2.1.1 submitterRootDirectory
2.1.2 topLevelSubdirectories
2.1.3 openMatchesClosed
2.1.4 closedSubmitterDirectory
2.1.5.a requiredSubdirectoriesClosed closed
2.1.5.b requiredSubdirectoriesOpen open
2.1.6 codeDirectoryContents
2.1.7 systemsDirectoryFiles
2.1.8 resultsDirectorySystems
2.1.9 identicalSystemConfig
6.3.1.1 kvcacheFixedWorkloadPerOption closed
6.3.2.1 kvcacheClosedSequenceLocks closed
6.3.2.2 kvcacheAutoscalingProhibited closed
6.3.3.1 kvcacheClientDefinition
6.3.3.2 kvcacheScaleUpModel
6.3.3.3 kvcachePerClientIsolation
6.3.3.4 kvcacheSharedResultsDir
6.3.4.1 kvcacheAggregateBandwidth
6.3.4.2 kvcacheAggregateThroughput
6.3.4.3 kvcacheAggregateDeviceLatency
6.3.4.4 kvcacheLatencyValidity
6.3.4.5 kvcacheHeadlineResult
6.4.1 kvcachePosixCacheDir
6.4.2 kvcachePosixIoModel
6.5.1 kvcacheObjectViaGateway
6.5.2 kvcacheObjectLatencyScope
6.6.1 kvcacheClosedImmutable closed
6.6.2 kvcacheOpenAllowances open
6.6.3 kvcacheOpenInvocationNote open
CHECK-01 codeImagePointer
CHECK-02 codeImageHash
CHECK-03 codeImageUse
CHECK-04 codeImagePool
EDN-01 rulesEdition
EDN-02 comparabilityClass
EDN-03 dlioRevision none
EDN-04 checkableEdition
LEAF-01 runLeafMetadata
PROV-01 leafProvenance
PROV-02 submissionManifest
RPT-01 rollupTableAgreement
kvbench kvbenchRehearsal
"""
ROWS = [row.split() for row in TABLE.split("\n") if row]

SINGLE = [
    pytest.param(division, rule, mutation, id=f"{division}-{rule}-{mutation.__name__}")
    for division, table in MUTATIONS.items()
    for rule, mutations in table.items()
    for mutation in mutations
]


def test_every_rule_of_the_table_is_a_function_of_its_name() -> None:
    assert {(rule.number, rule.id) for rule in RULES.values()} == {(row[0], row[1]) for row in ROWS}
    for rule in RULES.values():
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", rule.id).lower()
        assert rule.check.__name__ == words


def test_every_rule_stands_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mlperf.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\S+) \| ([a-z]\w+[A-Z]\w*) \|", page, re.MULTILINE) == [(row[0], row[1]) for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_every_rule_is_broken_by_something_in_each_division_that_it_is_about(row: list[str]) -> None:
    for division in row[2:] or ("closed", "open"):
        if division != "none":
            assert [*MUTATIONS[division].get(row[1], ()), *PUBLISHED[division].get(row[1], ())]


@pytest.mark.parametrize("division", ["closed", "open"])
def test_a_clean_tree_breaks_no_rule(clean: dict[str, Made], division: str) -> None:
    assert check_tree(clean[division].root).violations == ()


def test_a_clean_tree_of_many_ranks_on_nfs_breaks_no_rule(tmp_path: Path) -> None:
    plan = Plan(ranks=4, hosts=("node-a", "node-b"), filesystem="nfs4", first_trial=0)
    assert check_tree(make_tree(tmp_path, plan).root).violations == ()


def test_a_merged_tree_of_several_submitters_breaks_no_rule(clean: dict[str, Made], tmp_path: Path) -> None:
    others = [make_tree(tmp_path / name, Plan(submitter=name)) for name in ("umbrella", "globex")]
    verdict = check_tree(merge(tmp_path, clean["closed"], clean["open"], *others))
    assert verdict.violations == ()
    assert len(list(verdict.tree.runs())) == 4


@pytest.mark.usefixtures("records_read_once")
@pytest.mark.parametrize(("division", "rule", "mutation"), SINGLE)
def test_what_breaks_one_rule_is_refused_for_that_rule_alone(
    clean: dict[str, Made], scratch: Path, division: str, rule: str, mutation: Mutation
) -> None:
    made = clean[division].copy(scratch)
    mutation(made)
    verdict = check_tree(made.root)
    assert verdict.broken == {rule}, [finding.message for finding in verdict.violations]
    for finding in verdict.violations:
        assert finding.message.startswith(f"{RULES[rule].number} {rule}: ")
        assert finding.path in finding.message
        assert finding.found in finding.message
        assert finding.wanted in finding.message


@st.composite
def some_rules(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A division and a few rules that are broken in it."""
    division = draw(st.sampled_from(["closed", "open"]))
    ids = st.lists(st.sampled_from(sorted(MUTATIONS[division])), min_size=2, max_size=4, unique=True)
    return division, draw(ids)


@pytest.mark.slow
@pytest.mark.usefixtures("records_read_once")
@settings(max_examples=40, deadline=None)
@given(broken=some_rules())
def test_of_several_broken_rules_all_are_reported_and_no_other(
    clean: dict[str, Made], broken: tuple[str, list[str]]
) -> None:
    division, rules = broken
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        made = clean[division].copy(Path(folder))
        for rule in rules:
            MUTATIONS[division][rule][0](made)
        verdict = check_tree(made.root)
    assert verdict.broken == set(rules), [finding.message for finding in verdict.violations]
