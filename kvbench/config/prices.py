"""What things cost, for what storage is worth: a section of a configuration, or a file with the same keys."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from kvbench.config.errors import explain
from kvbench.config.source import read_yaml
from kvbench.config.types import Number
from kvbench.config.workload import Section
from kvbench.errors import KvbenchError

_Amount = Annotated[Number, Field(ge=0, le=1e12)]
_Size = Annotated[Number, Field(gt=0, le=1e12)]
_Words = Annotated[str, Field(min_length=1, max_length=500)]


class Price(Section):
    """Of a GPU for an hour, or of a GB (10^9 bytes) of storage for a month."""

    price: _Amount
    source: _Words
    """Whose price, and of when."""


class Drive(Section):
    """One that is bought."""

    price: _Amount
    capacity_gb: _Size
    """10^9 bytes."""
    years: _Size
    """Over which its price is spread."""
    source: _Words


def _none(value: object) -> object:
    return None if value == "none" else value


class Prices(Section):
    """In one currency, whichever. Modelled figures are made of them, and no measured one."""

    currency: Annotated[str, Field(min_length=1, max_length=12)]
    gpu_hour: Price
    storage_gb_month: Price | None = None
    drive: Drive | None = None

    @model_validator(mode="after")
    def _storage_has_a_price(self) -> Self:
        if self.storage_gb_month is None and self.drive is None:
            raise ValueError("storage has no price: give storage_gb_month, or drive, or both")
        return self


PricesOrNone = Annotated[Prices | None, BeforeValidator(_none)]
"""`none`, as null, leaves prices out."""

EXAMPLE: Final = "example"
"""The name of the prices that come with kvbench, which are nobody's."""


def read_prices(source: str) -> dict[str, Any]:
    """The content of a file of prices, or of those called EXAMPLE, checked. Raises KvbenchError naming the file and
    what is wrong with it."""
    path = Path(source)
    try:
        shipped = resources.files("kvbench_configs").joinpath("prices.yaml")
        there = path if path.exists() or source != EXAMPLE else shipped
        text = there.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise KvbenchError(f"cannot read prices {source}: {reason} (give a YAML file, or {EXAMPLE})") from error
    content = read_yaml(text, source)
    if not isinstance(content, dict):
        raise KvbenchError(f"{source}: expected a mapping of keys to values, as in configs/prices.yaml")
    try:
        return Prices.model_validate(content).model_dump(mode="json")
    except ValidationError as error:
        raise KvbenchError(f"{source}: {explain(error, Prices)}") from error
