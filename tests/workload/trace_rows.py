"""Rows of trace formats, and small traces, made up for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvbench.workload.traces.trace import Trace


def written(folder: Path, *rows: object, name: str = "trace") -> Path:
    """A file with a line for each of `rows`: JSON of what is no text."""
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def mooncake(**changes: object) -> dict[str, object]:
    return {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} | changes


def delta(name: object, tokens: int, ids: list[int] | None, **when: object) -> dict[str, object]:
    row: dict[str, object] = {"session_id": name, "input_length": tokens, "output_length": 100, **when}
    return row if ids is None else row | {"hash_ids": ids}


def asked(second: float, ids: list[int], **more: object) -> dict[str, object]:
    return {"t": second, "type": "n", "in": 64 * len(ids) + 5, "out": 7, "hash_ids": ids, **more}


def agentic(*requests: object, **more: object) -> dict[str, object]:
    return {"id": "one", "block_size": 64, "hash_id_scope": "local", "requests": requests} | more


def subagent(second: float, *requests: object, name: str = "agent_001") -> dict[str, object]:
    return {"t": second, "type": "subagent", "agent_id": name, "duration_ms": 9, "requests": requests}


def bailian(chat: int, parent: int, second: float, **changes: object) -> dict[str, object]:
    row = {"chat_id": chat, "parent_chat_id": parent, "timestamp": second, "input_length": 20, "output_length": 5}
    return row | {"type": "text", "turn": 1, "hash_ids": [1, 2]} | changes


def of_sessions(sessions: Sequence[int], arrivals_s: Sequence[float], gaps_s: Sequence[float] | None = None) -> Trace:
    """Requests of these sessions, a block of its own each; gaps of which nothing is said are unknown."""
    n = len(sessions)
    return Trace(
        np.arange(n),
        np.array([round(at * 1e9) for at in arrivals_s], np.int64),
        np.full(n, 10, np.int32),
        np.full(n, 5, np.int32),
        np.arange(n, dtype=np.uint64),
        np.arange(n + 1),
        np.array(sessions, np.int64),
        np.full(n, -1, np.int64) if gaps_s is None else np.array([round(gap * 1e9) for gap in gaps_s], np.int64),
        answer_counts=np.zeros(n, np.int64),
        hash_block_tokens=16,
        source="made up",
        format="kvbench",
        digest="",
        token_counting="",
        bad_lines=0,
        first_bad_line="",
    )
