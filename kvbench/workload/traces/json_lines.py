"""What formats of one JSON object a line have in common: lengths, times and ids, as they may stand in a line."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kvbench.workload.traces.collect import BadRowError
from kvbench.workload.traces.explain import explain_json
from kvbench.workload.traces.ids import id_of_text
from kvbench.workload.traces.trace import MAX_TOKENS


def _whole(value: Any) -> Any:
    """6758.0 is a number of tokens."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _numbers(value: Any) -> Any:
    """Ids that are all text become numbers; what is no list of text is left to be looked at."""
    if isinstance(value, list) and value and all(isinstance(hash_id, str) for hash_id in value):
        return [id_of_text(hash_id) for hash_id in value]
    return value


Length = Annotated[int, Field(ge=0, le=MAX_TOKENS), BeforeValidator(_whole)]
"""A number of tokens."""
Milliseconds = Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=2**40, allow_inf_nan=False)]
HashIds = Annotated[list[Annotated[int, Field(ge=-(2**63), lt=2**64)]], BeforeValidator(_numbers)]
"""All numbers, or all text."""
Name = int | str
"""Of a session or a chat."""


class JsonLine(BaseModel):
    """One object. Other keys are allowed, since later releases add some."""

    model_config = ConfigDict(strict=True)


L = TypeVar("L", bound=JsonLine)


def validated(model: type[L], line: bytes) -> L:
    """The object that a line is. Raises BadRowError."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise BadRowError(explain_json(error)) from error


def milliseconds_ns(milliseconds: float) -> int:
    """Whole milliseconds exactly, and what is left of them to the nanosecond."""
    whole = int(milliseconds)
    return whole * 1_000_000 + round((milliseconds - whole) * 1e6)


def seconds_ns(seconds: float) -> int:
    """Whole seconds exactly, and what is left of them to the nanosecond."""
    whole = int(seconds)
    return whole * 10**9 + round((seconds - whole) * 1e9)
