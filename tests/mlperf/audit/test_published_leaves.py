"""Of the published leaves an audit says what is known of them, and nothing that is not so."""

from pathlib import Path

import pytest

from kvbench.mlperf.audit.audit import LeafAudit, audit_trees
from kvbench.mlperf.audit.finding import Finding
from kvbench.mlperf.check.checker import check_tree
from kvbench.mlperf.check.results_table import table_rows


@pytest.fixture(scope="module")
def audits(published: Path) -> dict[str, LeafAudit]:
    """By stamp."""
    trees = sorted(path for path in published.iterdir() if path.is_dir())
    return {audit.leaf.stamp: audit for audit in audit_trees(trees)}


def kinds(audit: LeafAudit) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(finding.weight, finding.kind, finding.options) for finding in audit.findings}


def finding(audit: LeafAudit, kind: str, *options: int) -> Finding:
    (found,) = [one for one in audit.findings if one.kind == kind and one.options == options]
    return found


def test_an_accepted_leaf_of_one_client(audits: dict[str, LeafAudit]) -> None:
    audit = audits["20260722_164611"]
    assert kinds(audit) == {
        *(("distorts", "fsync-span", (option,)) for option in (1, 2, 3)),
        ("distorts", "few-requests", (2,)),
        *(("notable", "trials-apart", (option,)) for option in (1, 2, 3)),
        ("notable", "code", ()),
    }
    assert "8.52 us to 8.91 us in 3 of 3 results" in finding(audit, "fsync-span", 1).what
    assert "is 313 ms" in finding(audit, "fsync-span", 1).effect
    few = finding(audit, "few-requests", 2)
    assert "of 3 to 27 operations" in few.what
    assert [one.value for one in few.evidence] == ["of 3 operations", "of 27 operations", "of 16 operations"]
    assert "begin 492, 495 s after each other" in finding(audit, "trials-apart", 1).what
    assert "2 images of commit a22ddddb have different hashes" in finding(audit, "code").what
    # All nine trials have a command, no rank is missing, and the delays are 90 s by the stamps.
    assert {"preloaded-library", "lost-ranks", "delay", "outlived-trial", "hosts", "page-cache-speed"} <= set(
        audit.clean
    )


def test_requests_that_outlive_the_trial_and_a_pointer_to_nothing(audits: dict[str, LeafAudit]) -> None:
    audit = audits["20260807_155647"]
    late = finding(audit, "outlived-trial", 1)
    assert "of up to 514 s" in late.what
    assert "read of rank 0 (of 32; the others are not in the tree) 4.56 GiB/s: at most 2.71" in late.effect
    assert "317 s" in finding(audit, "outlived-trial", 3).what
    assert not [one for one in audit.findings if one.kind == "outlived-trial" and 2 in one.options]
    assert "746, 731 s" in finding(audit, "trials-apart", 1).what
    assert "22.6 us to 23.9 us" in finding(audit, "fsync-span", 1).what
    assert any("64104f04, is in no pool" in one.what for one in audit.findings if one.kind == "code")
    assert {one.weight for one in audit.findings} == {"distorts", "notable"}
    assert {"lost-ranks", "page-cache-speed", "working-set"} <= set(audit.clean)
    assert ("hosts", "1 of 16 hosts are described in the metadata; of the others only memory") in [
        (one.kind, one.why) for one in audit.not_audited
    ]


def test_libraries_of_a_closed_leaf(audits: dict[str, LeafAudit]) -> None:
    audit = audits["20260724_130034"]
    assert kinds(audit) == {("invalidates", "preloaded-library", ()), ("notable", "preloaded-library", ())}
    names = [one.what.partition(" ")[0] for one in audit.findings]
    assert sorted(names) == ["libeatmydata.so", "libnofadvise.so", "libtcmalloc_minimal.so.4"]
    assert all({one.key for one in each.evidence} >= {"args.mpi_params"} for each in audit.findings)
    assert {"fsync-span", "few-requests", "delay", "hosts", "working-set", "page-cache-speed"} <= {
        one.kind for one in audit.not_audited
    }


def test_ranks_that_died_and_the_leaf_beside_it(audits: dict[str, LeafAudit]) -> None:
    audit = audits["20260709_215001"]
    first, second = finding(audit, "lost-ranks", 1), finding(audit, "lost-ranks", 2)
    assert (first.what, second.what) == (
        "option 1: 24 of 48 ranks left no result",
        "option 2: 21 of 48 ranks left no result",
    )
    assert "12.6 for each survivor" in first.effect
    assert "each lost 3 of 6 in trial 0" in first.effect
    assert {one.options for one in audit.findings if one.kind == "outlived-trial"} == {(1,), (2,)}
    assert "duration 60 s by the command of option 3" in str(finding(audit, "outlived-trial", 1).evidence)
    assert "20260709_215000" in finding(audit, "twin-leaf").what
    assert {one.weight for one in audit.findings if one.kind == "preloaded-library"} == {"invalidates", "notable"}
    assert not audits["20260709_215000"].findings


def test_the_table_has_percentiles_of_the_rules_and_marks(published: Path, audits: dict[str, LeafAudit]) -> None:
    marks = {
        (audit.path, option.number): audit.marks(option.number)
        for audit in audits.values()
        for option in audit.leaf.options
    }
    trees = sorted(path for path in published.iterdir() if path.is_dir())
    rows = {(row.run.path.name, row.option): row for row in table_rows(map(check_tree, trees), marks)}
    whole = [rows["20260722_164611", option].figures[1:3] for option in (1, 2, 3)]
    assert whole == [
        pytest.approx((1704, 2.84), rel=2e-3),
        pytest.approx((159, 0.068), rel=5e-3),
        pytest.approx((392, 0.012), rel=2e-2),
    ]
    cut = rows["20260807_155647", 1]
    assert cut.figures[1:3] == (None, None), "31 of 32 ranks are not there"
    assert cut.cells()[7:10] == ["151.71", "4.7411", "9.4821"]
    assert "distorts: outlived-trial, fsync-span" in cut.cells()[-1]
    assert rows["20260724_130034", 2].marks.startswith("invalidates: preloaded-library")
