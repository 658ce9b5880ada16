"""The kinds of values that a configuration holds, and how each is read: counts, numbers, sizes, durations, models."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag

from kvbench.models import ModelGeometry, shipped_model
from kvbench.units import parse_bytes, parse_seconds


def _parse_bytes_or_auto(value: object) -> object:
    try:
        return value if value == "auto" else parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from error


def _refuse_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _check_model_name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected the name of a model, or a mapping with its geometry")
    shipped_model(value)
    return value


Count = Annotated[int, Strict()]
Number = Annotated[float, BeforeValidator(_refuse_switch)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
"""A size in bytes, written as a number or with a unit (`4GiB`)."""
BytesOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_parse_bytes_or_auto)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""A duration in seconds, written as a number or with a unit (`2min`)."""
Model = Annotated[
    Annotated[str, BeforeValidator(_check_model_name), Tag("name")] | Annotated[ModelGeometry, Tag("geometry")],
    Field(discriminator=Discriminator(lambda value: "geometry" if isinstance(value, dict | ModelGeometry) else "name")),
]
"""A model that comes with kvbench, by name, or the geometry of any other."""
