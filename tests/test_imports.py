"""Imports point one way: what a module may know of the others, read from its source."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS: Final = (
    ("__init__", "errors", "kernel", "streams", "units"),
    ("config", "console", "records"),
    ("cache", "timed_io", "workload"),
    ("cluster", "tiers"),
    ("engine",),
    ("run",),
    ("mlperf", "studies"),
    ("commands",),
    ("__main__",),
)
"""Of kvbench, from the bottom up. A module imports its own package and what lies on lower floors, nothing beside it."""

ANALYSIS_FLOORS: Final = (
    ("text",),
    ("tables",),
    ("contention", "figures"),
    ("condensed",),
    ("plots", "summary"),
    ("compare", "copy_path", "engines", "export", "scaling", "search", "storage_model", "whatif"),
    ("history",),
    ("__init__",),
    ("report",),
)
"""Of kvbench_analysis. The package itself stands near the top: it only gathers what its users are offered."""


def modules(folder: str, package: str) -> dict[str, Path]:
    """Dotted name -> source file of every module in a folder."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


KVBENCH = modules("kvbench", "kvbench")
ANALYSIS = modules("analysis", "kvbench_analysis")
EVERY = KVBENCH | ANALYSIS
TOPS = {"kvbench", "kvbench_analysis"}


def imports_of(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports anywhere in it; for `from a import b`, both a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join((*above, *([node.module] if node.module else [])))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str:
    """The package or module right below the top: `tiers` for `kvbench.tiers.file`; `__init__` for the top itself."""
    return name.split(".")[1] if "." in name else "__init__"


def floors_of(top: str) -> tuple[tuple[str, ...], ...]:
    return FLOORS if top == "kvbench" else ANALYSIS_FLOORS


def floor_of(name: str) -> int:
    """The floor that a module stands on. A module on none, or on two, has no place in the house."""
    top = name.split(".", maxsplit=1)[0]
    found = [number for number, floor in enumerate(floors_of(top)) if part_of(name) in floor]
    assert len(found) == 1, f"{name} must stand on one floor of {top}, and stands on {found}"
    return found[0]


def imported(name: str) -> set[str]:
    """Modules of the same top package that a module imports from outside its own part."""
    top = name.split(".", maxsplit=1)[0]
    others = {other for other in imports_of(name, EVERY[name]) if other in EVERY and other.split(".")[0] == top}
    return {other for other in others if part_of(other) != part_of(name)}


def test_the_reader_of_imports_reads_them() -> None:
    assert "kvbench_analysis" in ANALYSIS
    assert {part_of(other) for other in imported("kvbench.cache.policy")} == {"records"}


def test_every_floor_is_of_what_there_is() -> None:
    for top, floors in (("kvbench", FLOORS), ("kvbench_analysis", ANALYSIS_FLOORS)):
        there = {part_of(name) for name in EVERY if name.split(".")[0] == top}
        assert {part for floor in floors for part in floor} == there


@pytest.mark.parametrize("name", EVERY)
def test_a_module_stands_on_one_floor_and_imports_only_what_lies_below(name: str) -> None:
    floor = floor_of(name)
    climbing = [other for other in imported(name) if other not in TOPS and floor_of(other) >= floor]
    assert not climbing, f"{name} imports {climbing}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {other for other in imports_of(name, path) if other in EVERY} - {name} for name, path in EVERY.items()
    }
    # A package's __init__ stands for its modules, which do not depend on it.
    for name, others in graph.items():
        others -= {other for other in others if name.startswith(f"{other}.")}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", EVERY)
def test_only_the_cluster_package_loads_mpi(name: str) -> None:
    if not name.startswith("kvbench.cluster."):
        assert not [other for other in imports_of(name, EVERY[name]) if other.split(".")[0] == "mpi4py"]


@pytest.mark.parametrize("name", ANALYSIS)
def test_the_analysis_knows_of_kvbench_nothing_but_the_records(name: str) -> None:
    ours = {other for other in imports_of(name, ANALYSIS[name]) if other.split(".")[0] == "kvbench"}
    assert {part_of(other) for other in ours} <= {"records"}, ours


@pytest.mark.parametrize("name", [name for name, path in EVERY.items() if path.name == "__init__.py"])
def test_a_package_says_what_lives_in_it_and_what_never_does(name: str) -> None:
    doc = ast.get_docstring(ast.parse(EVERY[name].read_text(encoding="utf-8")))
    assert doc, f"{name} says nothing"
    if name not in TOPS:
        assert "Never:" in doc, f"{name} does not say what never lives in it"
