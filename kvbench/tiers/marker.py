"""The marker of what kvbench made: what it is called, and how it is told. No I/O."""

import json
import re
from typing import Final

MARKER: Final = ".kvbench-run"
RANK_FOLDER: Final = re.compile(r"rank-\d+")

_RUN_ID: Final = r"\d{8}-\d{6}-[0-9a-f]{6}"
RUN: Final = re.compile(rf"kvbench-({_RUN_ID})")
"""What a run has in a target is called so."""
SIGN: Final = re.compile(rf"kvbench-({_RUN_ID})\.probe-\d+")
"""So is a sign that it puts up there."""


def content_of_marker(run_id: str) -> bytes:
    """That of run `run_id`."""
    return json.dumps({"program": "kvbench", "run_id": run_id}).encode()


def marks(content: bytes, run_id: str) -> bool:
    """Whether `content` is that of a marker of run `run_id`."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("program") == "kvbench" and found.get("run_id") == run_id
