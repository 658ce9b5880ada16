"""Decides requests that are served as an engine does it, and turns the decisions into operations. It moves no bytes.

A block is one object, or several (`BlockShape`): whatever is done to it is then done to each of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cache import Step
from kvbench.cache.chains import ChainCache
from kvbench.engine.chained import BlockShape
from kvbench.engine.operation import ActiveRequest, Bundle, Operation, Unit
from kvbench.engine.prefix_hits import PrefixHits
from kvbench.engine.queueing import Queueing, add_stage
from kvbench.records.schema import Op, Phase
from kvbench.workload.request import Chain

_READ: Final = Op.READ
_WRITE: Final = Op.WRITE
_PROMOTE: Final = Op.PROMOTE
_OPS: Final = tuple(Op)
_LOADS: Final = (Op.READ, Op.PROMOTE)


class Serving:
    """Serves chains from `cache`."""

    def __init__(
        self,
        cache: ChainCache,
        shape: BlockShape,
        prefix_hits: PrefixHits,
        queueing: Queueing,
        computes: bool,
        bundles: bool = False,
    ) -> None:
        """`computes`: requests are computed on a modelled GPU, between what they read and what they write. `bundles`:
        what a request does to several objects may be decided and handed out as one."""
        self._cache = cache
        self._shape = shape
        self._prefix_hits = prefix_hits
        self._queueing = queueing
        self._computes = computes
        self._bundles = bundles
        self._first_ns: int | None = None

    def serve(self, active: ActiveRequest, chain: Chain) -> None:
        """What was found is read, all of it at a time, after the filesystem was asked for it where it is to be; then
        what is new is written, likewise."""
        request, tokens = active.request, chain.block_tokens
        found, kinds = self._cache.serve_kinds(chain.keys, chain.lookup, chain.stored, self._time_ns(active, chain))
        active.hit_objects, active.miss_objects = len(found), chain.lookup - len(found)
        active.hit_tokens = min(len(found) * tokens, request.context_tokens)
        active.miss_tokens = request.context_tokens - active.hit_tokens
        if active.phase == Phase.MEASURE:
            self._prefix_hits.add(found, self._cache.missed, tokens, request.context_tokens)
        add_stage(active, self._look_ups(active, chain, found))
        active.looked_up_at = len(active.stages)
        reads, writes = self._line_up_bundles(active, chain, kinds) or self._line_up(active, chain)
        if reads and self._shape.ranks > 1:
            active.waits_at = len(active.stages)
        add_stage(active, reads)
        active.loaded_at = len(active.stages)
        if self._shape.modelled:
            add_stage(active, [], self._shape.modelled_ns(int(np.count_nonzero(found == 0))))
        if self._computes:
            active.computes_at = len(active.stages)
            active.stages.append(writes)
            active.stage_delays_ns.append(0)
            return
        add_stage(active, writes)
        if request.generation_ns:
            add_stage(active, [], request.generation_ns)

    def prefetch(self, active: ActiveRequest, chain: Chain) -> None:
        """What is there of the chain is brought up, as far as there is room for it; nobody waits for that."""
        steps = self._cache.prefetch(chain.keys, self._time_ns(active, chain))
        for operation in self._operations(steps, active):
            self._queueing.make_room(operation)

    def _time_ns(self, active: ActiveRequest, chain: Chain) -> int:
        """What times to live count by: the clock of the workload, or the real one where requests wait for answers."""
        if not self._shape.follows:
            return chain.time_ns
        if self._first_ns is None:
            self._first_ns = active.start_ns
        return round((active.start_ns - self._first_ns) * self._shape.speedup)

    def _look_ups(self, active: ActiveRequest, chain: Chain, found: npt.NDArray[np.int8]) -> list[Unit]:
        """Where the filesystem is asked: for each block that was found there, and the first that was missing, of which
        the operation has no tokens. A block of several objects is asked for by its first."""
        asked: list[Unit] = []
        tier = self._shape.asks
        if tier is None:
            return asked
        places = np.flatnonzero(found == tier).tolist()
        if len(found) < chain.lookup:
            places.append(len(found))
        for place in places:
            key, tokens = self._shape.objects(int(chain.keys[place]))[0]
            step = Step(Op.LOOKUP, key, 0, tier, None)
            self._queueing.ask(Operation(step, active, tokens if place < len(found) else 0, 0), asked)
        return asked

    def _line_up(self, active: ActiveRequest, chain: Chain) -> tuple[list[Unit], list[Unit]]:
        """The operations that the request waits for: reads, and writes of its own blocks. All others make room."""
        shape, steps = self._shape, self._cache.last_steps()
        # What a modelled tier pushes out is written below, and no request waits for that.
        own = frozenset(chain.keys.tolist()) if shape.modelled else None
        reads: list[Unit] = []
        writes: list[Unit] = []
        first = len(active.stages)
        last_load = max((at for at, step in enumerate(steps) if step[0] in _LOADS), default=-1)
        later = first + (last_load >= 0)
        for at, step in enumerate(steps):
            code, key, _, _ = step
            if code in _LOADS:
                for operation in self._operations([step], active, first):
                    self._queueing.ask(operation, reads)
            elif code == _WRITE and at > last_load and (own is None or key in own):
                # One that was pushed out before a read makes room for it: were it to wait for the reads, none could go.
                for operation in self._operations([step], active, later):
                    self._queueing.ask(operation, writes)
            else:
                for operation in self._operations([step], active):
                    self._queueing.make_room(operation)
        return layer_by_layer(reads, shape.parts), layer_by_layer(writes, shape.parts)

    def _line_up_bundles(
        self, active: ActiveRequest, chain: Chain, kinds: Sequence[tuple[int, int, int, list[int]]]
    ) -> tuple[list[Unit], list[Unit]] | None:
        """The same without an object for each; None where one of the steps may wait for another of them.

        That is so where something is done to one block twice, and where blocks move up: room that a move up needs may
        be made by one down, and the other way round. Otherwise what makes room on a tier is never waited for by what
        it waits for itself: moves go down, and the last is a delete.
        """
        codes = [code for code, _, _, _ in kinds]
        if not self._bundles or _PROMOTE in codes or _some_twice([keys for _, _, _, keys in kinds]):
            return None
        if _READ in codes and _WRITE in codes[: len(codes) - codes[::-1].index(_READ)]:
            # Pushed out of a modelled tier before a read, for which it makes room.
            return None
        own = frozenset(chain.keys.tolist()) if self._shape.modelled else None
        reads: list[Unit] = []
        writes: list[Unit] = []
        first = len(active.stages)
        later = first + (_READ in codes)
        for code, source, target, keys in kinds:
            kind, others = (code, source, target), keys
            if code == _READ:
                for bundle in self._bundled(kind, keys, active, first):
                    self._queueing.ask(bundle, reads)
                continue
            if code == _WRITE:
                waited_for = keys if own is None else [key for key in keys if key in own]
                for bundle in self._bundled(kind, waited_for, active, later):
                    self._queueing.ask(bundle, writes)
                others = [] if own is None else [key for key in keys if key not in own]
            for bundle in self._bundled(kind, others, active, None):
                self._queueing.make_room(bundle)
        return reads, writes

    def _bundled(
        self, kind: tuple[int, int, int], keys: list[int], active: ActiveRequest, stage: int | None
    ) -> Iterator[Bundle]:
        """All objects of the blocks `keys`, layer by layer; those with other shares of the tokens apart."""
        if not keys:
            return
        shape, (code, source, target) = self._shape, kind
        places = (None if source < 0 else source, None if target < 0 else target)
        if shape.parts == 1:
            yield Bundle(_OPS[code], keys, shape.object_bytes, shape.tokens, places, active, stage)
            return
        by_layer = list(zip(*map(shape.objects, keys), strict=True))
        first_tokens, others = by_layer[0][0][1], by_layer[1][0][1]
        layers = [by_layer] if first_tokens == others else [by_layer[:1], by_layer[1:]]
        numbers = np.array([shape.layer(part) for part in range(shape.parts)], np.uint8)
        first = 0
        for some in layers:
            objects = [key for layer in some for key, _ in layer]
            of_layers = np.repeat(numbers[first : first + len(some)], len(keys)) if shape.parts_per_layer else None
            yield Bundle(_OPS[code], objects, shape.object_bytes, some[0][0][1], places, active, stage, of_layers)
            first += len(some)

    def _operations(
        self, steps: Iterable[tuple[int, int, int, int]], active: ActiveRequest, stage: int | None = None
    ) -> Iterator[Operation]:
        """Those of the objects of each step's block."""
        for code, key, source, target in steps:
            places = (None if source < 0 else source, None if target < 0 else target)
            for part, (part_key, tokens) in enumerate(self._shape.objects(key)):
                step = Step(_OPS[code], part_key, self._shape.object_bytes, *places)
                operation = Operation(step, active, tokens, stage)
                operation.layer = self._shape.layer(part)
                yield operation


def _some_twice(keys: Sequence[list[int]]) -> bool:
    """Whether any key stands in the lists more than once."""
    return len(set().union(*keys)) < sum(map(len, keys))


def layer_by_layer(operations: list[Unit], parts: int) -> list[Unit]:
    """Operations on all objects of one block after the other, in the order of layers: the first of every block, and so
    on."""
    if parts == 1:
        return operations
    return [operation for part in range(parts) for operation in operations[part::parts]]
