"""Where a configuration comes from: a YAML file or one that ships with kvbench, and `KEY=VALUE` overrides.

It makes plain mappings; what keys and values are valid is `config`'s business.
"""

import copy
import re
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from kvbench.errors import KvbenchError

_NOT_CONFIGS: Final = {"gpus", "models", "prices"}
_FOLDERS: Final = ("mlperf",)
"""Folders of configurations that belong together; they are part of the names."""
_POSITION: Final = re.compile("[0-9]{1,9}")
_MOST_VALUES: Final = 100_000
_MOST_BITS: Final = 128


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
    content = read_yaml(text, source)
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
    parsed = read_yaml(value, f"--set {override}")
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


def read_yaml(text: str, source: str) -> Any:
    """The YAML in `text`, which `source` names in messages. Raises KvbenchError."""
    try:
        content = yaml.load(text, _Loader)
        _count_values(content, {})
        return content
    except RecursionError as error:
        raise KvbenchError(f"{source}: it is nested too deeply for a configuration") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KvbenchError(f"{source}{where}: {error.problem or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a date that does not exist, and the like.
        raise KvbenchError(f"{source}: not valid YAML: {' '.join(str(error).split())[:200]}") from error


def _count_values(content: Any, known: dict[int, int | None]) -> int:
    """How many values `content` has, where one that is referred to counts every time. Raises ValueError: too many.

    Ten lines of YAML whose aliases refer to each other can stand for billions. `known` are the numbers of the
    containers seen so far, by identity; None while one is being counted.
    """
    if isinstance(content, int) and content.bit_length() > _MOST_BITS:
        raise ValueError(f"a number of more than {_MOST_BITS} bits")
    if not isinstance(content, dict | list | set | tuple):
        return 1
    count = known.get(id(content), 0)
    if count is None:
        raise ValueError("an alias that refers to what it is part of")
    if not count:
        known[id(content)] = None
        inner = [*content, *content.values()] if isinstance(content, dict) else content
        count = 1 + sum(_count_values(value, known) for value in inner)
        if count > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values, counting what aliases refer to")
        known[id(content)] = count
    return count


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
    if isinstance(container, list) and _POSITION.fullmatch(name) and int(name) < len(container):
        return container[int(name)]
    return None


def _position(place: list[Any], name: str, override: str) -> int:
    if not _POSITION.fullmatch(name) or int(name) > len(place):
        raise KvbenchError(f"--set {override}: {name!r} is no position in a list: expected 0 to {len(place)}")
    return int(name)
