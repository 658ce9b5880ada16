"""Agentic coding sessions, one JSON object a conversation: the traces of kv-cache-tester, and others made like them.

`requests` of a conversation are its agent's requests and `subagent`s, which have requests of their own; each agent's
chain is a session. Each request holds its whole context, and has the ids of its full blocks alone. Ids of scope `local`
mean something only within their conversation. Times are seconds, from the conversation's own 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.workload.traces.collect import BadRowError, Row, TraceCollector
from kvbench.workload.traces.explain import explain_json
from kvbench.workload.traces.fields import Fields
from kvbench.workload.traces.format import AS_RECORDED, TraceFormat, by_fields_only
from kvbench.workload.traces.ids import check_ids, id_of_text, local_ids, session_of
from kvbench.workload.traces.json_lines import HashIds, Length, Seconds, seconds_ns
from kvbench.workload.traces.objects import read_objects
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

_ROUNDED_S: Final = 1.0
"""Times of requests may be whole seconds where those of their agent are not."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Conversation(_Part):
    id: str | int | None = None
    block_size: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    hash_id_scope: Literal["local", "global"] = "local"
    requests: list[Any]


class _Subagent(_Part):
    t: Seconds
    agent_id: str | int | None = None
    requests: list[Any]


class _Request(_Part):
    t: Seconds
    tokens_in: Length = Field(alias="in")
    tokens_out: Length = Field(alias="out")
    hash_ids: HashIds
    api_time: Seconds | None = None
    think_time: float | None = Field(default=None, le=2**40, allow_inf_nan=False)


class _Placed(NamedTuple):
    """A request, or what is wrong with it."""

    place: str
    request: _Request | None
    wrong: str
    session: int
    at_s: float
    """What its `t` counts from."""


def read_agentic(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    """The trace of a file of conversations. A malformed request is a bad line. Raises KvbenchError."""
    collector: TraceCollector | None = None
    block_tokens = 0
    for line, value in read_objects(stream, "conversation"):
        conversation = _conversation(value)
        if collector is None:
            block_tokens = conversation.block_size if isinstance(conversation, _Conversation) else 0
            collector = _collector(stream.path, block_tokens, skip_bad_lines)
        if isinstance(conversation, BadRowError):
            collector.bad(line, str(conversation))
        elif block_tokens not in (0, conversation.block_size):
            collector.bad(line, f"block_size {conversation.block_size}, but {block_tokens} before: one trace has one")
        else:
            if not block_tokens:
                block_tokens = conversation.block_size
                collector.set_block_tokens(block_tokens)
            _add(collector, conversation, stream.path, line)
    return (collector or _collector(stream.path, 0, skip_bad_lines)).finish()


def _collector(path: Path, block_tokens: int, skip_bad_lines: bool) -> TraceCollector:
    return TraceCollector(
        path,
        "agentic",
        hash_block_tokens=block_tokens,
        token_counting=AS_RECORDED,
        skip_bad_lines=skip_bad_lines,
        sorts=True,
    )


def _conversation(value: Any) -> _Conversation | BadRowError:
    if isinstance(value, BadRowError):
        return value
    try:
        return _Conversation.model_validate(value)
    except ValidationError as error:
        return BadRowError(explain_json(error))


def _add(collector: TraceCollector, conversation: _Conversation, path: Path, line: int) -> None:
    """Hand over every request of a conversation."""
    name = path.name if conversation.id is None else conversation.id
    owner = id_of_text(f"agentic {name}") if conversation.hash_id_scope == "local" else None
    before: dict[int, _Request] = {}
    for placed in _requests(conversation.requests, (name,), 0.0, ""):
        try:
            if placed.request is None:
                raise BadRowError(placed.wrong)
            earlier = before.get(placed.session)
            collector.add(_row(placed, placed.request, earlier, owner, conversation.block_size), line)
            before[placed.session] = placed.request
        except BadRowError as error:
            collector.bad(line, str(error), f"line {line}, {placed.place}")


def _row(placed: _Placed, request: _Request, before: _Request | None, owner: int | None, block_tokens: int) -> Row:
    check_ids(len(request.hash_ids), request.tokens_in, block_tokens, "floor", keys=("hash_ids", "in"))
    return Row(
        seconds_ns(placed.at_s) + seconds_ns(request.t),
        request.tokens_in,
        request.tokens_out,
        request.hash_ids if owner is None else local_ids(request.hash_ids, owner),
        placed.session,
        _gap_ns(request, before),
    )


def _gap_ns(request: _Request, before: _Request | None) -> int:
    """From the end of the answer before to the request: as recorded, or from the times."""
    if before is None:
        return -1
    if request.think_time is not None:
        return seconds_ns(max(0.0, request.think_time))
    if before.api_time is not None:
        return max(0, seconds_ns(request.t) - seconds_ns(before.t) - seconds_ns(before.api_time))
    return -1


def _requests(values: list[Any], chain: tuple[object, ...], at_s: float, place: str) -> Iterator[_Placed]:
    """The requests of an agent and, where they stand among these, of its subagents."""
    session = session_of("agentic", *chain)
    for number, value in enumerate(values, start=1):
        here = f"{place}request {number}"
        agent = isinstance(value, dict) and (value.get("type") == "subagent" or "requests" in value)
        try:
            if not agent:
                yield _Placed(here, _Request.model_validate(value), "", session, at_s)
                continue
            subagent = _Subagent.model_validate(value)
        except ValidationError as error:
            yield _Placed(here, None, explain_json(error).replace("the line", "the request"), session, at_s)
            continue
        named = number if subagent.agent_id is None else subagent.agent_id
        begins_s = at_s + (subagent.t if _counts_from_its_agent(subagent) else 0.0)
        yield from _requests(subagent.requests, (*chain, named), begins_s, f"{here}, ")


def _counts_from_its_agent(subagent: _Subagent) -> bool:
    """Whether the times of a subagent's requests count from its own beginning: counted as the conversation's, they
    would lie before it."""
    times = [value.get("t") for value in subagent.requests if isinstance(value, dict)]
    known = [time for time in times if isinstance(time, int | float)]
    return bool(known) and min(known) < subagent.t - _ROUNDED_S


def _fits(fields: Fields) -> bool:
    return "block_size" in fields and isinstance(fields.get("requests"), list)


AGENTIC: Final = TraceFormat(
    "agentic", by_fields_only, read_agentic, shape="an agentic conversation as JSON", fits=_fits
)
