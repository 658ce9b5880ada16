"""A trace: one numpy array per column, cheap to cut and to send between ranks. Reads no traces.

What is of requests is in memory, 60 bytes each. Hash ids, which may be many times that, are in memory as long as they
are few and mapped otherwise (`id_store`), and nothing here copies all of them at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvbench.workload.traces.id_store import NONE, PIECE_IDS, gathered, id_pieces

MAX_TOKENS: Final = 10_000_000
"""Most tokens that a context or an output of one request may have; more is taken for a mistake in the file."""

_ARRAYS: Final = (
    "number",
    "arrival_ns",
    "context_tokens",
    "output_tokens",
    "hash_ids",
    "hash_offsets",
    "session",
    "gap_ns",
    "answer_counts",
)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Requests of a trace (n of them) in order of arrival, and where they come from."""

    number: NDArray[np.int64]
    """(n,) The request's number in the whole trace, from 0; bad lines do not count."""
    arrival_ns: NDArray[np.int64]
    """(n,) Since the first request of the whole trace; never falls."""
    context_tokens: NDArray[np.int32]
    """(n,) 1 to MAX_TOKENS."""
    output_tokens: NDArray[np.int32]
    """(n,) 0 to MAX_TOKENS."""
    hash_ids: NDArray[np.uint64]
    """Ids of the prefix blocks of all requests, one request after the other: those of its context and then those of its
    answer; equal ids are the same reusable block."""
    hash_offsets: NDArray[np.int64]
    """(n + 1,) Request i has hash_ids[hash_offsets[i] : hash_offsets[i + 1]]; none at all where the format has none.
    A context's ids are of its blocks from the first on: of all, or of those that are full (`hashed_tokens`)."""
    session: NDArray[np.int64]
    """(n,) Number of the session (a conversation, or an agent's chain of requests), from 0 in order of their first
    requests; -1: of none."""
    gap_ns: NDArray[np.int64]
    """(n,) From the end of the answer before in the same session to this request; -1: unknown, or the session's first:
    then the arrival time says when it comes."""
    answer_counts: NDArray[np.int64]
    """(n,) How many of a request's ids, behind those of its context, are of its answer: of the blocks of context and
    answer together, from the first on that is not of the context alone (the block that a context which does not fill it
    shares with its answer has an id of each). 0 where nobody can know what the answer said."""
    hash_block_tokens: int
    """Tokens of the block that a hash id stands for (a request's last block may have fewer); 0 without hash ids."""
    source: str
    """Path of the file, of a folder or a pattern of paths, as it was given."""
    format: str
    digest: str
    """16 hex digits (xxh3) over the columns of the whole trace, the same on every machine."""
    token_counting: str
    """Where the token numbers come from."""
    bad_lines: int
    """Malformed lines that were left out."""
    first_bad_line: str
    """The message of the first of them; empty if there is none."""
    origin_ns: int = 0
    """Time of the first request, on the clock that the format counts by."""
    out_of_order: int = 0
    """Requests that stood in the file behind a later one; a format that allows it has them sorted by time."""

    def __len__(self) -> int:
        return len(self.number)

    @property
    def hash_counts(self) -> NDArray[np.int64]:
        """(n,) Hash ids of each context."""
        return self.id_counts - self.answer_counts

    @property
    def id_counts(self) -> NDArray[np.int64]:
        """(n,) Hash ids of each request: of its context and of its answer."""
        return np.diff(self.hash_offsets)

    @property
    def hashed_tokens(self) -> NDArray[np.int64]:
        """(n,) Tokens of each context that its hash ids stand for: all, or less where only full blocks have one."""
        return np.minimum(self.hash_counts * self.hash_block_tokens, self.context_tokens)

    def ids(self, request: int) -> NDArray[np.uint64]:
        """The hash ids of the context of the request at position `request` (a view)."""
        return self.hash_ids[self.hash_offsets[request] : self.hash_offsets[request + 1] - self.answer_counts[request]]

    def answer_ids(self, request: int) -> NDArray[np.uint64]:
        """The hash ids of its answer (a view)."""
        end = self.hash_offsets[request + 1]
        return self.hash_ids[end - self.answer_counts[request] : end]

    def take(self, positions: NDArray[np.int64]) -> "Trace":
        """The requests at `positions`, in that order; numbers and arrival times stay those of the whole trace.

        Raises KvbenchError where the ids are many, and cannot be kept.
        """
        hash_ids = gathered(self.hash_ids, self.hash_offsets[:-1][positions], self.id_counts[positions], self.source)
        return replace(self.take_columns(positions), hash_ids=hash_ids)

    def take_columns(self, positions: NDArray[np.int64]) -> "Trace":
        """What `take` gives, but for `hash_ids`, which is empty: `take_ids` has them."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.id_counts[positions], dtype=np.int64)])
        return replace(
            self,
            number=self.number[positions],
            arrival_ns=self.arrival_ns[positions],
            context_tokens=self.context_tokens[positions],
            output_tokens=self.output_tokens[positions],
            hash_ids=NONE,
            hash_offsets=offsets,
            session=self.session[positions],
            gap_ns=self.gap_ns[positions],
            answer_counts=self.answer_counts[positions],
        )

    def take_ids(self, positions: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
        """The ids of the requests at `positions`, in that order, one array of at most PIECE_IDS after the other."""
        return id_pieces(self.hash_ids, self.hash_offsets[:-1][positions], self.id_counts[positions])

    def without_answers(self) -> "Trace":
        """The same requests with the ids of their contexts alone, and the digest of that."""
        if not self.answer_counts.any():
            return self
        counts = self.hash_counts
        hash_ids = gathered(self.hash_ids, self.hash_offsets[:-1], counts, self.source)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        plain = replace(self, hash_ids=hash_ids, hash_offsets=offsets, answer_counts=np.zeros(len(self), np.int64))
        return replace(plain, digest=trace_digest(plain))

    def head(self, requests: int) -> "Trace":
        """The first `requests` requests (all, if there are fewer)."""
        return self.take(np.arange(min(requests, len(self))))

    def to_arrays(self) -> tuple[tuple[NDArray[Any], ...], dict[str, str | int]]:
        """The columns and a small dictionary of the rest, to be sent to another rank: see `from_arrays`."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ARRAYS}
        return tuple(getattr(self, name) for name in _ARRAYS), rest

    @classmethod
    def from_arrays(cls, arrays: tuple[NDArray[Any], ...], rest: dict[str, str | int]) -> Self:
        """The trace that `to_arrays` took apart; the arrays are not copied."""
        columns: dict[str, Any] = dict(zip(_ARRAYS, arrays, strict=True))
        return cls(**columns, **rest)  # type: ignore[arg-type]


def trace_digest(trace: Trace) -> str:
    """16 hex digits (xxh3) over what a trace asks for, the same on machines of either byte order. Sessions and gaps
    count where there are any, and so do answers that have ids.

    The columns and not the file are hashed: the same file gives other requests where tokens are counted otherwise.
    """
    columns: list[NDArray[Any]] = [
        trace.arrival_ns,
        trace.context_tokens,
        trace.output_tokens,
        trace.hash_ids,
        trace.hash_offsets,
    ]
    if (trace.session >= 0).any() or (trace.gap_ns >= 0).any():
        columns += [trace.session, trace.gap_ns]
    if trace.answer_counts.any():
        columns.append(trace.answer_counts)
    return _columns_digest(columns, trace.hash_block_tokens)


def _columns_digest(columns: list[NDArray[Any]], hash_block_tokens: int) -> str:
    digest = xxhash.xxh3_64()
    for column in (*columns, np.array([hash_block_tokens])):
        wide = "<u8" if column.dtype.kind == "u" else "<i8"
        digest.update(len(column).to_bytes(8, "little"))
        for start in range(0, len(column), PIECE_IDS):
            digest.update(column[start : start + PIECE_IDS].astype(wide).tobytes())
    return digest.hexdigest()
