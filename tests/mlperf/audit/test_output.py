"""An audit is shown in Markdown, JSON and HTML, whatever stands in the tree, and nothing of it becomes markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from dishonesty import DISHONESTIES
from hypothesis import given, settings
from hypothesis import strategies as st
from made_leaf import HASH, Honest, Made, edit, make

from kvbench.commands.main import commands
from kvbench.mlperf.audit.audit import LeafAudit
from kvbench.mlperf.audit.finding import Evidence, Finding, few, listed
from kvbench.mlperf.audit.leaf import LeafFacts
from kvbench.mlperf.audit.markdown import as_markdown
from kvbench.mlperf.audit.page import as_html
from kvbench.mlperf.audit.shown import as_json

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30)


class Tags(HTMLParser):
    """Which tags a page has, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def audit_with(text: str) -> LeafAudit:
    leaf = LeafFacts(tree="t", division="closed", submitter=text, system=text, stamp="s", path="p")
    found = Finding("notable", "code", text, text, (Evidence(text, text, text),))
    return LeafAudit(leaf, Path("p"), (found,), ())


@settings(max_examples=200)
@given(text=TEXT)
def test_no_text_of_a_tree_becomes_markup(text: str) -> None:
    plain, strange = as_html([audit_with("plain")]), as_html([audit_with(text)])
    assert Tags(strange).tags == Tags(plain).tags
    assert text in Tags(strange).text
    lines = as_markdown([audit_with(text)]).splitlines()
    assert len(lines) == len(as_markdown([audit_with("plain")]).splitlines())
    row = next(line for line in lines if line.startswith("| ") and "closed" in line)
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 9
    assert json.loads(as_json([audit_with(text)]))[0]["submitter"] == text


@pytest.fixture
def made(tmp_path: Path) -> Made:
    found = make(tmp_path, Honest())
    DISHONESTIES["no fsync"].change(found)
    return found


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(commands, ["mlperf", "audit", *map(str, words)])
    return done.exit_code, " ".join(done.output.split()) if done.exit_code else done.output


def test_the_command_prints_markdown_and_json(made: Made) -> None:
    code, markdown = call(made.root)
    assert code == 0
    assert "- **invalidates** libeatmydata.so is preloaded" in markdown
    code, text = call(made.root, "--json")
    (audit,) = json.loads(text)
    assert code == 0
    assert [finding["kind"] for finding in audit["findings"]] == ["preloaded-library"]
    assert audit["findings"][0]["evidence"][0]["key"] == "command_output_files.0.command"
    assert {one["why"] for one in audit["not_audited"]} == {"no hash of upstream's code was given (--upstream)"}


@pytest.mark.parametrize(
    ("name", "begins"), [("a.md", "# MLPerf"), ("a.html", "<!DOCTYPE html>"), ("a.json", "[\n"), ("a", "# MLPerf")]
)
def test_a_file_is_of_the_form_that_its_name_says(made: Made, tmp_path: Path, name: str, begins: str) -> None:
    for _ in range(2):
        assert call(made.root, "-o", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_text().startswith(begins)


def test_a_name_of_another_form_is_refused(made: Made, tmp_path: Path) -> None:
    code, text = call(made.root, "-o", tmp_path / "a.pdf")
    assert code == 1
    assert "an audit is Markdown (.md, .txt), a page (.html) or .json" in text
    assert not (tmp_path / "a.pdf").exists()


def test_a_file_of_the_tree_is_never_replaced(made: Made, tmp_path: Path) -> None:
    before = made.summary.read_bytes()
    link = tmp_path / "link.json"
    link.symlink_to(made.summary)
    for path in (made.summary, link):
        code, text = call(made.root, "-o", path)
        assert code == 1
        assert "which this command reads; give another name" in text
    assert made.summary.read_bytes() == before


def test_upstreams_code_is_taken_from_a_checkout(made: Made, tmp_path: Path) -> None:
    checkout = tmp_path / "upstream"
    checkout.mkdir()
    (checkout / "main.py").write_text("x = 1\n")
    assert "is not upstream's as given" in call(made.root, "--upstream", checkout)[1]
    assert call(made.root, "--upstream", made.summary)[0] == 1


def test_a_tree_without_a_run_is_an_error(tmp_path: Path) -> None:
    code, text = call(tmp_path)
    assert code == 1
    assert "no run of the KV cache in" in text


def test_the_table_marks_what_an_audit_found(made: Made) -> None:
    edit(made.metadata, lambda metadata: metadata["args"].update(_validated_pool_hash=HASH[::-1]))
    done = CliRunner().invoke(commands, ["mlperf", "table", str(made.root)])
    rows = [line for line in done.output.splitlines() if line.startswith("| acme")]
    assert len(rows) == 3
    assert all(row.endswith("| invalidates: preloaded-library; notable: code |") for row in rows)


def test_long_lists_are_cut_and_say_so() -> None:
    evidence = [Evidence("p", "k", str(number)) for number in range(9)]
    assert few(evidence, 9) == tuple(evidence)
    cut = few(evidence, 4)
    assert [one.value for one in cut] == ["0", "1", "2", "3 (and 5 more such)"]
    assert (listed([2]), listed([1, 3]), listed([1, 2, 3])) == ("option 2", "options 1 and 3", "options 1, 2 and 3")
