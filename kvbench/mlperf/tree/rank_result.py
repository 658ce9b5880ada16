"""One rank's result file, cut down to what the rules look at: a tree may hold thousands of them.

The long lists (a number per request) are kept as a digest, which tells whether two ranks hold the same measurements.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, dig, read_json

_LISTS: Final = (
    "end_to_end_latencies",
    "storage_latencies",
    "generation_latencies",
    "throughput_timeline",
    "prefill_latencies",
    "decode_latencies",
)


@dataclass(frozen=True, slots=True)
class RankFile:
    """The content of a kvcache_results file without its lists."""

    path: Path
    content: Any
    """MISSING where the file cannot be read or holds no mapping."""
    problem: str
    """Why not; "" where it can."""
    measured: str
    """Digest of the latencies of its requests; "" where it has none."""

    @property
    def readable(self) -> bool:
        """Whether there is a content."""
        return not self.problem

    def __getitem__(self, key: str) -> Any:
        """The value at a dotted key, such as `summary.cache_stats.storage_entries`; MISSING where there is none."""
        return dig(self.content, *key.split("."))


def read_rank_file(path: Path) -> RankFile:
    """The result at `path`, or why it cannot be read."""
    try:
        content = read_json(path)
    except Unreadable as error:
        return RankFile(path, MISSING, str(error), "")
    if not isinstance(content, dict):
        return RankFile(path, MISSING, "no JSON object", "")
    lists = [content[name] for name in ("end_to_end_latencies", "storage_latencies") if content.get(name)]
    try:
        digest = hashlib.sha256(json.dumps(lists).encode()).hexdigest() if lists else ""
    except RecursionError:
        return RankFile(path, MISSING, "JSON nested too deeply", "")
    return RankFile(path, {key: value for key, value in content.items() if key not in _LISTS}, "", digest)
