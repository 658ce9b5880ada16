"""Whatever stands in a run's directories: kvbench removes its own files there, and nothing else anywhere."""

import json
import os
from pathlib import Path

import pytest
from cases import fuzz, made
from edits import EDITS, edited
from hypothesis import example, given
from hypothesis import strategies as st

from kvbench.tiers.file.leftovers import find, remove
from kvbench.tiers.file.run_directory import RunDirectory
from kvbench.tiers.marker import MARKER

pytestmark = pytest.mark.slow

RUN_ID = "20260102-030405-abcdef"
GOOD = json.dumps({"program": "kvbench", "run_id": RUN_ID}).encode()

MARKERS = st.one_of(
    EDITS.map(lambda edits: edited(GOOD, edits)),
    st.binary(max_size=100),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4) | st.just("kvbench") | st.just(RUN_ID),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["program", "run_id"]), inner),
        max_leaves=6,
    ).map(lambda content: json.dumps(content).encode()),
    st.just(b"[" * 4000),
    st.just(b'{"program": "kvbench", "run_id": ' + b"9" * 5000 + b"}"),
)


def is_good(content: bytes) -> bool:
    try:
        found = json.loads(content[:4096])
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and (found.get("program"), found.get("run_id")) == ("kvbench", RUN_ID)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@fuzz(60)
@given(top=st.just(GOOD) | MARKERS, rank=st.just(GOOD) | MARKERS)
@example(GOOD, GOOD)
def test_only_what_is_rightly_marked_is_removed(
    tmp_path_factory: pytest.TempPathFactory, top: bytes, rank: bytes
) -> None:
    made["markers"] += 1
    folder = tmp_path_factory.mktemp("markers")
    rundir = RunDirectory(folder, RUN_ID, 0)
    rundir.objects.mkdir(parents=True)
    (rundir.top / MARKER).write_bytes(top)
    (rundir.objects / MARKER).write_bytes(rank)
    (rundir.objects / "0123456789abcdef.kv").write_text("an object")
    before = tree(folder)
    removed_by_run = is_good(rank)
    for leftover in find(folder):
        assert leftover.run_id == RUN_ID
        assert leftover.may_go() == is_good(top)
        if leftover.may_go():
            remove(leftover)
    if not is_good(top):
        assert tree(folder) == before
    rundir.remove()
    if not removed_by_run:
        assert (rundir.objects / "0123456789abcdef.kv").exists()
    else:
        assert not rundir.objects.exists()


NAMES = st.sampled_from(
    [
        "0123456789abcdef.kv",
        "0123456789ABCDEF.kv",
        "0123456789abcdef.npy",
        "0123456789abcdef.kv ",
        "mine.txt",
        ".kv",
        "a" * 16 + ".kv",
    ]
)
THINGS = st.sampled_from(["file", "folder", "link to a file", "link to a folder", "dead link", "pipe", "hard link"])


def put(kind: str, path: Path, precious: Path) -> None:
    if path.exists() or path.is_symlink():
        return
    if kind == "file":
        path.write_text("content")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        os.link(precious / "file", path)
    else:
        path.symlink_to({"link to a file": precious / "file", "link to a folder": precious}.get(kind, "nowhere"))


@fuzz(60)
@given(
    things=st.lists(st.tuples(THINGS, st.sampled_from(["", "rank-0", "rank-1"]), NAMES), max_size=6),
    swapped=st.sampled_from(["nothing", "rank", "run", "marker", "marker of the run"]),
)
def test_nothing_outside_the_runs_directory_is_touched(
    tmp_path_factory: pytest.TempPathFactory, things: list[tuple[str, str, str]], swapped: str
) -> None:
    """Somebody puts links, pipes and folders into the run's directories, or links in the place of these."""
    made["markers"] += 1
    folder = tmp_path_factory.mktemp("strange")
    precious = folder / "precious" / "rank-0"
    precious.mkdir(parents=True)
    for name in ("file", "0123456789abcdef.kv"):
        (precious / name).write_text("precious")
    for marked in (precious, precious.parent):
        (marked / MARKER).write_bytes(GOOD)
    kept = tree(precious.parent)
    tested = folder / "tested"
    tested.mkdir()
    rundir = RunDirectory(tested, RUN_ID, 0)
    rundir.create()
    for kind, place, name in things:
        (rundir.top / place).mkdir(exist_ok=True)
        put(kind, rundir.top / place / name, precious)
    if swapped != "nothing":
        replaced = {
            "rank": rundir.objects,
            "run": rundir.top,
            "marker": rundir.objects / MARKER,
            "marker of the run": rundir.top / MARKER,
        }[swapped]
        replaced.rename(folder / "aside")
        replaced.symlink_to({"rank": precious, "run": precious.parent}.get(swapped, precious / MARKER))
    rundir.remove()
    for leftover in find(tested):
        remove(leftover, even_unknown=True)
    assert tree(precious.parent) == kept
    assert (precious / "file").read_text() == "precious"
