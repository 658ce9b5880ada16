"""Rule 2.1.9: the same hardware and software throughout all runs of one system, as far as they record it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.numbers import Section
from kvbench.mlperf.tree.parts import Run, System
from kvbench.mlperf.tree.recorded import NODE, Recorded
from kvbench.mlperf.tree.trial_records import TrialRecords
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

_OF_A_NODE: Final = ("cpu_model", "kernel")
_OF_A_STORAGE: Final = ("type", "device", "mount_point", "options")
_STORAGE_COLUMNS: Final = {"filesystem": "type", "device": "device", "mount_point": "mount_point"}
"""Of /nodes in a run file, and what they are called in a sequence."""
_LONGEST_KEPT: Final = 32
"""Bytes that the shortest of these columns holds; what is longer may have been cut."""
_OF_A_RUN_FILE: Final = ("kvbench_version", "timer", "mpi", "python")


@rule("2.1.9", "identicalSystemConfig", System, nothing=lambda system: "" if system.runs else "no run")
def identical_system_config(system: System) -> Iterator[Problem]:
    """Every host is the same machine with the same storage and software, in every trial of every run."""
    first: dict[str, tuple[Any, Path]] = {}
    for name, value, path in (fact for run in system.runs for fact in _facts(run)):
        seen, where = first.setdefault(name, (value, path))
        if seen != value:
            yield Problem(
                path,
                f"{name} {shown(value)}",
                f"{shown(seen)}, as in {shown(str(where.relative_to(system.path)))}: another system needs another name",
            )
    for run in system.runs:
        if not any(True for _ in _facts(run)):
            yield Problem(
                run.path, f"hardware and software {Recorded(run).absence}", "the same in all runs", "not recorded"
            )


def _facts(run: Run) -> Iterator[tuple[str, Any, Path]]:
    recorded = Recorded(run)
    where = recorded.where
    yield from _facts_of_hosts(run, where)
    if isinstance(version := recorded["kvbench_version"], str):
        yield "kvbench_version", version, where
    for node in recorded.nodes():
        yield from _facts_of_node(node, where)
    for place in items(recorded["filesystems"]):
        host = dig(place, "host")
        for name in _OF_A_STORAGE:
            if isinstance(host, str) and (value := dig(place, "cache", name)) is not MISSING:
                yield f"{name} of the storage of {shown(host)}", value, where
    for _, trial in run.trials():
        if trial.records is not None and trial.records.readable:
            yield from _facts_of_records(trial.records)


def _facts_of_hosts(run: Run, where: Path) -> Iterator[tuple[str, Any, Path]]:
    """Of another tool's metadata. Memory is left out: the kernel has a little more or less after each start."""
    for host in run.metadata.hosts:
        facts = {
            "cores": host.cores,
            "cpu_model": host.cpu_model,
            "kernel": host.kernel,
            "operating system": host.os_name,
        }
        for name, value in facts.items():
            if host.name is not None and value is not None:
                yield f"{name} of {shown(host.name)}", value, where


def _facts_of_node(node: Section, where: Path) -> Iterator[tuple[str, Any, Path]]:
    host = node["host"]
    if not isinstance(host, str):
        return
    for name in _OF_A_NODE:
        if (value := node[name]) is not MISSING:
            yield f"{name} of {shown(host)}", value, where
    for name in NODE:
        if (number := node.count(name)) is not None:
            yield f"{name} of {shown(host)}", number, where


def _facts_of_records(records: TrialRecords) -> Iterator[tuple[str, Any, Path]]:
    for name in _OF_A_RUN_FILE:
        if name in records.attributes:
            yield name, records.attributes[name], records.path
    for node in records.nodes:
        yield from _facts_of_node(Section(node, NODE), records.path)
        for column, name in _STORAGE_COLUMNS.items():
            if isinstance(node.get("host"), str) and column in node and len(node[column].encode()) < _LONGEST_KEPT:
                yield f"{name} of the storage of {shown(node['host'])}", node[column], records.path
