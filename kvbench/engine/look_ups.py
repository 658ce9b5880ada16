"""What a rank looked up in its cache, by what for: one row of figures for a workload whose look-ups are of several
kinds.

Counted as they are decided. Bytes are another matter: a read that was found may still have been cut short.
"""

from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np


@dataclass(slots=True)
class LookUps:
    """Look-ups of objects in the measured phase, where requests are decided step by step."""

    history_hits: int = 0
    """Entries of earlier turns that were there."""
    history_misses: int = 0
    context_hits: int = 0
    """Decode reads of a request's own entry."""
    context_misses: int = 0
    prompted_hits: int = 0
    """Of `context_hits`: those of requests that began with a system prompt."""
    prompt_misses: int = 0
    """System prompts, which are never found: as many as requests that began with one."""
    prompt_tokens: int = 0
    """Their tokens."""
    plain_requests: int = 0
    """Requests that began without one."""

    def as_row(self, rank: int) -> dict[str, int]:
        """The row of a rank (LOOK_UPS_DTYPE)."""
        return {"rank": rank} | asdict(self)


LOOK_UPS_DTYPE: Final = np.dtype([("rank", "<i8"), *((field.name, "<i8") for field in fields(LookUps))])
