"""Imports point one way: what a module may know of the others, read from its source."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    {
        "errors",
        "units",
        "models",
        "config",
        "config_errors",
        "config_source",
        "config_types",
        "config_workload",
        "records",
        "machine",
        "roles",
    },
    {"timed_io"},
    {"tiers"},
    {"cache", "workload"},
    {"engine", "cluster"},
)
"""From the bottom up; a module imports its own package and what lies below it, but nothing beside it.

The lowest may import each other. What is named nowhere is above all of these: the runner and what belongs to it."""

ENTRANCES = {"cli", "__main__"}
"""Nothing imports these."""

FORBIDDEN = {"cache": {"tiers", "timed_io"}, "workload": {"tiers", "timed_io"}, "records": {"timed_io", "config"}}
"""Closer limits: bookkeeping, requests and records know nothing of how bytes are moved."""


def modules(folder: str, package: str) -> dict[str, Path]:
    """Dotted name -> source file of every module in a folder."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


KVBENCH = modules("kvbench", "kvbench")
ANALYSIS = modules("analysis", "kvbench_analysis")


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
    """The module or package right below kvbench: `tiers` for `kvbench.tiers.file.tier`; "" for kvbench itself."""
    return name.split(".")[1] if "." in name else ""


def layer_of(part: str) -> int:
    return next((number for number, layer in enumerate(LAYERS) if part in layer), len(LAYERS))


def parts_imported(name: str) -> set[str]:
    """Parts of kvbench, other than its own, that a module imports."""
    parts = {part_of(other) for other in imports_of(name, KVBENCH[name]) if other.split(".")[0] == "kvbench"}
    return parts - {"", part_of(name)}


def test_the_modules_are_found() -> None:
    assert {part for layer in LAYERS for part in layer} <= {part_of(name) for name in KVBENCH}
    assert "kvbench_analysis" in ANALYSIS
    assert parts_imported("kvbench.cache.policy") == {"records"}, "the reader of imports reads them"


@pytest.mark.parametrize("name", KVBENCH)
def test_a_module_imports_only_what_lies_below_it(name: str) -> None:
    part = part_of(name)
    layer = layer_of(part)
    for other in parts_imported(name):
        beside_is_fine = layer in {0, len(LAYERS)}
        assert layer_of(other) < layer or (layer_of(other) == layer and beside_is_fine), f"{name} imports {other}"
    assert not parts_imported(name) & FORBIDDEN.get(part, set())


@pytest.mark.parametrize("name", KVBENCH)
def test_nothing_imports_the_command_line(name: str) -> None:
    if part_of(name) not in ENTRANCES:
        assert not parts_imported(name) & ENTRANCES


def test_no_modules_import_each_other_in_a_circle() -> None:
    every = KVBENCH | ANALYSIS
    graph = {
        name: {other for other in imports_of(name, path) if other in every} - {name} for name, path in every.items()
    }
    # A package's __init__ stands for its modules, which do not depend on it.
    for name, others in graph.items():
        others -= {other for other in others if name.startswith(f"{other}.")}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", KVBENCH | ANALYSIS)
def test_only_the_cluster_package_loads_mpi(name: str) -> None:
    if part_of(name) != "cluster":
        assert not [other for other in imports_of(name, (KVBENCH | ANALYSIS)[name]) if other.split(".")[0] == "mpi4py"]


@pytest.mark.parametrize("name", ANALYSIS)
def test_the_analysis_knows_of_kvbench_nothing_but_the_records(name: str) -> None:
    ours = {other for other in imports_of(name, ANALYSIS[name]) if other.split(".")[0] == "kvbench"}
    assert {part_of(other) for other in ours} <= {"records"}, ours
