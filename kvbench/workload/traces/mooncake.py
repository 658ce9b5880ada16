"""Mooncake's JSONL traces: one request per line, with ids of 512-token prefix blocks.

Mooncake FAST'25 trace release (github.com/kvcache-ai/Mooncake). The ids are opaque: only whether two are equal counts.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.workload.traces.collect import BadRowError, Row
from kvbench.workload.traces.explain import explain_json
from kvbench.workload.traces.format import lines_format
from kvbench.workload.traces.trace import MAX_TOKENS

BLOCK_TOKENS: Final = 512


class _Line(BaseModel):
    """Other keys are allowed, since later releases add some."""

    model_config = ConfigDict(strict=True)

    timestamp: float = Field(ge=0, le=2**53, allow_inf_nan=False)
    """Milliseconds."""
    input_length: int = Field(ge=0, le=MAX_TOKENS)
    output_length: int = Field(ge=0, le=MAX_TOKENS)
    hash_ids: list[Annotated[int, Field(ge=-(2**63), lt=2**64)]]


def parse_line(line: bytes) -> Row:
    """One line of the file. Raises BadRowError."""
    try:
        row = _Line.model_validate_json(line)
    except ValidationError as error:
        raise BadRowError(explain_json(error)) from error
    blocks = -(-row.input_length // BLOCK_TOKENS)
    if len(row.hash_ids) != blocks:
        raise BadRowError(
            f"{len(row.hash_ids)} hash_ids, but input_length {row.input_length} is {blocks} blocks of {BLOCK_TOKENS}"
        )
    whole_ms = int(row.timestamp)
    timestamp_ns = whole_ms * 1_000_000 + round((row.timestamp - whole_ms) * 1e6)
    return Row(timestamp_ns, row.input_length, row.output_length, row.hash_ids)


MOONCAKE: Final = lines_format(
    "mooncake", lambda start: start.startswith(b"{"), parse_line, shape="Mooncake JSONL", block_tokens=BLOCK_TOKENS
)
