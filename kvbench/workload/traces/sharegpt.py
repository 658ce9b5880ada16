"""Conversations as text: ShareGPT's `conversations`, and OpenAI's `messages`, as a JSON list or as JSON lines.

Every answer to a human is a request whose context holds all the conversation before it. There are no timestamps: every
request arrives at 0. The full blocks of a conversation, answers included, are shared with its later turns, a last
partial block is not, as in the prefix cache of vLLM. What conversations have in common is not looked for.
"""

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.workload.traces.collect import BadRowError, Row, TraceCollector
from kvbench.workload.traces.explain import explain_json
from kvbench.workload.traces.format import TraceFormat, by_fields_only
from kvbench.workload.traces.ids import session_of
from kvbench.workload.traces.objects import read_objects
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.tokens import BLOCK_TOKENS, conversation_ids, tokenizer
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

_HUMAN: Final = frozenset({"human", "user"})
_MODEL: Final = frozenset({"gpt", "chatgpt", "assistant", "bing", "bard"})
_ASIDE: Final = frozenset({"system"})
_ASKING_ROLES: Final = frozenset({"user", "tool", "function"})
_ASIDE_ROLES: Final = frozenset({"system", "developer"})

Spoken = tuple[str, str]
"""Who (`asks`, `answers` or `aside`), and what."""


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)


class _ShareGptMessage(_Model):
    speaker: str = Field(alias="from")
    value: str


class _ShareGptConversation(_Model):
    conversations: list[_ShareGptMessage]


class _OpenAiPart(_Model):
    text: str = ""
    """Of a part that is an image or the like: none."""


class _OpenAiMessage(_Model):
    role: str
    content: str | list[_OpenAiPart] | None = None
    """None where a message only calls tools."""

    @property
    def text(self) -> str:
        """All that is text in it."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _OpenAiConversation(_Model):
    messages: list[_OpenAiMessage]


def _sharegpt_messages(content: Any) -> list[Spoken]:
    spoken = []
    for message in _ShareGptConversation.model_validate(content).conversations:
        if message.speaker not in _HUMAN | _MODEL | _ASIDE:
            raise BadRowError(f"from is {message.speaker[:40]!r}, not human, gpt or system")
        who = "asks" if message.speaker in _HUMAN else "answers" if message.speaker in _MODEL else "aside"
        spoken.append((who, message.value))
    return spoken


def _openai_messages(content: Any) -> list[Spoken]:
    spoken = []
    for message in _OpenAiConversation.model_validate(content).messages:
        if message.role not in _ASKING_ROLES | _ASIDE_ROLES | {"assistant"}:
            raise BadRowError(f"role is {message.role[:40]!r}, not user, assistant, system, developer or tool")
        who = "answers" if message.role == "assistant" else "asks" if message.role in _ASKING_ROLES else "aside"
        spoken.append((who, message.text))
    return spoken


def _turns(messages: list[Spoken], conversation: int, session: int, count: Callable[[str], int]) -> list[Row]:
    """One row per answer that follows a question. Raises BadRowError."""
    turns: list[Row] = []
    spoken_tokens = 0
    before = ""
    for who, text in messages:
        tokens = count(text)
        if (who, before) == ("answers", "asks") and spoken_tokens > 0:
            ids = conversation_ids(conversation, spoken_tokens)
            whole = conversation_ids(conversation, spoken_tokens + tokens)[spoken_tokens // BLOCK_TOKENS :]
            turns.append(Row(0, spoken_tokens, tokens, ids, session, answer_ids=whole if tokens else ()))
        spoken_tokens += tokens
        if spoken_tokens > MAX_TOKENS:
            raise BadRowError(f"a conversation of more than {MAX_TOKENS} tokens")
        before = who
    return turns


def _format(name: str, key: str, messages: Callable[[Any], list[Spoken]], *, shape: str, sessions: bool) -> TraceFormat:
    def read(stream: TraceStream, skip_bad_lines: bool) -> Trace:
        """A malformed conversation is a bad line; a list that is no JSON ends the reading. Raises KvbenchError."""
        tokens = tokenizer()
        collector = TraceCollector(
            stream.path,
            name,
            hash_block_tokens=BLOCK_TOKENS,
            token_counting=tokens.name,
            skip_bad_lines=skip_bad_lines,
        )
        for number, (line, content) in enumerate(read_objects(stream, "conversation")):
            # No two conversations of a folder have the same number.
            conversation = number + (stream.index << 40)
            session = session_of(name, conversation) if sessions else -1
            try:
                if isinstance(content, BadRowError):
                    raise content
                for row in _turns(messages(content), conversation, session, tokens.count):
                    collector.add(row, line)
            except ValidationError as error:
                collector.bad(line, explain_json(error), f"line {line}, conversation {number + 1}")
            except BadRowError as error:
                collector.bad(line, str(error), f"line {line}, conversation {number + 1}")
        return collector.finish()

    return TraceFormat(name, by_fields_only, read, shape=shape, fits=lambda fields: key in fields)


SHAREGPT: Final = _format(
    "sharegpt", "conversations", _sharegpt_messages, shape="ShareGPT conversations as JSON or JSONL", sessions=False
)
MESSAGES: Final = _format(
    "messages", "messages", _openai_messages, shape="OpenAI messages as JSON or JSONL", sessions=True
)
