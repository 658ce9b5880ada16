"""No number that is none passes as ok: each is a violation of the rule whose business it is, with its file and key."""

import ast
import csv
import json
import shutil
from collections.abc import Iterator
from io import StringIO
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import pytest
from bad_numbers import BAD, PLACES, Place, put_number
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tree import STAMP, Made, Plan, edit, foreign_tree, make_tree
from mutations import set_at, set_config

import kvbench.mlperf.check
import kvbench.mlperf.rules
from kvbench.commands.main import commands
from kvbench.mlperf.check.checker import Verdict, check_tree
from kvbench.mlperf.rules import RULES
from kvbench.mlperf.tree.declared import SUMMARY, SUMMARY_OPTION
from kvbench.mlperf.tree.rank_result import RANK_RESULT
from kvbench.mlperf.tree.recorded import NODE, OPTION, SEQUENCE, TRIAL

TABLES = {
    "rank": RANK_RESULT,
    "summary": SUMMARY,
    "summary option": SUMMARY_OPTION,
    "sequence": SEQUENCE,
    "option": OPTION,
    "trial": TRIAL,
    "node": NODE,
}
KINDS = sorted({kind for place in PLACES for kind in place.bad()})
OF_RANKS = [place for place in PLACES if place.table == "rank"]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(commands, ["mlperf", *map(str, words)])


def named(verdict: Verdict, root: Path, path: Path, key: str) -> set[str]:
    """The rules that are broken for what stands at `key` of the file."""
    where = str(path.relative_to(root))
    return {f.id for f in verdict.violations if f.path == where and f.found.startswith(f"{key} ")}


@pytest.fixture
def copy(clean: dict[str, Made], scratch: Path, request: pytest.FixtureRequest) -> Made:
    return clean[getattr(request, "param", "closed")].copy(scratch)


def test_every_number_that_the_checker_reads_is_tried_here() -> None:
    assert {(name, key) for name, table in TABLES.items() for key in table} == {(p.table, p.key) for p in PLACES}


def test_rules_read_no_number_but_those() -> None:
    """What reads any value as a number is for the tables alone, and not to be had where rules are."""
    for package in (kvbench.mlperf.rules, kvbench.mlperf.check):
        for path in Path(package.__path__[0]).glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
            called = {
                node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
            }
            assert not imported & {"number", "whole"}, path
            assert "float" not in called, path


@pytest.mark.parametrize("copy", ["closed", "open"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_bad_number_is_found_wherever_a_number_stands(copy: Made, kind: str) -> None:
    """All of them in one tree, spread over its files."""
    put: list[tuple[Place, Path]] = []
    for turn, place in enumerate(place for place in PLACES if kind in place.bad()):
        option, trial, rank = 1 + turn % 3, 1 + turn // 3 % 3, turn % 2
        put.append((place, put_number(copy, place, place.bad()[kind], option, trial, rank)))
    verdict = check_tree(copy.root)
    for place, path in put:
        rule = place.rule(copy.plan.division)
        assert named(verdict, copy.root, path, place.key) == ({rule} if rule else set()), place


@st.composite
def one_bad_number(draw: st.DrawFn) -> tuple[str, Place, Any, int, int, int]:
    """A division, a number of a rank's result, something else in its place, and the option, the trial and the rank."""
    division = draw(st.sampled_from(["closed", "open"]))
    place = draw(st.sampled_from([place for place in OF_RANKS if place.rule(division)]))
    odd = (
        st.floats(max_value=-1e-300) | st.integers(max_value=-1) | st.text(max_size=5) | st.lists(st.none(), min_size=1)
    )
    odd |= st.integers(min_value=2**63) | st.floats(min_value=2.0**63)
    bad = draw(st.sampled_from(list(place.bad().values())) | odd)
    return division, place, bad, draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 1))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(chosen=one_bad_number())
def test_any_bad_number_of_any_result_is_found_by_its_rule(
    clean: dict[str, Made], chosen: tuple[str, Place, Any, int, int, int]
) -> None:
    division, place, value, option, trial, rank = chosen
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        made = clean[division].copy(Path(folder))
        path = put_number(made, place, value, option, trial, rank)
        verdict = check_tree(made.root)
        assert named(verdict, made.root, path, place.key) == {place.rule(division)}


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("missing", "a list")])
def test_a_bad_number_among_the_latencies_is_found_with_its_place(copy: Made, kind: str) -> None:
    path = copy.rank(2, 3, 1)
    set_at(path, "storage_latencies", to=[0.5, BAD[kind], 0.25])
    verdict = check_tree(copy.root)
    assert verdict.broken == {"kvcachePerClientIsolation"}
    assert any("storage_latencies" in f.found and "in place 1" in f.found for f in verdict.violations)


@pytest.mark.parametrize(("name", "factor"), [("p99", 0.5), ("p50", 2.0)])
def test_percentiles_out_of_order_are_of_no_set_of_operations(copy: Made, name: str, factor: float) -> None:
    path = copy.rank(3, 2, 0)
    stats = json.loads(path.read_text(encoding="utf-8"))["summary"]["cache_stats"]
    value = stats["storage_read_device_p95_ms"] * factor
    set_at(path, "summary", "cache_stats", f"storage_read_device_{name}_ms", to=value)
    verdict = check_tree(copy.root)
    assert verdict.broken == {"kvcacheAggregateDeviceLatency"}
    assert "storage_read_device_p" in verdict.violations[0].found


def test_a_rank_that_read_nothing_has_no_percentile_and_one_that_did_has(copy: Made) -> None:
    def write_nothing(result: Any) -> None:
        stats = result["summary"]["cache_stats"]
        stats["tier_storage_kv_bytes_written_gb"] = stats["tier_storage_write_bandwidth_gbps"] = 0.0
        del stats["storage_write_device_p95_ms"]

    edit(copy.rank(2, 1, 0), write_nothing)
    assert "kvcacheAggregateDeviceLatency" not in {
        f.id for f in check_tree(copy.root).violations if "nothing" in f.found
    }
    edit(copy.rank(2, 1, 1), lambda result: result["summary"]["cache_stats"].pop("storage_write_device_p95_ms"))
    assert "kvcacheAggregateDeviceLatency" in {f.id for f in check_tree(copy.root).violations if "nothing" in f.found}


def test_a_throughput_in_no_time_is_none(copy: Made) -> None:
    """0 s of storage time would have let any throughput pass."""
    set_at(copy.rank(2, 1, 0), "summary", "total_storage_io_time", to=0)
    verdict = check_tree(copy.root)
    assert verdict.broken == {"kvcacheAggregateThroughput"}


@pytest.mark.parametrize("copy", ["open"], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("missing", "null", "a list", "a mapping")])
def test_a_change_that_open_says_makes_no_number_of_what_is_none(copy: Made, kind: str) -> None:
    edit(copy.sequence, lambda sequence: sequence["invocation"].extend(["--set", "workload.end_probability=0.5"]))
    set_config(copy, "workload", "end_probability", BAD[kind])
    verdict = check_tree(copy.root)
    assert verdict.broken == {"kvcacheOpenAllowances"}
    assert verdict.violations[0].found.startswith("workload.end_probability ")


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("missing", "null", "a list", "a mapping")])
def test_a_bad_number_in_the_configuration_of_a_closed_sequence_is_found(copy: Made, kind: str) -> None:
    set_at(copy.sequence, "options", 1, "config", "workload", "users", to=BAD[kind])
    assert check_tree(copy.root).broken == {"kvcacheClosedImmutable"}


@pytest.mark.parametrize("column", ["wall_ns", "span_ns", "nbytes"])
def test_records_of_less_than_no_time_are_none(copy: Made, column: str) -> None:
    with h5py.File(copy.trial() / "kvbench_run.h5", "r+") as file:
        rows = file[f"records/{column}"]
        rows[3] = -rows[3]
    verdict = check_tree(copy.root)
    assert verdict.broken == {"kvcacheAggregateBandwidth"}
    assert f"{column} below zero" in verdict.violations[0].found


def test_reads_of_which_nobody_knows_are_not_ok(copy: Made) -> None:
    with h5py.File(copy.trial() / "kvbench_run.h5", "r+") as file:
        file["records/resident_pct"][:] = 255
    verdict = check_tree(copy.root)
    assert verdict.violations == ()
    (finding,) = [f for f in verdict.findings if f.id == "kvcachePosixIoModel"]
    assert (finding.weight, finding.path.endswith("kvbench_run.h5")) == ("not recorded", True)


def test_numbers_of_another_tools_metadata_are_looked_at_as_well(tmp_path: Path) -> None:
    made = foreign_tree(tmp_path)
    path = made.run / f"kvcache_metadata_{STAMP}.json"
    set_at(path, "args", "seed", to=nan)
    set_at(path, "args", "inter_option_delay", to=-20)
    found = {(f.id, f.found) for f in check_tree(made.root).violations if " in args." in f.found}
    assert found == {
        ("kvcacheClosedSequenceLocks", "seed NaN in args.seed"),
        ("kvcacheClosedSequenceLocks", "delay_between_options_s -20 in args.inter_option_delay"),
    }


def test_the_table_shows_no_figure_that_is_none(copy: Made) -> None:
    for option, value in ((1, nan), (2, -3.5), (3, True)):
        set_at(copy.summary, "options", str(option), "aggregated_read_bandwidth_gbps", to=value)
    set_at(copy.summary, "host_count", to=-1)
    rows = list(csv.DictReader(StringIO(call("table", copy.root, "--format", "csv").output)))
    assert [(row["option"], row["read GiB/s"], row["hosts"]) for row in rows] == [(str(o), "-", "-") for o in (1, 2, 3)]
    assert {row["status"] for row in rows} == {
        "VIOLATES 6.3.3.1 kvcacheClientDefinition, 6.3.4.5 kvcacheHeadlineResult"
    }


def without_runs(made: Made) -> None:
    shutil.rmtree(made.run)


def another_workload_alone(made: Made) -> None:
    (made.system / "kv_cache").rename(made.system / "training")


@pytest.mark.parametrize("empty", [without_runs, another_workload_alone])
@pytest.mark.parametrize("copy", ["closed", "open"], indirect=True)
def test_a_tree_without_runs_is_not_ok_on_any_rule_of_runs_and_ends_with_1(copy: Made, empty: Any) -> None:
    empty(copy)
    done = call("check", copy.root, "--json")
    content = json.loads(done.output)
    assert (done.exit_code, content["passed"], content["runs"]) == (1, False, 0)
    state = {row["id"]: row["not_checked"] for row in content["rules"]}
    division = copy.plan.division
    for name, rule in RULES.items():
        if rule.number.startswith("6.") or name in ("kvbenchRehearsal", "identicalSystemConfig"):
            assert state[name] in ("no run", f"no run in {division}", "no run in closed", "no run in open"), name
    said = call("check", copy.root)
    assert said.exit_code == 1
    assert "0 runs of the KV cache" in said.output
    assert "not checked: no run" in said.output
    shown = call("table", copy.root)
    assert shown.exit_code == 1
    assert "no run of the KV cache in" in shown.output


def rules_of_a_run(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """(id, the weightiest that was found) of every rule about runs of the division."""
    for rule in RULES.values():
        if rule.part.__name__ == "Run" and "closed" in rule.divisions:
            weights = {f.weight for f in verdict.findings if f.id == rule.id} - {"note"}
            yield rule.id, min(weights, default="ok")


def test_of_an_empty_run_no_rule_is_ok(copy: Made) -> None:
    shutil.rmtree(copy.run)
    copy.run.mkdir()
    copy.description.unlink()
    assert [rule for rule, weight in rules_of_a_run(check_tree(copy.root)) if weight == "ok"] == []


def test_what_a_clean_tree_of_one_division_has_nothing_of_is_not_checked(clean: dict[str, Made]) -> None:
    verdict = check_tree(clean["closed"].root)
    assert verdict.passed
    assert {rule: why for rule, why in verdict.unchecked.items() if RULES[rule].number[0].isdecimal()} == {
        "openMatchesClosed": "no directory open",
        "requiredSubdirectoriesOpen": "no submitter's directory in open",
        "kvcacheOpenAllowances": "no run in open",
        "kvcacheOpenInvocationNote": "no run in open",
    }


def test_of_a_rehearsal_the_numbers_are_looked_at_all_the_same(tmp_path: Path) -> None:
    made = make_tree(tmp_path, Plan(rehearsal=True))
    set_at(made.sequence, "options", 0, "settings", "duration_s", to=nan)
    set_at(made.sequence, "delay_between_options_s", to=-1)
    assert check_tree(made.root).broken == {
        "kvbenchRehearsal",
        "kvcacheFixedWorkloadPerOption",
        "kvcacheClosedSequenceLocks",
    }
