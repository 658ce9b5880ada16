"""Configurations of sessions for the tests."""

from collections.abc import Callable
from typing import Any

import pytest

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig


@pytest.fixture(scope="session")
def sessions_config() -> Callable[..., RunConfig]:
    """A small configuration: `sessions_config(turns={"number": 3}, seed=7)`; keys of the workload, and `seed`."""

    def make(*, seed: int = 42, **workload: Any) -> RunConfig:
        few: dict[str, Any] = {
            "kind": "sessions",
            "users": 3,
            "span_s": 600,
            "applications": {"number": 2, "prompt_tokens": {0: 200, 100: 400}},
            "turns": {
                "number": {0: 1, 100: 8},
                "first_tokens": 300,
                "new_tokens": {0: 1, 100: 300},
                "output_tokens": 90,
            },
            "think": {"person_share": 0.3, "tool_s": {0: 1, 100: 9}, "person_s": {0: 20, 100: 60}},
            "context": {"limit_tokens": 2500, "summary_tokens": 150, "rewrite_share": 0},
            "subagents": {"share": 0},
        }
        for key, value in workload.items():
            few[key] = {**few[key], **value} if isinstance(value, dict) and isinstance(few.get(key), dict) else value
        content = {"seed": seed, "workload": few, "pacing": {"mode": "open"}, "cache": {"block_tokens": 64}}
        return parse_config(content, "sessions")

    return make
