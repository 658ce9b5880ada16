"""Twins of serving engines: how an engine moves bytes, as an overlay on a workload's configuration.

A twin says in what blocks the cache is kept, how objects lie on the file tier, by which calls they move, and how the
engine looks up what is there. It governs those keys whole: what it leaves out has its default, and what the
configuration says there does not count. All else is the workload's: requests, model, tiers, capacities, policy.
"""

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from kvbench.config.errors import explain
from kvbench.config.sections import Io, Layout
from kvbench.config.source import read_yaml
from kvbench.config.workload import Section
from kvbench.errors import KvbenchError

Text = Annotated[str, Field(min_length=1)]

_OF_WORKLOAD: Final = {"arena_bytes", "drop_page_cache"}
"""Of `io`: how it is measured."""
GOVERNED: Final[Mapping[str, tuple[str, ...]]] = {
    "cache": ("block_tokens", "partial_blocks", "lookup", "write", "split"),
    "io": tuple(name for name in Io.model_fields if name not in _OF_WORKLOAD),
}
"""Keys that a twin decides; beside them stand the kind of the last tier and the layout of its files."""


class Twin(Section):
    """What an engine's way of moving bytes was made from."""

    name: Text
    package: Text
    """That has the engine's code, as the package index calls it."""
    version: Text
    part: Text
    """Of the package: what moves the bytes."""
    checked: bool
    """Whether its system calls were compared with those of the real thing; false: made from its source alone."""

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.name} ({self.package} {self.version}, {'checked' if self.checked else 'unchecked'})"


class _Own(Section):
    """Of a twin's file: what it is made from, without its name, which is the file's."""

    package: Text
    version: Text
    part: Text
    checked: bool


class Engine(Section):
    """A twin's file."""

    twin: _Own
    differences: tuple[Text, ...] = ()
    """What the engine does and its twin does not."""
    tier: Literal["file", "object"] = "file"
    """What the engine keeps blocks in: files of a directory, or objects of a bucket."""
    layout: Layout = Layout()
    """Of files."""
    cache: dict[str, Any] = Field(default_factory=dict)
    io: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_files_have_a_layout(self) -> Self:
        if self.tier == "object" and self.layout != Layout():
            raise ValueError("layout: it is for files; leave it out where tier is object")
        return self


def shipped_engines() -> list[str]:
    """Names of the twins that come with kvbench."""
    found = resources.files("kvbench_configs").joinpath("engines").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml"))


def read_engine(name: str) -> tuple[Twin, Engine]:
    """The twin called `name`, or that of a YAML file. Raises KvbenchError: there is none, or a key is wrong."""
    known = shipped_engines()
    if name in known:
        text = resources.files("kvbench_configs").joinpath("engines", f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise KvbenchError(f"engine {name}: cannot read it: {reason} (there are: {', '.join(known)})") from error
    else:
        raise KvbenchError(
            f"engine {name}: there is no such twin of an engine; there are: {', '.join(known)}; or give a YAML file "
            "of your own (docs/engines.md)"
        )
    content = read_yaml(text, name)
    try:
        engine = Engine.model_validate(content if isinstance(content, dict) else {})
    except ValidationError as error:
        raise KvbenchError(f"engine {name}: {explain(error, Engine)}") from error
    for section, keys in GOVERNED.items():
        for key in getattr(engine, section):
            if key not in keys:
                raise KvbenchError(
                    f"engine {name}: {section}.{key} is no key that an engine decides (those are: {', '.join(keys)})"
                )
    return Twin(name=Path(name).stem, **engine.twin.model_dump()), engine


def overlay(content: dict[str, Any], name: str, overrides: Iterable[str]) -> None:
    """Set in `content`, a configuration to which `overrides` were applied, what the twin called `name` decides, but for
    what they decide. Raises KvbenchError."""
    twin, engine = read_engine(name)
    said = {override.partition("=")[0] for override in overrides}
    for section, keys in GOVERNED.items():
        present = content.get(section)
        place = present if isinstance(present, dict) else {}
        decided: dict[str, Any] = getattr(engine, section)
        for key in keys:
            if not _is_said(f"{section}.{key}", said):
                place.pop(key, None)
                if key in decided:
                    place[key] = decided[key]
        content[section] = place
    _overlay_last_tier(content, name, engine, said)
    content["twin"] = twin.model_dump(mode="json")


def _overlay_last_tier(content: dict[str, Any], name: str, engine: Engine, said: set[str]) -> None:
    """What the engine keeps its blocks in: a file tier becomes one of objects where those are the engine's."""
    tiers = content.setdefault("tiers", [{"kind": "file"}])
    found = tiers[-1] if isinstance(tiers, list) and tiers else None
    last: dict[str, Any] = found if isinstance(found, dict) else {}
    own = f"tiers.{len(tiers) - 1}"
    whole = {"tiers", own} & said
    if last.get("kind") == "file" and engine.tier == "object" and not (whole or f"{own}.kind" in said):
        last["kind"] = "object"
        last.pop("layout", None)
    if last.get("kind") != engine.tier:
        raise KvbenchError(
            f"engine {name}: it lies on {'an object' if engine.tier == 'object' else 'a file'} tier, which must be "
            "the last of the configuration's tiers"
        )
    if engine.tier == "file" and not (whole and "layout" in last):
        inner = {key.rpartition(".")[2] for key in said if key.startswith(f"{own}.layout.")}
        if f"{own}.layout" not in said:
            kept = {key: value for key, value in (last.get("layout") or {}).items() if key in inner}
            last["layout"] = engine.layout.model_dump(mode="json", exclude_unset=True) | kept


def _is_said(key: str, said: set[str]) -> bool:
    """Whether an override is about `key`, what it lies in, or what lies in it."""
    return any(one == key or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in said)
