"""Text as tokens: tiktoken's `cl100k_base`, or four characters each without it. For formats that have text."""

import importlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import xxhash

from kvbench.workload.demand import piece_tokens
from kvbench.workload.keys import KeyKind, object_key

BLOCK_TOKENS: Final = 16
"""Tokens that one hash id stands for: a common block size of serving engines, and a divisor of the larger ones."""

_CHARACTERS: Final = 4


class Tokenizer(NamedTuple):
    """How text becomes tokens."""

    count: Callable[[str], int]
    split: Callable[[str], Sequence[int | str]]
    name: str


def tokenizer() -> Tokenizer:
    """The best that is there."""
    try:
        encoding = importlib.import_module("tiktoken").get_encoding("cl100k_base")
    except ImportError:
        return _quarters("tiktoken is not installed")
    except (OSError, ValueError):
        # The vocabulary is downloaded when it is first used.
        return _quarters("tiktoken could not load its vocabulary cl100k_base")
    return Tokenizer(lambda text: len(encoding.encode_ordinary(text)), encoding.encode_ordinary, "tiktoken cl100k_base")


def _quarters(why: str) -> Tokenizer:
    return Tokenizer(
        lambda text: -(-len(text) // _CHARACTERS),
        lambda text: [text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS)],
        f"characters / 4 ({why})",
    )


def conversation_ids(conversation: int, tokens: int) -> list[int]:
    """Ids of the blocks of a context that only the turns of one conversation have."""
    pieces = enumerate(piece_tokens(tokens, BLOCK_TOKENS))
    return [object_key(KeyKind.CONVERSATION_BLOCK, conversation, block, piece) for block, piece in pieces]


def content_ids(tokens: Sequence[int | str]) -> list[int]:
    """Ids of the blocks of a context, the last partial one among them, by all that stands up to their ends: whoever has
    the same beginning has the same ids."""
    prefix = xxhash.xxh3_64()
    ids = []
    for start in range(0, len(tokens), BLOCK_TOKENS):
        prefix.update(repr(list(tokens[start : start + BLOCK_TOKENS])).encode("utf-8", "surrogatepass"))
        ids.append(prefix.intdigest())
    return ids
