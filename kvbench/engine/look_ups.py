"""What a rank looked up in its cache, by what for: one row of figures, where requests are served as the reference does.

Counted as they are decided. Bytes are another matter: a read that was found may still have been cut short.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np

from kvbench.workload.request import ObjectRef


@dataclass(slots=True)
class LookUps:
    """Look-ups of objects in the measured phase, and the tokens of these."""

    history_hits: int = 0
    """Objects of earlier turns that were there."""
    history_misses: int = 0
    context_hits: int = 0
    """Decode reads of a request's own objects."""
    context_misses: int = 0
    prompted_hits: int = 0
    """Of `context_hits`: those of requests that began with a system prompt."""
    prompt_misses: int = 0
    """System prompts, which are never found: as many as requests that began with one."""
    prompt_tokens: int = 0
    """Their tokens."""
    plain_requests: int = 0
    """Requests that began without one."""
    first_hits: int = 0
    """First look-ups of a context, before what is missing of it is written."""
    first_misses: int = 0
    history_hit_tokens: int = 0
    history_miss_tokens: int = 0
    context_hit_tokens: int = 0
    context_miss_tokens: int = 0
    first_hit_tokens: int = 0
    first_miss_tokens: int = 0

    def count(self, kind: str, references: Sequence[ObjectRef], found: Sequence[bool]) -> None:
        """Count look-ups of a `kind` (`history`, `first`, or `context` for decode reads)."""
        if not references:
            return
        hits = sum(found)
        tokens = sum([reference.tokens for reference in references])
        hit_tokens = sum([reference.tokens for reference, is_there in zip(references, found, strict=True) if is_there])
        for name, number in (
            ("hits", hits),
            ("misses", len(references) - hits),
            ("hit_tokens", hit_tokens),
            ("miss_tokens", tokens - hit_tokens),
        ):
            field = f"{kind}_{name}"
            setattr(self, field, getattr(self, field) + number)

    def as_row(self, rank: int) -> dict[str, int]:
        """The row of a rank (LOOK_UPS_DTYPE)."""
        return {"rank": rank} | asdict(self)


LOOK_UPS_DTYPE: Final = np.dtype([("rank", "<i8"), *((field.name, "<i8") for field in fields(LookUps))])
