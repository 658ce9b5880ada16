"""Replaying a trace: which rank gets which requests, and the requests of one rank as a `request.Schedule`.

Reads no files and does not wait.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvbench.config.run_config import RunConfig, SessionsWorkload, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.workload.chains import Chains
from kvbench.workload.demand import phases, piece_tokens, qos_class
from kvbench.workload.keys import KeyKind, mixed, object_key
from kvbench.workload.request import ObjectRef, Request
from kvbench.workload.traces.trace import Trace
from kvbench.workload.turns import Turns, rows_of


def deal(trace: Trace, size: int, how: Literal["round-robin", "prefix", "session"]) -> list[NDArray[np.int64]]:
    """Positions of the requests of each of `size` ranks, rising; every request goes to one rank.

    `round-robin`: request i to rank i modulo `size`. `prefix`: by a hash of the first block's id, so that requests that
    can share blocks meet; a request without hash ids goes round-robin. `session`: session i to rank i modulo `size`,
    likewise.
    """
    owner = np.arange(len(trace)) % size
    if how == "session":
        owner = np.where(trace.session >= 0, trace.session % size, owner)
    if how == "prefix":
        hashed = trace.hash_counts > 0
        first_ids = trace.hash_ids[trace.hash_offsets[:-1][hashed]]
        owner[hashed] = (mixed(first_ids) % np.uint64(size)).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=size))[:-1])


class TraceSchedule:
    """One rank's part of a trace (implements `request.Schedule`): one stream, in order of arrival, that ends. Where
    pacing is closed it has the first turns of sessions, and each turn has the next (`Request.followers`).

    A request's number is its number in the whole trace. A trace says nothing of its users: all are user 0, and QoS
    classes are drawn per request from (seed, number), the same for any number of ranks.
    """

    def __init__(self, config: RunConfig, part: Trace) -> None:
        """`part`: see `Trace.take`. Raises KvbenchError where the block size does not fit the trace's hash ids."""
        if not isinstance(config.workload, TraceWorkload | SessionsWorkload):
            raise TypeError("TraceSchedule needs a configuration whose workload is a trace, or sessions")
        self._config = config
        self._workload = config.workload
        self._part = part
        self.chains = Chains(config, part) if config.serves_as_engine else None
        """Where requests are served as an engine does it."""
        self._turns = Turns(part) if config.pacing.mode == "closed" else None
        self._blocks = config.cache.layout == "block"
        unit = part.hash_block_tokens
        if self.chains is None and self._blocks and unit and config.cache.block_tokens % unit:
            raise KvbenchError(
                f"cache.block_tokens: {config.cache.block_tokens} does not fit {part.source}, whose hash ids stand for "
                f"blocks of {unit} tokens: use a multiple of {unit}, or cache.layout=entry"
            )
        self._ids_per_object = config.cache.block_tokens // unit if unit else 0

    @property
    def part(self) -> Trace:
        """The requests themselves."""
        return self._part

    @property
    def users(self) -> int:
        """Always 1: one stream."""
        return 1

    @property
    def closed_loop(self) -> bool:
        """Always False: nobody asks without end, and what waits for an answer is said by the request."""
        return False

    def stream(self, user: int) -> Iterator[Request]:
        """The requests of this rank in order; `user` is 0. Raises IndexError."""
        if user != 0:
            raise IndexError(f"no stream {user}: there is 1")
        if self._turns is not None:
            first: list[int] = np.flatnonzero(self._turns.first).tolist()
            return map(self._request, first)
        return self._in_order()

    def preconditioning(self) -> Iterator[ObjectRef]:
        """Mode `decode`: every different object of this rank's part, in order of first use. Otherwise nothing."""
        if self._workload.mode != "decode":
            return
        seen: set[int] = set()
        for position in range(len(self._part)):
            for ref in self._objects(position):
                if ref.key not in seen:
                    seen.add(ref.key)
                    yield ref

    def largest_object_tokens(self) -> int:
        """The longest context, or a block if that is less; 0 for a rank without requests."""
        if self.chains is not None:
            return self.chains.block_tokens if len(self._part) else 0
        longest = int(self._part.context_tokens.max(initial=0))
        return min(longest, self._config.cache.block_tokens) if self._blocks else longest

    def request(self, number: int) -> Request:
        """Request `number` of the whole trace. Raises LookupError where this rank's part does not hold it."""
        position = int(np.searchsorted(self._part.number, number))
        if position == len(self._part) or self._part.number[position] != number:
            raise LookupError(f"no request {number} in this part of {self._part.source}: the ranks' schedules differ")
        return self._request(position)

    def _in_order(self) -> Iterator[Request]:
        rows = rows_of(self._config, self._part)
        for position, is_prefetch, time_ns in zip(*(column.tolist() for column in rows), strict=True):
            request = self._request(position)
            yield self._prefetch(request, position, time_ns) if is_prefetch else request

    def _prefetch(self, request: Request, position: int, time_ns: int) -> Request:
        """Of the blocks of the turn `request`, at `time_ns` of the trace's clock."""
        assert self.chains is not None
        chain = self.chains.session_chain(position)._replace(time_ns=time_ns)
        return replace(request, arrival_ns=self._scaled(time_ns), chain=chain, prefetch=True, followers=None)

    def _scaled(self, time_ns: int) -> int:
        """By the run's clock; 0 where nobody waits for his time."""
        pacing = self._config.pacing
        return 0 if pacing.mode == "asap" else round(time_ns / pacing.speedup)

    def _followers(self, position: int) -> list[Request]:
        """Closed within a session: the turn that waits for the answer to the one at `position`, and the prefetch that
        comes before it is expected."""
        assert self._turns is not None
        turns, cache, found = self._turns, self._config.cache, []
        following = int(turns.next[position])
        gap_ns = int(turns.gap_ns[following]) if following >= 0 else None
        if cache.prefetch != "none" and turns.gap_ns[position] >= 0:
            early_ns = max(0, int(turns.gap_ns[position]) - round(cache.prefetch_lead_s * 1e9))
            if gap_ns is None or gap_ns > early_ns:
                found.append(self._prefetch(self._request(position), position, early_ns))
        if gap_ns is not None:
            found.append(replace(self._request(following), arrival_ns=self._scaled(gap_ns)))
        return found

    def _request(self, position: int) -> Request:
        part, seed = self._part, self._config.seed
        number = int(part.number[position])
        context_tokens = int(part.context_tokens[position])
        output_tokens = int(part.output_tokens[position])
        chain = None if self.chains is None else self.chains.chain(position)
        if chain is None:
            assert isinstance(self._workload, TraceWorkload), "sessions are served as an engine does it"
            prefill, decode_passes, generation_ns = phases(self._workload, context_tokens, output_tokens)
        else:
            prefill, decode_passes = True, 0
            generation_ns = round(output_tokens * self._workload.generation_ms_per_token * 1e6)
        return Request(
            number=number,
            user=0,
            qos=qos_class(object_key(KeyKind.REQUEST_QOS, seed, number) % 100),
            arrival_ns=self._scaled(int(part.arrival_ns[position])),
            context_tokens=context_tokens,
            output_tokens=output_tokens,
            history=(),
            context=() if chain is not None else self._objects(position),
            prefill=prefill,
            decode_passes=decode_passes,
            generation_ns=generation_ns,
            followers=None if self._turns is None else partial(self._followers, position),
            chain=chain,
        )

    def _objects(self, position: int) -> tuple[ObjectRef, ...]:
        tokens = int(self._part.context_tokens[position])
        pieces = piece_tokens(tokens, self._config.cache.block_tokens) if self._blocks else [tokens]
        ids = self._part.ids(position)
        hashed = self._hashed(len(ids), pieces)
        if self._blocks and self._ids_per_object == 1:
            # An id already stands for the whole prefix up to its block.
            blocks = zip(ids.tolist(), pieces[:hashed], strict=False)
            keys = [object_key(KeyKind.TRACE_BLOCK, hash_id, piece) for hash_id, piece in blocks]
        else:
            keys = _prefix_keys(ids, pieces[:hashed], self._ids_per_object if self._blocks else len(ids))
        number = int(self._part.number[position])
        keys += [object_key(KeyKind.TRACE_REQUEST, number, block) for block in range(hashed, len(pieces))]
        return tuple(map(ObjectRef, keys, pieces))

    def _hashed(self, ids: int, pieces: list[int]) -> int:
        """Of how many of a request's objects, of `pieces` tokens, its hash ids tell the content. What no id stands for,
        such as a partial block of a format that has ids of full ones, is nobody else's."""
        covered = ids * self._part.hash_block_tokens
        if covered >= sum(pieces):
            return len(pieces)
        return covered // self._config.cache.block_tokens if self._blocks else 0


def _prefix_keys(ids: NDArray[np.uint64], pieces: list[int], ids_per_object: int) -> list[int]:
    """Keys of objects that hold `ids_per_object` blocks each, hashed over all ids of the request up to their end."""
    little = ids.astype("<u8", copy=False)
    prefix = xxhash.xxh3_64()
    keys = []
    for index, piece in enumerate(pieces):
        prefix.update(little[index * ids_per_object : (index + 1) * ids_per_object].tobytes())
        keys.append(object_key(KeyKind.TRACE_PREFIX, prefix.intdigest(), piece))
    return keys
