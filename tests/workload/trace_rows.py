"""Rows of trace formats, made up for tests."""

import json
from pathlib import Path


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
