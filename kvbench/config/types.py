"""The kinds of values that a configuration holds, and how each is read: counts, numbers, sizes, durations, models."""

from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, Strict, Tag, WrapValidator
from pydantic_core import PydanticKnownError

from kvbench.config.models import ModelGeometry, shipped_model
from kvbench.config.names import CACHE_POLICIES, CHAIN_POLICIES, TIER_KINDS, TRACE_FORMATS
from kvbench.units import as_whole, parse_bytes, parse_seconds, storable

_MOST: Final = 2**53
_MOST_BYTES: Final = 2**62
_MOST_FACTOR: Final = 1e6
"""So that times multiplied or divided by it remain times."""


def one_of(names: Iterable[str], *, besides: tuple[str, ...] = ()) -> PlainValidator:
    """A value that must be among `names`, as they are when it is read, or `besides`."""

    def check(value: object) -> str:
        known = (*besides, *names)
        if isinstance(value, str) and value in known:
            return value
        raise PydanticKnownError("literal_error", {"expected": ", ".join(repr(name) for name in known)})

    return PlainValidator(check)


def _parse_bytes(value: object) -> int:
    size = parse_bytes(value)
    if size > _MOST_BYTES:
        raise ValueError("expected a size of at most 4096PiB")
    return size


def _parse_bytes_or_auto(value: object) -> object:
    try:
        return value if value == "auto" else _parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from error


def _refuse_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _refuse_extreme(value: float) -> float:
    if value and not 1 / _MOST_FACTOR <= abs(value) <= _MOST_FACTOR:
        raise ValueError("expected a number from 1e-6 to 1e6")
    return value


def _refuse_too_many(value: int) -> int:
    if abs(value) > _MOST:
        raise ValueError("expected 2^53 or less")
    return value


def _keep_bytes(value: object, check: Callable[[object], str]) -> str:
    """A path may hold bytes that are no text, which pydantic takes for no string."""
    return value if isinstance(value, str) and storable(value) != value else check(value)


def _check_model_name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected the name of a model, or a mapping with its geometry")
    shipped_model(value)
    return value


Count = Annotated[int, BeforeValidator(as_whole), Strict(), AfterValidator(_refuse_too_many)]
"""A whole number, in whatever way it is written: 1000, 1e3."""
Number = Annotated[float, BeforeValidator(_refuse_switch)]
Factor = Annotated[Number, AfterValidator(_refuse_extreme)]
"""A number that times are multiplied or divided by."""
Bytes = Annotated[int, BeforeValidator(_parse_bytes)]
"""A size in bytes, written as a number or with a unit (`4GiB`)."""
BytesOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_parse_bytes_or_auto)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
"""A duration in seconds, written as a number or with a unit (`2min`)."""
FilePath = Annotated[str, Field(min_length=1), WrapValidator(_keep_bytes)]
PolicyName = Annotated[str, one_of(CACHE_POLICIES, besides=CHAIN_POLICIES)]
Model = Annotated[
    Annotated[str, BeforeValidator(_check_model_name), Tag("name")] | Annotated[ModelGeometry, Tag("geometry")],
    Field(discriminator=Discriminator(lambda value: "geometry" if isinstance(value, dict | ModelGeometry) else "name")),
]
"""A model that comes with kvbench, by name, or the geometry of any other."""
TierKindName = Annotated[str, one_of(TIER_KINDS)]
TraceFormat = Annotated[str, one_of(TRACE_FORMATS, besides=("auto",))]
