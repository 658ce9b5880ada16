"""The documentation holds what it says: links lead somewhere, commands exist, every configuration key is described."""

import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kvbench.commands.main import commands
from kvbench.commands.table import COMMANDS
from kvbench.config.models import shipped_models
from kvbench.config.run_config import RunConfig
from kvbench.units import parse_bytes

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"\bkvbench ((?:[a-z][a-z-]*\b ?){1,2})")
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*) \|", re.MULTILINE)
REQUIRED = "required"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as they are made where Markdown is shown."""
    headings = HEADING.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[str]:
    for groups in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        target = groups[0] or groups[1]
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leaves the project"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_holds_both_sides_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(<{7}|={7}|>{7})( |$)", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_index_lists_every_page() -> None:
    listed = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def commands_named(text: str) -> set[str]:
    """What follows `kvbench` in code, as far as it can be a command: one word, or two for a group."""
    code = "\n".join([*CODE.findall(text), *re.findall(r"`([^`\n]+)`", CODE.sub("", text))])
    groups = {words.partition(" ")[0] for words in COMMANDS if " " in words}
    named = set()
    for words in COMMAND.findall(code):
        first, *rest = words.split()
        named.add(f"{first} {rest[0]}" if first in groups and rest else first)
    return named


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    assert commands_named(page.read_text(encoding="utf-8")) <= set(COMMANDS)


def test_the_readme_names_every_command() -> None:
    assert {name.split()[0] for name in COMMANDS} <= {
        name.split()[0] for name in commands_named((ROOT / "README.md").read_text(encoding="utf-8"))
    }


def options() -> set[str]:
    """Every long option of every command."""

    every = [commands, *(entry.command() for entry in COMMANDS.values() if entry.place)]
    return {option for command in every for parameter in command.params for option in parameter.opts}


def test_every_option_that_follows_kvbench_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    code = "\n".join([*CODE.findall(text), *re.findall(r"`([^`\n]+)`", CODE.sub("", text))])
    used = {
        option for line in re.findall(r"\bkvbench [a-z]+ .*", code) for option in re.findall(r"(--[a-z][a-z-]*)", line)
    }
    assert used
    # --vs stands between run files, which click has no option for: `kvbench compare` takes it out itself.
    assert used - {"--vs"} <= options()


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The sections that a field can hold, in the order in which they are written."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    return []


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of all keys; a list's position is N. `model`, `compute` and `prices` are values as well."""
    for name, field in section.model_fields.items():
        annotation = field.annotation
        inner = models_in(annotation)
        key = f"{prefix}{name}"
        if not inner or name in ("model", "compute", "prices"):
            yield key, field
        below = f"{key}.N." if typing.get_origin(annotation) is tuple else f"{key}."
        for model in inner:
            yield from keys_of(model, below)


def as_configured(key: str, cell: str) -> Any:
    """The value that a default, as it stands in the documentation, means."""
    value = yaml.safe_load(cell)
    value = tuple(value) if isinstance(value, list) else value
    return parse_bytes(value) if isinstance(value, str) and key.endswith("bytes") and value != "auto" else value


def test_every_configuration_key_is_described_with_its_default() -> None:
    text = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
    described = [(key, as_configured(key, cell)) for key, cell in ROW.findall(text.partition("## Every key")[2])]
    configured = [
        (key, REQUIRED if field.is_required() else field.get_default(call_default_factory=True))
        for key, field in keys_of(RunConfig)
    ]
    # Keys that personas and traces share stand in both tables.
    assert sorted(described, key=repr) == sorted(configured, key=repr)


def test_every_shipped_model_is_in_the_table() -> None:
    text = (ROOT / "docs" / "workloads.md").read_text(encoding="utf-8")
    table = text.partition("| model | layers |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    described = {name: int(row[-1].replace(" ", "")) for row in rows for name in row[0].split(", ")}
    assert described == {name: model.bytes_per_token for name, model in shipped_models().items()}
