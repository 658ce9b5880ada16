"""Mooncake's JSONL traces: one request per line, with ids of 512-token prefix blocks.

Mooncake FAST'25 trace release (github.com/kvcache-ai/Mooncake). The ids are opaque: only whether two are equal counts.
Files that others made after it have lengths like 6758.0, ids that are text, or lines that are not in order of time.
"""

from typing import Any, Final

from kvbench.workload.traces.collect import BadRowError, Row
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.format import by_fields_only, lines_format
from kvbench.workload.traces.ids import check_ids
from kvbench.workload.traces.json_lines import HashIds, JsonLine, Length, Milliseconds, milliseconds_ns, validated

BLOCK_TOKENS: Final = 512
_FOREIGN: Final = ("chat_id", "parent_chat_id", "session_id", "delay")


class _Line(JsonLine):
    timestamp: Milliseconds
    input_length: Length
    output_length: Length
    hash_ids: HashIds
    chat_id: Any = None
    parent_chat_id: Any = None
    session_id: Any = None
    delay: Any = None


def parse_line(line: bytes) -> Row:
    """One line of the file. Raises BadRowError."""
    row = validated(_Line, line)
    for key in _FOREIGN:
        if getattr(row, key) is not None:
            raise BadRowError(f"{key} is no field of the mooncake format: this line is of another")
    check_ids(len(row.hash_ids), row.input_length, BLOCK_TOKENS, "ceil", keys=("hash_ids", "input_length"))
    return Row(milliseconds_ns(row.timestamp), row.input_length, row.output_length, row.hash_ids)


def _fits(fields: Fields) -> bool:
    return fields.keys() >= {"timestamp", "input_length", "output_length"} and not fields.keys() & set(_FOREIGN)


MOONCAKE: Final = lines_format(
    "mooncake",
    by_fields_only,
    parse_line,
    shape="Mooncake JSONL",
    block_tokens=BLOCK_TOKENS,
    fits=_fits,
    sorts=True,
)
