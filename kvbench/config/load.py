"""Reading a configuration: a file or a shipped one, and overrides, into a `RunConfig`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from kvbench.config.engines import overlay
from kvbench.config.errors import explain
from kvbench.config.run_config import RunConfig
from kvbench.config.source import apply_override, read_mapping
from kvbench.errors import KvbenchError

_CHOICES: Final = ("workload", "tiers")
"""Keys of which a configuration has one at least."""


def load_config(source: str, overrides: Iterable[str] = (), engine: str = "") -> RunConfig:
    """Read `source`, the path of a YAML file or the name of a shipped configuration, and apply `KEY=VALUE` overrides.

    A key is dotted (`workload.users=4`; `tiers.0.capacity_bytes=1GiB`) and a value is YAML. A relative trace path in a
    file starts at the file's directory, one in an override at the working directory; the result holds it absolute.
    `engine`: the twin of an engine whose way of moving bytes counts in place of the file's (`engines`); overrides win.
    Raises KvbenchError naming every wrong key, the nearest valid one and what was expected; or where neither a workload
    nor tiers are chosen.
    """
    overrides = tuple(overrides)
    content, folder = read_mapping(source)
    _make_path_absolute(content, folder)
    for override in overrides:
        apply_override(content, override, RunConfig().model_dump(mode="json"))
    _make_path_absolute(content, Path.cwd())
    name = " --set ".join((source, *overrides))
    config = parse_config(content, name)
    if engine:
        if not config.serves_as_engine:
            raise KvbenchError(
                f"{name}: --engine {engine}: only requests that are served as an engine does have blocks that it could "
                "keep: sessions, or a trace with workload.serving=engine"
            )
        overlay(content, engine, overrides)
        name += f" --engine {engine}"
        config = parse_config(content, name)
    _refuse_nothing_chosen(content, name)
    _refuse_entries_of_engine(config, content, name)
    return config


def parse_config(content: Mapping[str, Any], source: str) -> RunConfig:
    """Check `content` (a YAML mapping) and make it a RunConfig. Raises KvbenchError; `source` names it in messages."""
    workload = content.get("workload")
    if isinstance(workload, dict) and "kind" not in workload:
        content = {**content, "workload": {"kind": "personas", **workload}}
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise KvbenchError(f"{source}: {explain(error, RunConfig)}") from error


def _refuse_nothing_chosen(content: Mapping[str, Any], source: str) -> None:
    """Raise KvbenchError where neither the load nor what it goes to was chosen: nobody means to fill a disk with a file
    that is empty, or that has a name and nothing else."""
    if not any(content.get(key) for key in _CHOICES):
        raise KvbenchError(
            f"{source}: nothing is chosen: give at least a workload, such as `workload: {{users: 4}}`, or tiers, such "
            "as `tiers: [{kind: file, capacity_bytes: 10GiB}]` (docs/workloads.md has every key; `kvbench configs` "
            "lists configurations to start from)"
        )


def _refuse_entries_of_engine(config: RunConfig, content: Mapping[str, Any], source: str) -> None:
    """Raise KvbenchError where entries were asked for, and not only not mentioned, of what keeps blocks."""
    cache = content.get("cache")
    if config.serves_as_engine and isinstance(cache, dict) and cache.get("layout") == "entry":
        raise KvbenchError(
            f"{source}: cache.layout: an engine keeps blocks: leave it out, or set workload.serving=reference"
        )


def _make_path_absolute(content: dict[str, Any], folder: Path) -> None:
    workload = content.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("path"), str) and workload["path"]:
        workload["path"] = str(folder / Path(workload["path"]).expanduser())
