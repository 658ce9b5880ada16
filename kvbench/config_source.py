"""Where a configuration comes from: a YAML file or one that ships with kvbench, and `KEY=VALUE` overrides.

It makes plain mappings; what keys and values are valid is `config`'s business.
"""

import copy
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from kvbench.errors import KvbenchError

_NOT_CONFIGS: Final = {"models"}
_FOLDERS: Final = ("mlperf",)
"""Folders of configurations that belong together; they are part of the names."""


def shipped_configs() -> list[str]:
    """Names of the configurations that come with kvbench."""
    top = resources.files("kvbench_configs")
    names = [entry.name for entry in top.iterdir()]
    names += [f"{folder}/{entry.name}" for folder in _FOLDERS for entry in top.joinpath(folder).iterdir()]
    found = (name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
    return sorted(name for name in found if name not in _NOT_CONFIGS)


def read_mapping(source: str) -> tuple[dict[str, Any], Path]:
    """The content of `source` (the path of a YAML file, or the name of a shipped configuration) and the directory that
    paths in it are relative to. Raises KvbenchError where it cannot be read or is no YAML mapping."""
    path = Path(source)
    if source in shipped_configs() and not path.is_file():
        text = resources.files("kvbench_configs").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
        folder = Path.cwd()
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            known = ", ".join(shipped_configs())
            raise KvbenchError(
                f"cannot read configuration {source}: {reason} (give a YAML file, or one of: {known})"
            ) from error
        folder = path.resolve().parent
    content = _parse_yaml(text, source)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise KvbenchError(f"{source}: expected a mapping of keys to values, such as `seed: 42`")
    return content, folder


def apply_override(content: dict[str, Any], override: str, defaults: Mapping[str, Any]) -> None:
    """Set one `KEY=VALUE` in `content`. What is missing on the way to the key starts as it stands in `defaults`, but
    for whole sections, which start empty; a list may be extended by the position behind its last.

    Raises KvbenchError for an override that is not of this form or leads nowhere.
    """
    key, equals, value = override.partition("=")
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise KvbenchError(f"--set {override}: expected KEY=VALUE, such as --set workload.users=4")
    parsed = _parse_yaml(value, f"--set {override}")
    place: Any = content
    default: Any = defaults
    for depth, name in enumerate(parents):
        default = _item(default, name)
        started = isinstance(default, list) or (depth > 0 and isinstance(default, dict))
        place = _enter(place, name, copy.deepcopy(default) if started else {}, override)
        if not isinstance(place, dict | list):
            raise KvbenchError(f"--set {override}: {name} is {place!r}, which has no keys; set it as a whole")
    if isinstance(place, dict):
        place[last] = parsed
        return
    position = _position(place, last, override)
    place[position : position + 1] = [parsed]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML's own loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first_lines: dict[str, int] = {}
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value != "<<":
                if name.value in first_lines:
                    problem = f"the key {name.value} stands twice, first in line {first_lines[name.value]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, name.start_mark)
                first_lines[name.value] = name.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KvbenchError(f"{source}{where}: {error.problem or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a date that does not exist, and the like.
        raise KvbenchError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def _enter(place: Any, name: str, fresh: Any, override: str) -> Any:
    """What stands at `name` in `place`, and `fresh` put there first where nothing does."""
    if isinstance(place, list):
        position = _position(place, name, override)
        if position == len(place):
            place.append(fresh)
        return place[position]
    if place.get(name) is None:
        place[name] = fresh
    return place[name]


def _item(container: Any, name: str) -> Any:
    if isinstance(container, Mapping):
        return container.get(name)
    if isinstance(container, list) and name.isdecimal() and int(name) < len(container):
        return container[int(name)]
    return None


def _position(place: list[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) > len(place):
        raise KvbenchError(f"--set {override}: {name!r} is no position in a list: expected 0 to {len(place)}")
    return int(name)
