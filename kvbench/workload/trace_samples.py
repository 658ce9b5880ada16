"""Small valid traces of every format that kvbench reads, made up: for trying it out, and for its tests.

They have the form of the real traces, not their statistics.
"""

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from kvbench.workload.draws import Draws
from kvbench.workload.traces import bailian, deltas, mooncake, parquet
from kvbench.workload.traces.collect import Row, TraceCollector
from kvbench.workload.traces.ids import session_of
from kvbench.workload.traces.merge import merged

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


def deltas_sample(generator: np.random.Generator, requests: int) -> bytes:
    """JSONL of sessions, in turn; the first blocks of all are the same."""
    draws = Draws(generator)
    lines: list[dict[str, object]] = []
    next_id = 2
    for number in range(requests):
        session = number % 7 if number < 42 else number
        own = [] if number < 42 and number >= 7 else [0, 1]
        grown = draws.between(1, 3)
        ids = [*own, *range(next_id, next_id + grown)]
        next_id += grown
        last_tokens = draws.between(1, deltas.BLOCK_TOKENS - 1)
        when = {"timestamp": 250 * number, "group_id": 0} if own else {"delay": draws.between(0, 9000)}
        tokens = (len(ids) - 1) * deltas.BLOCK_TOKENS + last_tokens
        line = {"session_id": f"session-{session}", "input_length": tokens, "output_length": draws.between(1, 900)}
        lines.append({**line, "hash_ids": ids, **when})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def agentic_sample(generator: np.random.Generator, requests: int) -> bytes:
    """One conversation of an agent with a subagent, whose times count from its own beginning."""
    draws = Draws(generator)
    ids: list[int] = []

    def asked(second: float, context: list[int]) -> dict[str, object]:
        context += range(1 + sum(ids), 1 + sum(ids) + draws.between(1, 30))
        ids.append(len(context))
        answer = {"api_time": draws.between(1, 900) / 100, "think_time": float(draws.below(9)), "stop": "tool_use"}
        tokens = len(context) * 64 + draws.below(64)
        request = {"t": second, "type": "n", "model": "sample", "in": tokens, "out": draws.between(1, 500)}
        return {**request, "hash_ids": list(context), **answer}

    alone = requests // 4
    main: list[int] = []
    sub: list[int] = []
    chain: list[dict[str, object]] = [asked(10.0 * number, main) for number in range(requests - alone)]
    if alone:
        steps = [asked(3.0 * number, sub) for number in range(alone)]
        chain.insert(1, {"t": 5.25, "type": "subagent", "agent_id": "agent_001", "duration_ms": 9, "requests": steps})
    about = {"id": "sample_0001", "models": ["sample"], "block_size": 64, "hash_id_scope": "local"}
    return json.dumps({**about, "tool_tokens": 100, "system_tokens": 20, "requests": chain}).encode()


def bailian_sample(generator: np.random.Generator, requests: int) -> bytes:
    """JSONL whose chats go on with one of four conversations, or begin it anew."""
    draws = Draws(generator)
    lines = []
    second, next_id = 0.0, 0
    conversations: list[tuple[int, list[int]]] = [(-1, [])] * 4
    for chat in range(requests):
        place = draws.below(4)
        parent, context = conversations[place] if draws.below(6) else (-1, [])
        grown = [*context, *range(next_id, next_id + draws.between(1, 40))]
        next_id = grown[-1] + 2
        conversations[place] = (chat, grown)
        line = {"chat_id": chat, "parent_chat_id": parent, "timestamp": round(second, 3)}
        tokens = len(grown) * bailian.BLOCK_TOKENS + draws.between(1, bailian.BLOCK_TOKENS)
        about = {"input_length": tokens, "output_length": draws.between(1, 300), "type": "text", "turn": 1}
        lines.append(json.dumps({**line, **about, "hash_ids": [*grown, next_id - 1]}) + "\n")
        second += draws.below(2000) / 1000
    return "".join(lines).encode()


def messages_sample(generator: np.random.Generator, requests: int) -> bytes:
    """JSONL of conversations that have `requests` answers in all."""
    draws = Draws(generator)
    lines = []
    left = requests
    while left > 0:
        turns = min(left, draws.between(1, 5))
        left -= turns
        messages = [{"role": "system", "content": "Answer briefly."}]
        for _ in range(turns):
            messages.append({"role": "user", "content": _words(draws, draws.between(3, 60))})
            messages.append({"role": "assistant", "content": _words(draws, draws.between(10, 200))})
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def lmcache_sample(generator: np.random.Generator, requests: int) -> bytes:
    """JSONL of prompts as text, of five sessions that all begin with the same words."""
    draws = Draws(generator)
    lines = []
    prompts = ["You answer briefly, and with what you know. " * 4] * 5
    for number in range(requests):
        session = draws.below(5)
        prompt, answer = prompts[session] + _words(draws, draws.between(3, 60)), _words(draws, draws.between(5, 40))
        prompts[session] = f"{prompt} {answer} "
        line = {"timestamp": 1000 + number / 4, "session_id": f"user-{session}", "input": prompt, "output": answer}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def baseten_sample(generator: np.random.Generator, requests: int) -> bytes:
    """Parquet of four sessions that grow, with ids of the full blocks of 64 tokens. Raises KvbenchError without
    pyarrow."""
    draws = Draws(generator)
    rows = []
    contexts: list[list[str]] = [[], [], [], []]
    at_ms = 1_760_000_000_000
    for number in range(requests):
        session = draws.below(4)
        contexts[session] += [f"block-{number}-{block}" for block in range(draws.between(1, 6))]
        tokens = len(contexts[session]) * 64 + draws.below(64)
        row = {"timestamp_start_unix_ms": at_ms, "prompt": "", "input_tokens": tokens}
        row |= {"output_tokens": draws.between(1, 300), "total_hashes": list(contexts[session]), "block_size": 64}
        rows.append({**row, "provided_session_id": f"session-{session}", "duration_e2e_ms": draws.between(50, 4000)})
        at_ms += draws.below(5000)
    arrow = parquet.pyarrow("a sample of Baseten's traces")
    buffer = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def kvbench_sample(generator: np.random.Generator, requests: int) -> bytes:
    """Parquet of kvbench's own. Raises KvbenchError without pyarrow."""
    draws = Draws(generator)
    collector = TraceCollector(
        Path("sample"), "kvbench", hash_block_tokens=16, token_counting="made up", skip_bad_lines=False
    )
    for number in range(requests):
        ids = list(range(draws.between(1, 50)))
        row = Row(number * 10**8, len(ids) * 16 - draws.below(16), draws.between(1, 300), ids)
        collector.add(row._replace(session=session_of(number % 5), gap_ns=10**7 if number > 4 else -1), number)
    return parquet.encode(merged([collector.finish()], "sample"))


SAMPLES: Final[dict[str, tuple[str, Callable[[np.random.Generator, int], bytes]]]] = {
    "mooncake": ("mooncake_sample.jsonl", mooncake_sample),
    "azure": ("azure_sample.csv", azure_sample),
    "burstgpt": ("burstgpt_sample.csv", burstgpt_sample),
    "sharegpt": ("sharegpt_sample.json", sharegpt_sample),
    "deltas": ("deltas_sample.jsonl", deltas_sample),
    "agentic": ("agentic_sample.json", agentic_sample),
    "bailian": ("bailian_sample.jsonl", bailian_sample),
    "messages": ("messages_sample.jsonl", messages_sample),
    "lmcache": ("lmcache_sample.jsonl", lmcache_sample),
    "baseten": ("baseten_sample.parquet", baseten_sample),
    "kvbench": ("kvbench_sample.parquet", kvbench_sample),
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
