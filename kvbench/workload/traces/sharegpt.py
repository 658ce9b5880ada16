"""ShareGPT conversations: every answer to a human is a request whose context holds all the conversation before it.

There are no timestamps: every request arrives at 0. The full blocks of a conversation are shared with its later turns,
a last partial block is not, as in the prefix cache of vLLM. What conversations have in common is not looked for.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvbench.errors import KvbenchError
from kvbench.workload.demand import piece_tokens
from kvbench.workload.keys import KeyKind, object_key
from kvbench.workload.traces.collect import BadRowError, Row, TraceCollector
from kvbench.workload.traces.explain import explain_json
from kvbench.workload.traces.format import TraceFormat
from kvbench.workload.traces.stream import TraceStream
from kvbench.workload.traces.trace import MAX_TOKENS, Trace

BLOCK_TOKENS: Final = 16
"""Tokens that one hash id stands for: a common block size of serving engines, and a divisor of the larger ones."""

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_HUMAN: Final = frozenset({"human", "user"})
_MODEL: Final = frozenset({"gpt", "chatgpt", "assistant", "bing", "bard"})
_ASIDE: Final = frozenset({"system"})


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    speaker: str = Field(alias="from")
    value: str


class _Conversation(BaseModel):
    model_config = ConfigDict(strict=True)

    conversations: list[_Message]


def read_sharegpt(stream: TraceStream, skip_bad_lines: bool) -> Trace:
    """The trace of a ShareGPT file. A malformed conversation is a bad line; text that is not JSON ends the reading.

    Raises KvbenchError.
    """
    path = stream.path
    text = _text(stream)
    count_tokens, token_counting = token_counter()
    collector = TraceCollector(
        path,
        "sharegpt",
        hash_block_tokens=BLOCK_TOKENS,
        token_counting=token_counting,
        skip_bad_lines=skip_bad_lines,
    )
    for number, (line, content) in enumerate(_elements(path, text)):
        try:
            for row in _turns(content, number, count_tokens):
                collector.add(row, line)
        except BadRowError as error:
            collector.bad(line, str(error), f"line {line}, conversation {number + 1}")
    return collector.finish()


def token_counter() -> tuple[Callable[[str], int], str]:
    """A function from text to its tokens, and what it is: tiktoken's `cl100k_base`, or characters / 4 without it."""
    try:
        encoding = importlib.import_module("tiktoken").get_encoding("cl100k_base")
    except ImportError:
        return _quarter_of_characters, "characters / 4 (tiktoken is not installed)"
    except (OSError, ValueError):
        # The vocabulary is downloaded when it is first used.
        return _quarter_of_characters, "characters / 4 (tiktoken could not load its vocabulary cl100k_base)"
    return lambda text: len(encoding.encode_ordinary(text)), "tiktoken cl100k_base"


def _quarter_of_characters(text: str) -> int:
    return -(-len(text) // 4)


def _turns(content: Any, conversation: int, count_tokens: Callable[[str], int]) -> list[Row]:
    """One row per answer that follows a human's message. Raises BadRowError."""
    try:
        messages = _Conversation.model_validate(content).conversations
    except ValidationError as error:
        raise BadRowError(explain_json(error)) from error
    turns: list[Row] = []
    spoken_tokens = 0
    before = ""
    for message in messages:
        if message.speaker not in _HUMAN | _MODEL | _ASIDE:
            raise BadRowError(f"from is {message.speaker[:40]!r}, not human, gpt or system")
        tokens = count_tokens(message.value)
        if message.speaker in _MODEL and before in _HUMAN and spoken_tokens > 0:
            turns.append(Row(0, spoken_tokens, tokens, _block_ids(conversation, spoken_tokens)))
        spoken_tokens += tokens
        if spoken_tokens > MAX_TOKENS:
            raise BadRowError(f"a conversation of more than {MAX_TOKENS} tokens")
        before = message.speaker
    return turns


def _block_ids(conversation: int, tokens: int) -> list[int]:
    pieces = enumerate(piece_tokens(tokens, BLOCK_TOKENS))
    return [object_key(KeyKind.CONVERSATION_BLOCK, conversation, block, piece) for block, piece in pieces]


def _text(stream: TraceStream) -> str:
    content = stream.content()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{content[error.start]:02x}"
        raise KvbenchError(
            f"{stream.path}, line {line}: not UTF-8 text: {wrong} (convert the file to UTF-8)"
        ) from error


def _elements(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The elements of the list that `text` is, each with the line that it starts on, decoded one at a time.

    `json.load` would hold all of them at once and forget where they stood.
    """
    decoder = json.JSONDecoder()
    position = _after_blanks(text, 0)
    line = 1 + text.count("\n", 0, position)
    expected = "["
    while text.startswith(expected, position):
        start = _after_blanks(text, position + 1)
        line += text.count("\n", position, start)
        if expected == "[" and text.startswith("]", start):
            position = start
            break
        try:
            element, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise KvbenchError(
                f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise KvbenchError(f"{path}, line {line}: this conversation cannot be read: {error}") from error
        yield line, element
        position = _after_blanks(text, end)
        line += text.count("\n", start, position)
        expected = ","
    if expected == "[" and not text.startswith("]", position):
        raise KvbenchError(f"{path}, line {line}: expected a JSON list of conversations")
    if not text.startswith("]", position):
        raise KvbenchError(f"{path}, line {line}: expected , or ] after a conversation")
    rest = _after_blanks(text, position + 1)
    if rest != len(text):
        line += text.count("\n", position, rest)
        raise KvbenchError(f"{path}, line {line}: something follows the end of the list")


def _after_blanks(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position


SHAREGPT: Final = TraceFormat(
    "sharegpt", lambda start: start.startswith(b"["), read_sharegpt, shape="a ShareGPT JSON list"
)
