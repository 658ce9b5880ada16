"""Small valid traces of every format that kvbench reads, made up: for trying it out, and for its tests.

They have the form of the real traces, not their statistics.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from kvbench.workload.draws import Draws
from kvbench.workload.traces import mooncake

_WORDS: Final = ("cache", "block", "tier", "prefill", "decode", "réseau", "キャッシュ")


def mooncake_sample(generator: np.random.Generator, requests: int) -> bytes:
    """JSONL whose requests go on with one of four conversations, or begin it anew."""
    draws = Draws(generator)
    lines = []
    timestamp_ms = next_id = 0
    conversations: list[list[int]] = [[], [], [], []]
    for _ in range(requests):
        conversation = conversations[draws.below(4)]
        if len(conversation) > 12:
            conversation.clear()
        grown = draws.between(1, 3)
        conversation += range(next_id, next_id + grown)
        last_id = next_id + grown
        next_id = last_id + 1
        # The last block is partial, so it is nobody else's.
        hash_ids = [*conversation, last_id]
        last_tokens = draws.between(1, mooncake.BLOCK_TOKENS - 1)
        line = {
            "timestamp": timestamp_ms,
            "input_length": len(conversation) * mooncake.BLOCK_TOKENS + last_tokens,
            "output_length": draws.between(1, 300),
            "hash_ids": hash_ids,
        }
        lines.append(json.dumps(line) + "\n")
        timestamp_ms += draws.below(200)
    return "".join(lines).encode()


def azure_sample(generator: np.random.Generator, requests: int) -> bytes:
    """CSV as published: UTC with seven digits of fraction, CRLF line ends, none after the last row."""
    draws = Draws(generator)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    moment, fraction = datetime(2023, 11, 16, 18, 17, 3), 9_799_600
    for _ in range(requests):
        lines.append(f"{moment:%Y-%m-%d %H:%M:%S}.{fraction:07d},{draws.between(1, 7000)},{draws.between(1, 300)}")
        seconds, fraction = divmod(fraction + draws.below(3_000_000), 10_000_000)
        moment += timedelta(seconds=seconds)
    return "\r\n".join(lines).encode()


def burstgpt_sample(generator: np.random.Generator, requests: int) -> bytes:
    """CSV with whole seconds, as in the first release."""
    draws = Draws(generator)
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"]
    second = 5
    for _ in range(requests):
        context, output = draws.between(1, 3000), draws.between(1, 900)
        model = ("ChatGPT", "GPT-4")[draws.below(2)]
        lines.append(f"{second},{model},{context},{output},{context + output},Conversation log\n")
        second += draws.below(60)
    return "".join(lines).encode()


def sharegpt_sample(generator: np.random.Generator, requests: int) -> bytes:
    """A JSON list of conversations that have `requests` answers in all."""
    draws = Draws(generator)
    conversations: list[dict[str, object]] = []
    left = requests
    while left > 0:
        turns = min(left, draws.between(1, 5))
        left -= turns
        messages = [{"from": "system", "value": "Answer briefly."}] if draws.below(3) == 0 else []
        for _ in range(turns):
            messages.append({"from": "human", "value": _words(draws, draws.between(3, 60))})
            messages.append({"from": "gpt", "value": _words(draws, draws.between(10, 200))})
        conversations.append({"id": f"sample_{len(conversations)}", "conversations": messages})
    return json.dumps(conversations, ensure_ascii=False, indent=1).encode()


SAMPLES: Final[dict[str, tuple[str, Callable[[np.random.Generator, int], bytes]]]] = {
    "mooncake": ("mooncake_sample.jsonl", mooncake_sample),
    "azure": ("azure_sample.csv", azure_sample),
    "burstgpt": ("burstgpt_sample.csv", burstgpt_sample),
    "sharegpt": ("sharegpt_sample.json", sharegpt_sample),
}
"""By format: the name of its file, and its content for a generator and a number of requests."""


def write_samples(folder: Path, generator: np.random.Generator, requests: int = 100) -> dict[str, Path]:
    """Write one sample of each format of `SAMPLES` into an existing folder, replacing files of these names.

    Returns the paths by format. Raises OSError.
    """
    paths = {name: folder / file_name for name, (file_name, _) in SAMPLES.items()}
    for name, (_, sample) in SAMPLES.items():
        paths[name].write_bytes(sample(generator, requests))
    return paths


def _words(draws: Draws, number: int) -> str:
    return " ".join(_WORDS[draws.below(len(_WORDS))] for _ in range(number))
