"""A tree of anybody's is read: whatever is in it ends in findings, and nothing outside it is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tree import STAMP, Made, foreign_tree, write_json
from published_tree import Published, dress

from kvbench.errors import KvbenchError
from kvbench.mlperf.audit.audit import audit_trees
from kvbench.mlperf.check.checker import Verdict, check_tree
from kvbench.mlperf.check.results_table import FORMATS, table_rows
from kvbench.mlperf.tree.code_hash import OLD_ALGORITHM, code_files, code_hash
from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, dig, number, read_json, read_yaml, shown, whole

pytestmark = pytest.mark.slow

ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["closed", "2026-01-02T03:04:05", "complete", "--set"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
"""JSON values of every kind, none of them expected anywhere."""

FILES = (
    f"results/big-box/kv_cache/{STAMP}/kvbench_sequence.json",
    f"results/big-box/kv_cache/{STAMP}/kvcache_run_summary_{STAMP}.json",
    f"results/big-box/kv_cache/{STAMP}/option_1/trial_1/rank_0/kvcache_results_{STAMP}.json",
    "code/.code-hash.json",
)


def whatever_happens(root: Path) -> Verdict:
    """The verdict, of which every message is one line of printable text, and the table in every format."""
    verdict = check_tree(root)
    for finding in verdict.findings:
        assert finding.message.isprintable()
    json.dumps(verdict.as_dict())
    rows = table_rows([verdict])
    assert all(form(rows).encode("utf-8") for form in FORMATS.values())
    return verdict


def copied(made: Made, change: Callable[[Path], None]) -> Verdict:
    """The verdict on a copy with a change."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        copy = made.copy(Path(folder))
        change(copy.submitter)
        return whatever_happens(copy.root)


def places(value: Any, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where all values of a JSON document stand."""
    found = [above]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*above, key))
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_a_json_file_ends_in_findings(clean: dict[str, Made], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))

    def change(submitter: Path) -> None:
        content = json.loads((submitter / name).read_text(encoding="utf-8"))
        *above, last = data.draw(st.sampled_from(places(content)[1:]))
        place = content
        for key in above:
            place = place[key]
        place[last] = data.draw(ODD)
        write_json(submitter / name, content)

    copied(clean["closed"], change)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_in_a_published_tree_ends_in_findings(
    clean_published: dict[str, Published], data: st.DataObject
) -> None:
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        made = clean_published["closed"].copy(Path(folder))
        dress(made)
        files = [made.metadata, made.summary, made.run / "provenance.json", made.submitter / "submission.yaml"]
        files += [made.code / ".code-hash.json", made.submitter / "results" / "results.json"]
        path = data.draw(st.sampled_from(files))
        content = json.loads(path.read_text(encoding="utf-8"))
        *above, last = data.draw(st.sampled_from(places(content)[1:]))
        place = content
        for key in above:
            place = place[key]
        place[last] = data.draw(ODD)
        write_json(path, content)
        whatever_happens(made.root)
        if data.draw(st.booleans()):
            write_json(path, data.draw(ODD))
        else:
            path.write_bytes(data.draw(st.binary(max_size=40)))
        whatever_happens(made.root)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_json_in_place_of_a_file_ends_in_violations(clean: dict[str, Made], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    value = data.draw(ODD)
    verdict = copied(clean["closed"], lambda submitter: write_json(submitter / name, value))
    assert verdict.violations


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bytes_in_a_file_end_in_findings(clean: dict[str, Made], data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(
            [*FILES, "systems/big-box.yaml", f"results/big-box/kv_cache/{STAMP}/option_1/trial_1/kvbench_run.h5"]
        )
    )

    def change(submitter: Path) -> None:
        content = bytearray((submitter / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            piece = data.draw(st.binary(max_size=12))
            content[at : at + data.draw(st.sampled_from([0, len(piece), 200]))] = piece
        (submitter / name).write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])

    copied(clean["closed"], change)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_entry_may_be_missing_or_something_else(clean: dict[str, Made], data: st.DataObject) -> None:
    def change(submitter: Path) -> None:
        every = sorted(path for path in submitter.rglob("*") if "code" not in path.parts)
        path = data.draw(st.sampled_from(every))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        kind = data.draw(st.sampled_from(["nothing", "file", "directory", "link to itself", "link to nowhere", "pipe"]))
        if kind == "file":
            path.write_bytes(b"\x00\xff")
        elif kind == "directory":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind != "nothing":
            path.symlink_to(path.name if kind == "link to itself" else "/nowhere/at/all")

    assert copied(clean["closed"], change).violations


def test_what_a_link_leads_to_is_not_read(clean: dict[str, Made], scratch: Path) -> None:
    """A whole clean submission outside of the tree is no submission."""
    elsewhere = clean["closed"].copy(scratch / "elsewhere")
    root = scratch / "acme"
    root.mkdir()
    (root / "closed").symlink_to(elsewhere.root / "closed")
    verdict = whatever_happens(root)
    assert list(verdict.tree.runs()) == []
    assert verdict.broken == {"topLevelSubdirectories"}


@pytest.mark.parametrize("part", ["results", "systems", "code"])
def test_a_directory_that_is_a_link_is_none(clean: dict[str, Made], scratch: Path, part: str) -> None:
    made = clean["closed"].copy(scratch / "tree")
    (made.submitter / part).rename(scratch / part)
    (made.submitter / part).symlink_to(scratch / part)
    assert "requiredSubdirectoriesClosed" in whatever_happens(made.root).broken


def test_a_directory_that_may_not_be_read_is_not_passed_over(
    clean: dict[str, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether rights bind depends on the user, so that the answer of the system is a made one."""
    shut = clean["closed"].run
    listed = os.scandir

    def refuse(place: Path) -> Any:
        if Path(place) == shut.resolve():
            raise PermissionError(13, "Permission denied", str(place))
        return listed(place)

    monkeypatch.setattr("kvbench.mlperf.tree.untrusted.os.scandir", refuse)
    for read in (lambda: check_tree(clean["closed"].root), lambda: audit_trees([clean["closed"].root])):
        with pytest.raises(KvbenchError, match=f"cannot read {shut.resolve()}: Permission denied"):
            read()


def test_names_that_are_no_text_are_shown_safely(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    os.mkdir(os.fsencode(made.system.parent) + b"/\xff\x1b[31m")
    verdict = whatever_happens(made.root)
    assert verdict.broken == {"resultsDirectorySystems"}
    assert all("\x1b" not in finding.message for finding in verdict.findings)


def test_keys_that_are_no_text_are_shown_safely(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    content = json.loads(made.sequence.read_text(encoding="utf-8"))
    content["options"][0]["config"]["pacing"]["\x1b[31m\ud800"] = 1
    write_json(made.sequence, content)
    verdict = whatever_happens(made.root)
    assert verdict.broken == {"kvcacheClosedImmutable"}


def test_a_file_that_is_too_large_is_a_violation(
    clean: dict[str, Made], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = clean["closed"].copy(scratch)
    with made.rank(2, 2, 1).open("r+b") as file:
        file.truncate(2**40)
    verdict = whatever_happens(made.root)
    assert verdict.broken == {"kvcacheSharedResultsDir"}
    assert any("1 TiB large" in finding.found for finding in verdict.violations)


def test_json_nested_deeper_than_python_goes_is_a_violation(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    made.rank(2, 2, 1).write_text("[" * 100_000 + "]" * 100_000, encoding="utf-8")
    assert whatever_happens(made.root).broken == {"kvcacheSharedResultsDir"}


def test_a_claim_of_a_billion_ranks_is_not_counted_up_to(clean: dict[str, Made], scratch: Path) -> None:
    made = clean["closed"].copy(scratch)
    content = json.loads(made.summary.read_text(encoding="utf-8"))
    write_json(made.summary, content | {"total_ranks": 900_000, "trials_per_option": 10**30})
    verdict = whatever_happens(made.root)
    assert {"kvcacheClientDefinition", "kvcacheSharedResultsDir"} <= verdict.broken
    assert len(verdict.findings) < 1000


def test_an_empty_directory_is_no_submission(tmp_path: Path) -> None:
    assert whatever_happens(tmp_path).broken == {"topLevelSubdirectories"}


def test_what_is_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match="is no directory"):
        check_tree(tmp_path / "missing")


def test_of_another_tools_tree_it_is_said_what_is_not_recorded(tmp_path: Path) -> None:
    """Values that rules demand to be recorded are violations; the rest is said, and neither passed over nor refused."""
    verdict = whatever_happens(foreign_tree(tmp_path).root)
    assert verdict.broken == {"kvcacheFixedWorkloadPerOption"}
    assert all("not recorded" in finding.found for finding in verdict.violations)
    unrecorded = {finding.id for finding in verdict.findings if finding.weight == "not recorded"}
    assert unrecorded == {
        "identicalSystemConfig",
        "kvcacheAutoscalingProhibited",
        "kvcacheScaleUpModel",
        "kvcachePerClientIsolation",
        "kvcacheAggregateBandwidth",
        "kvcacheAggregateThroughput",
        "kvcacheAggregateDeviceLatency",
        "kvcachePosixCacheDir",
        "kvcachePosixIoModel",
        "kvcacheClosedImmutable",
    }


def test_another_tools_metadata_is_checked_where_it_is_there(tmp_path: Path) -> None:
    made = foreign_tree(tmp_path)
    path = made.run / f"kvcache_metadata_{STAMP}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {"args": content["args"] | {"seed": 7}, "hosts": content["hosts"]})
    assert "kvcacheClosedSequenceLocks" in whatever_happens(made.root).broken


def test_defaults_that_another_tool_writes_down_are_not_believed(tmp_path: Path) -> None:
    made = foreign_tree(tmp_path)
    path = made.run / f"kvcache_metadata_{STAMP}.json"
    before = whatever_happens(made.root).broken
    content = json.loads(path.read_text(encoding="utf-8"))
    unused = {"enable_autoscaling": True, "npernode": 7, "num_users": 100, "num_processes": None}
    write_json(path, content | unused | {"args": content["args"] | unused, "parameters": unused})
    assert whatever_happens(made.root).broken == before


def test_the_hash_of_drafts_counts_names_and_content_and_leaves_out_what_it_says(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", "a.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    before = code_hash(tmp_path, OLD_ALGORITHM)
    assert [path.relative_to(tmp_path).as_posix() for path in code_files(tmp_path, OLD_ALGORITHM)] == [
        "a.py",
        "a/z.py",
        "b.py",
    ]
    for name in (".hidden", "tests/t.py", "a/test/t.py", "__pycache__/x.py", "x.egg-info/y", "a/c.pyc", ".git/z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("left out", encoding="utf-8")
    (tmp_path / "link.py").symlink_to("a.py")
    assert code_hash(tmp_path, OLD_ALGORITHM) == before
    (tmp_path / "new.py").touch()
    assert code_hash(tmp_path, OLD_ALGORITHM) != before


def test_yaml_that_would_grow_or_run_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text in (
        "a: &a [1]\nb: [*a, *a]\n",
        "!!python/object/apply:os.getcwd []\n",
        "a: 2026-02-31\n",
        "\t: [",
        "\xff",
    ):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(Unreadable):
            read_yaml(path)


def test_values_are_what_they_are_taken_for_or_nothing() -> None:
    assert dig({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert dig({"a": [1]}, "a", "b") is MISSING
    assert dig([1], 3) is MISSING
    assert [number(v) for v in (1, 1.5, True, "1", None, float("nan"), float("inf"), 10**400)] == [1, 1.5] + [None] * 6
    assert [whole(v) for v in (42, 42.0, 42.5, "42")] == [42, 42, None, None]
    assert shown("a\nb\x1b") == "a?b?"
    assert len(shown("x" * 10_000)) == 160


def test_json_is_read_as_it_is(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, None]})
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
    with pytest.raises(Unreadable, match="no such file"):
        read_json(tmp_path / "y.json")
    with pytest.raises(Unreadable, match="large"):
        read_json(tmp_path / "x.json", 5)
