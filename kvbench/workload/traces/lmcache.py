"""LMCache's traces as text, one request a line: `timestamp` (s), `input`, `output`, `session_id`.

Each line holds its whole prompt, as text or as messages, so that blocks are told by what stands in them: requests with
the same beginning share its blocks, whosoever they are, and a prompt that goes on with an answer shares that one's
blocks, where the answer is there as text. Files that give `output_length` for the answer, and `pre_gap`
(s after the answer before) for the time, are read too: without a timestamp a session begins at 0.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from kvbench.workload.traces.collect import BadRowError, LineParser, Row, TraceCollector, collect_lines
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.format import TraceFormat, by_fields_only
from kvbench.workload.traces.ids import session_of
from kvbench.workload.traces.json_lines import JsonLine, Length, Name, Seconds, seconds_ns, validated
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.tokens import BLOCK_TOKENS, Tokenizer, content_ids, tokenizer
from kvbench.workload.traces.trace import Trace

_NAME: Final = "lmcache"


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    role: str
    content: str | None = None


class _Line(JsonLine):
    session_id: Name
    prompt: Annotated[str | list[_Message], Field(alias="input")]
    output: str | None = None
    output_length: Length | None = None
    timestamp: Seconds | None = None
    pre_gap: Seconds | None = None

    @property
    def text(self) -> str:
        """The whole prompt."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "".join(f"{message.role}\n{message.content or ''}\n" for message in self.prompt)

    @property
    def answered(self) -> str:
        """The answer, as it stands in a prompt that goes on with it."""
        return (self.output or "") if isinstance(self.prompt, str) else f"assistant\n{self.output or ''}\n"


def _parser(tokens: Tokenizer) -> LineParser:
    arrivals_ns: dict[Name, int] = {}

    def parse(line: bytes) -> Row:
        row = validated(_Line, line)
        if row.output is None and row.output_length is None:
            raise BadRowError("output is missing (or output_length, its tokens)")
        before_ns = arrivals_ns.get(row.session_id)
        known_ns = None if row.pre_gap is None else seconds_ns(row.pre_gap)
        if row.timestamp is not None:
            arrival_ns = seconds_ns(row.timestamp)
        elif known_ns is not None:
            arrival_ns = (before_ns or 0) + (0 if before_ns is None else known_ns)
        else:
            raise BadRowError("timestamp is missing (or pre_gap, the time since the answer before)")
        arrivals_ns[row.session_id] = arrival_ns
        prompt = tokens.split(row.text)
        answer = tokens.count(row.output) if row.output is not None else row.output_length
        gap_ns = -1 if before_ns is None or known_ns is None else known_ns
        session = session_of(_NAME, row.session_id)
        answer_ids: list[int] = []
        if row.output:
            whole = tokens.split(row.text + row.answered)[: len(prompt) + (answer or 0)]
            answer_ids = content_ids(whole)[len(prompt) // BLOCK_TOKENS :]
        return Row(arrival_ns, len(prompt), answer or 0, content_ids(prompt), session, gap_ns, answer_ids)

    return parse


def _read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    tokens = tokenizer()
    collector = TraceCollector(
        stream.path,
        _NAME,
        hash_block_tokens=BLOCK_TOKENS,
        token_counting=tokens.name,
        skip_bad_lines=skip_bad_lines,
        sorts=True,
    )
    return collect_lines(collector, stream.lines(), _parser(tokens))


def _fits(fields: Fields) -> bool:
    return fields.keys() >= {"session_id", "input"} and bool(fields.keys() & {"output", "output_length"})


LMCACHE: Final = TraceFormat(_NAME, by_fields_only, _read, shape="LMCache text as JSONL", fits=_fits)
