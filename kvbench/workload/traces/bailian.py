"""Anonymised usage traces of Alibaba's Bailian (Qwen): one request per line, with ids of 16-token prefix blocks.

github.com/alibaba-edu/qwen-bailian-usagetraces-anon. Each line holds the whole context of its request; a chat says
which chat it goes on with. Times are in seconds.
"""

from typing import Final

from kvbench.workload.traces.collect import BadRowError, LineParser, Row
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.format import session_lines_format
from kvbench.workload.traces.ids import check_ids, session_of
from kvbench.workload.traces.json_lines import HashIds, JsonLine, Length, Name, Seconds, seconds_ns, validated
from kvbench.workload.traces.stream import TraceStream

BLOCK_TOKENS: Final = 16
_NO_PARENT: Final = (-1, "-1")


class _Line(JsonLine):
    chat_id: Name
    parent_chat_id: Name
    timestamp: Seconds
    input_length: Length
    output_length: Length
    hash_ids: HashIds


def _parser(stream: TraceStream) -> LineParser:
    sessions: dict[Name, int] = {}

    def parse(line: bytes) -> Row:
        row = validated(_Line, line)
        if row.parent_chat_id in _NO_PARENT:
            session = session_of("bailian", stream.index, row.chat_id)
        elif row.parent_chat_id in sessions:
            session = sessions[row.parent_chat_id]
        else:
            raise BadRowError(
                f"parent_chat_id {row.parent_chat_id!r} is no chat before: expected the chat_id of an earlier line, or "
                "-1 for the first of a conversation"
            )
        # What goes on with it is no worse for its ids.
        sessions[row.chat_id] = session
        check_ids(len(row.hash_ids), row.input_length, BLOCK_TOKENS, "ceil", keys=("hash_ids", "input_length"))
        return Row(seconds_ns(row.timestamp), row.input_length, row.output_length, row.hash_ids, session)

    return parse


def _fits(fields: Fields) -> bool:
    return fields.keys() >= {"chat_id", "parent_chat_id", "timestamp", "input_length"}


BAILIAN: Final = session_lines_format(
    "bailian", _parser, shape="Qwen-Bailian JSONL", block_tokens=BLOCK_TOKENS, fits=_fits, sorts=True
)
