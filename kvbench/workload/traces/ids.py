"""Hash ids and sessions as they stand in files, as 64-bit numbers, and whether a request has as many ids as its length
asks for.

Two different names get the same number with probability 2^-64, or 2^-63 for sessions.
"""

import json
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvbench.workload.keys import mixed
from kvbench.workload.traces.collect import BadRowError

_ID_MASK: Final = (1 << 64) - 1
_SESSION_MASK: Final = (1 << 63) - 1

Rounding = Literal["ceil", "floor", "either"]
"""Whether a last, partial block has an id too."""


def id_of_text(text: str) -> int:
    """The number of a hash id that is text."""
    return int(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))


def session_of(*names: object) -> int:
    """The number of a session that these texts and numbers name together, 0 to 2^63 - 1, before sessions are numbered
    from 0."""
    return id_of_text(json.dumps(names, default=str)) & _SESSION_MASK


def local_ids(ids: Sequence[int], owner: int) -> NDArray[np.uint64]:
    """Ids that only mean something within what `owner`, a 64-bit number, names, as ids that are no other owner's."""
    numbers = np.array([hash_id & _ID_MASK for hash_id in ids], np.uint64)
    return mixed(mixed(numbers) ^ np.uint64(owner))


def check_ids(ids: int, tokens: int, block_tokens: int, rounding: Rounding, *, keys: tuple[str, str]) -> None:
    """Raises BadRowError where a request of `tokens` cannot have so many ids; `keys` are what the file calls both."""
    most, fewest = -(-tokens // block_tokens), tokens // block_tokens
    expected = {"ceil": {most}, "floor": {fewest}, "either": {most, fewest}}[rounding]
    if ids in expected:
        return
    full = "full " if rounding == "floor" else ""
    blocks = " or ".join(map(str, sorted(expected)))
    raise BadRowError(f"{ids} {keys[0]}, but {keys[1]} {tokens} is {blocks} {full}blocks of {block_tokens}")
