"""Of an honest tree an audit finds nothing; of a dishonest one, what is dishonest about it, and nothing else."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from dishonesty import DISHONESTIES, leaf_of
from hypothesis import given, settings
from hypothesis import strategies as st
from made_leaf import HASH, HONEST, Honest, Made, make

from kvbench.mlperf.audit.audit import LeafAudit, audit_trees
from kvbench.mlperf.audit.finding import KINDS
from kvbench.mlperf.audit.markdown import as_markdown
from kvbench.mlperf.audit.page import as_html
from kvbench.mlperf.audit.shown import as_json

FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None
BESIDE = {
    "large memory that is kept": {"preloaded-library"},
    "a library by argument": {"preloaded-library"},
    "a late request by its percentile": {"outlived-trial"},
}
"""Kinds that come with a change besides its own."""


def audited(plan: Honest, change: Callable[[Made], None] | None = None, upstream: str = HASH) -> LeafAudit:
    """The audit of an honest run, or of what `change` makes of it."""
    with TemporaryDirectory(dir=FOLDER) as folder:
        made = make(Path(folder), plan)
        if change is not None:
            change(made)
        found = {audit.path: audit for audit in audit_trees([made.root], [upstream])}
        return found[leaf_of(made)]


@settings(max_examples=40)
@given(plan=HONEST)
def test_an_honest_tree_has_no_finding_and_all_of_it_is_looked_at(plan: Honest) -> None:
    audit = audited(plan)
    assert not audit.findings
    assert not audit.not_audited
    assert audit.clean == tuple(KINDS)


@pytest.mark.parametrize("name", DISHONESTIES)
@settings(max_examples=6)
@given(plan=HONEST)
def test_each_dishonesty_is_found_and_nothing_else(name: str, plan: Honest) -> None:
    made = DISHONESTIES[name]
    audit = audited(plan, made.change)
    found = [one for one in audit.findings if one.kind == made.kind and one.weight == made.weight]
    assert found, audit.findings
    assert all(one.evidence and one.effect for one in found)
    assert made.options == () or made.options in [one.options for one in found]
    assert {one.kind for one in audit.findings} <= {made.kind, *BESIDE.get(name, set())}


def test_every_kind_has_a_dishonesty() -> None:
    assert {made.kind for made in DISHONESTIES.values()} == set(KINDS)


def test_code_that_is_not_upstreams_is_found() -> None:
    (finding,) = audited(Honest(), upstream="f" * 32).findings
    assert (finding.kind, finding.what) == ("code", "the code that ran is not upstream's as given")


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
"""JSON values of every kind, none of them expected anywhere."""


@pytest.mark.slow
@settings(max_examples=150)
@given(odd=ODD, data=st.data())
def test_whatever_stands_in_a_tree_ends_in_an_audit(odd: Any, data: st.DataObject) -> None:
    with TemporaryDirectory(dir=FOLDER) as folder:
        made = make(Path(folder), Honest())
        paths = [made.summary, made.metadata, made.description, made.image, made.results(1)[0], made.results(2)[0]]
        path = data.draw(st.sampled_from(paths))
        content = json.loads(path.read_text())
        place = content
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
                place[key] = odd
                break
            place = place[key]
        path.write_text(json.dumps(content))
        audits = audit_trees([made.root])
        assert all(form(audits).encode() for form in (as_markdown, as_html, as_json))


PARTS = ("summary", "metadata", "description", "image")


@settings(max_examples=30)
@given(gone=st.sets(st.sampled_from([*PARTS, "ranks", "pointer"]), min_size=1), plan=HONEST)
def test_what_is_not_there_is_not_audited_and_never_in_order(gone: set[str], plan: Honest) -> None:
    def change(made: Made) -> None:
        for name in gone & set(PARTS):
            getattr(made, name).unlink()
        if "ranks" in gone:
            for option in (1, 2, 3):
                for path in made.results(option):
                    path.unlink()
        if "pointer" in gone:
            (made.leaf / ".mlps-code-image").unlink()

    audit = audited(plan, change)
    not_audited = {one.kind for one in audit.not_audited}
    wanted = set(_needs(gone))
    assert wanted <= not_audited | {one.kind for one in audit.findings}
    assert {one.kind for one in audit.findings} <= {"code"}, "the image may be missed"


def _needs(gone: set[str]) -> Iterator[str]:
    """Kinds that cannot be looked at without some part."""
    if "metadata" in gone:
        yield from ("preloaded-library", "hosts")
    if "ranks" in gone:
        yield from ("fsync-span", "few-requests", "trials-apart", "delay")
    if "summary" in gone:
        yield from ("lost-ranks", "page-cache-speed", "working-set")
    if "description" in gone:
        yield from ("page-cache-speed", "working-set")
    if {"metadata", "pointer"} <= gone or "image" in gone:
        yield "code"
