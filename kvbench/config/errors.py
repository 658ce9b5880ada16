"""What is wrong with a configuration, in words: the key, what was expected with its unit, and the nearest valid key.

It turns pydantic's list of errors into one message and knows the sections of a configuration only by their fields.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (in quotes, where it looks like something else)",
    "string_too_short": "text that is not empty",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "union_tag_not_found": "a mapping of keys to values",
    "tuple_type": "a list",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
}
"""pydantic's type of error -> what was expected."""

_UNITS: Final = {
    "_ms_per_token": "milliseconds per token",
    "requests_per_s": "requests per second",
    "_tokens": "tokens",
    "bytes": "bytes",
    "seconds": "seconds",
    "_s": "seconds",
}
"""End of a key -> its unit; the first that fits counts."""

_LONGEST_SHOWN: Final = 200

_IN_QUOTES: Final = re.compile(r"'([^']*)'")


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """All that `error` found wrong with a mapping for `root`, as one message."""
    return "; ".join(_sentence(detail, root) for detail in error.errors(include_url=False))


def _sentence(detail: Mapping[str, Any], root: type[BaseModel]) -> str:
    parts, section = _locate(detail["loc"], root)
    key, kind, context = ".".join(parts), detail["type"], detail.get("ctx", {})
    match kind:
        case "literal_error" if detail["loc"][-1] == "[key]":
            text = _unknown_key(parts, _IN_QUOTES.findall(context["expected"]), root)
        case "literal_error":
            text = _one_of(key, _IN_QUOTES.findall(context["expected"]), detail["input"])
        case "union_tag_invalid":
            tag_key = f"{key}.{_IN_QUOTES.findall(context['discriminator'])[0]}"
            text = _one_of(tag_key, _IN_QUOTES.findall(context["expected_tags"]), context["tag"])
        case "extra_forbidden" | "invalid_key":
            text = _unknown_key(parts, list(section.model_fields) if section else [], root)
        case "missing":
            description = section.model_fields[parts[-1]].description if section else None
            text = f"missing key {key}" + (f": expected {description}" if description else "")
        case _ if kind in _EXPECTED:
            bounds = {name: f"{bound:g}" for name, bound in context.items() if isinstance(bound, int | float)}
            unit = next((f", in {unit}" for end, unit in _UNITS.items() if key.endswith(end)), "")
            text = f"{key}: expected {_EXPECTED[kind].format_map(bounds)}{unit}{_given(detail['input'])}"
        case _:
            text = _own_message(key, str(detail["msg"]).removeprefix("Value error, "), detail["input"])
    return text


def _own_message(key: str, message: str, given: object) -> str:
    """What a validator of ours says, with the key and the value where it did not name them."""
    if not key or message.startswith(f"{key}."):
        return message
    return f"{key}: {message}" + ("" if repr(given) in message else _given(given))


def _unknown_key(parts: list[str], valid: list[str], root: type[BaseModel]) -> str:
    """A key that there is elsewhere was meant for there; else the nearest of its section was meant."""
    *parents, name = parts
    key = ".".join(parts)
    elsewhere = [other for other in _all_keys(root) if other.split(".")[-1] == name]
    siblings = [".".join((*parents, near)) for near in difflib.get_close_matches(name, valid, n=1, cutoff=0.0)]
    hint = next((f"did you mean {other}? " for other in (*elsewhere, *siblings)), "")
    if key in elsewhere:
        hint = f"it belongs to another kind of {'.'.join(parents)} "
    return f"unknown key {key}: {hint}(valid here: {', '.join(sorted(valid))})"


def _one_of(key: str, choices: list[str], given: object) -> str:
    near = difflib.get_close_matches(given, choices, n=1) if isinstance(given, str) else []
    hint = f": did you mean {near[0]}?" if near else ""
    return f"{key}: expected one of {', '.join(choices)}{_given(given)}{hint}"


def _given(value: object) -> str:
    if value is not None and not isinstance(value, str | int | float):
        return ""
    shown = json.dumps(value)
    return f" (given: {shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 3] + '...'})"


def _locate(loc: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The dotted key that pydantic's location means, and the section that holds it.

    A location also names, behind the field, the kind of section that was chosen; that is no part of the key.
    """
    parts: list[str] = []
    section: type[BaseModel] | None = root
    choices: list[type[BaseModel]] = []
    chosen_by_tag = False
    last = len(loc) - 1
    for index, part in enumerate(loc):
        if chosen_by_tag:
            section = next((choice for choice in choices if _has_tag(choice, str(part))), None)
            chosen_by_tag = False
        elif part != "[key]":
            parts.append(str(part))
            if index < last and section and part in section.model_fields:
                field = section.model_fields[str(part)]
                choices = list(_sections(field.annotation))
                chosen_by_tag = field.discriminator is not None
                section = choices[0] if len(choices) == 1 else None
    return parts, section


def _has_tag(section: type[BaseModel], tag: str) -> bool:
    kind = section.model_fields.get("kind")
    return kind is None or tag in get_args(kind.annotation)


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field of this type can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        position = "0." if "tuple" in str(field.annotation) else ""
        for inner in _sections(field.annotation):
            yield from _all_keys(inner, f"{prefix}{name}.{position}")
