"""Sequences of trials so small that they take some seconds, and how they are looked at."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvbench.mlperf.trials.choices import Choices

TINY_MODEL = "{layers: 1, kv_heads: 1, head_dim: 64}"
"""256 bytes a token: entries of 32 KiB to 6.4 MB; 0.8 of 8 MiB holds one of any size."""

CHANGES = (
    f"model={TINY_MODEL}",
    "workload.users=6",
    "io.threads=6",
    "io.arena_bytes=24MiB",
    "io.drop_page_cache=true",
    "calibration.seconds=0",
    "tiers.0.capacity_bytes=8MiB",
)
"""Of every option: so little room that entries leave the tiers."""


@dataclass(frozen=True)
class Done:
    """A sequence that was carried out, and what was said."""

    directory: Path
    choices: Choices
    said: str

    def read(self, *parts: str) -> Any:
        """The JSON file that matches the last of `parts`."""
        (path,) = self.directory.glob("/".join(parts))
        return json.loads(path.read_text(encoding="utf-8"))


def leaves_in(results: Path) -> list[Path]:
    """The directories of all sequences."""
    return sorted(results.glob("kv_cache/*/run/*"))


def choices_in(cache: Path, results: Path, **changes: Any) -> Choices:
    values: dict[str, Any] = {
        "division": "open",
        "system": "box",
        "submitter": "Example",
        "cache": cache,
        "results": results,
        "trials": 2,
        "delay_s": 0,
        "trial_seconds": 0.8,
        "changes": CHANGES,
        "invocation": ("kvbench", "mlperf", "run"),
    }
    return Choices(**(values | changes))
