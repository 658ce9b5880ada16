"""Makes the cache decisions of a request and turns them into operations, in an order in which all can be carried out.

It moves no bytes and does not wait. The dispatcher calls it under its lock, one request after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kvbench import timed_io
from kvbench.cache import Cache, Step
from kvbench.cache.chains import ChainCache
from kvbench.engine.chained import BlockShape
from kvbench.engine.look_ups import LookUps
from kvbench.engine.modelled_gpu import ModelledGpu
from kvbench.engine.operation import ActiveRequest, Next, Operation, Unit
from kvbench.engine.order import KeyOrder, Room
from kvbench.engine.prefix_hits import PrefixHits
from kvbench.engine.queueing import Queueing, add_stage
from kvbench.engine.serving import Serving
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import Op, Phase
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.request import ObjectRef
from kvbench.workload.stages import Stage, next_stage, stages_of

_READ: Final = Op.READ
_PROMOTE: Final = Op.PROMOTE
_WRITE: Final = Op.WRITE
_OPS: Final = tuple(Op)
_LOADS: Final = (Op.READ, Op.PROMOTE)
_ASKED_FOR: Final = frozenset((Op.READ, Op.WRITE, Op.PROMOTE))
"""What is done to the object that a request asks for; all else makes room for it."""


class Books:
    """What outlives one load: where each object is, and the room that is really free on each tier."""

    def __init__(
        self,
        cache: Cache,
        capacities: Sequence[int],
        storage: Sequence[bool],
        chains: ChainCache | None = None,
        shape: BlockShape | None = None,
        gpu: ModelledGpu | None = None,
    ) -> None:
        """`chains` decides where requests are served as an engine does it, and `cache` then nothing; `shape` is of its
        blocks, and `gpu` what their requests are computed on."""
        self.cache = cache
        self.rooms = [Room(capacity) for capacity in capacities]
        self.chains = chains
        self.shape = shape
        self.gpu = gpu
        self.prefix_hits = PrefixHits(len(self.rooms))
        self.storage = tuple(storage)
        self.look_ups = LookUps()
        self.left_waiting = (0, 0)
        """Open loop: requests of the measured phase that had come when it ended and had not begun, and the tokens of
        their contexts."""


class Planner:
    """Decides requests with `books`; `order` keeps operations on one key in order."""

    def __init__(
        self,
        books: Books,
        order: KeyOrder,
        sharing: Sharing | None,
        bytes_per_token: int,
        make_ready: Callable[[Unit], None],
        clock: Callable[[], int] = timed_io.now_ns,
    ) -> None:
        """`make_ready` is called with each operation that nothing stands in the way of; `clock` says what time it is
        (ns)."""
        self._books = books
        self._sharing = sharing
        self._bytes_per_token = bytes_per_token
        self._queueing = Queueing(order, books.rooms, make_ready, clock)
        self._serving: Serving | None = None
        if books.chains is not None and books.shape is not None:
            computes = books.gpu is not None
            bundles = sharing is None
            self._serving = Serving(books.chains, books.shape, books.prefix_hits, self._queueing, computes, bundles)
        self._being_written: set[int] = set()

    def decide(self, active: ActiveRequest) -> None:
        """All decisions of a request, in the order of its stages; or, where they are made step by step, none yet."""
        request = active.request
        if request.chain is not None:
            assert self._serving is not None
            serve = self._serving.prefetch if request.prefetch else self._serving.serve
            serve(active, request.chain)
            return
        if request.in_steps:
            active.more = self._in_steps(active)
            return
        look_ups = self._look_ups_of(active)
        asked = stages_of(request)
        stage = next_stage(asked)
        while stage is not None:
            operations: list[Unit] = []
            found: list[bool] = []
            for kind, references in self._kinds(stage):
                of_kind = [self._look_up(active, reference, operations) for reference in references]
                look_ups.count(kind, references, of_kind)
                found += of_kind
            for reference in stage.writes:
                if self._books.cache.lookup(reference.key) is None:
                    self._write(active, reference, operations)
            add_stage(active, operations, stage.delay_ns)
            stage = next_stage(asked, found)

    def decide_next(self, active: ActiveRequest) -> Next:
        """Decide the next step of a request that is decided step by step."""
        return next(active.more or iter(()), Next.NOTHING)

    def written(self, key: int) -> None:
        """The object `key` is there now, where requests are decided step by step."""
        self._being_written.discard(key)

    def _in_steps(self, active: ActiveRequest) -> Iterator[Next]:
        request = active.request
        look_ups = self._look_ups_of(active)
        look_ups.plain_requests += not request.prompt_tokens
        asked = stages_of(request)
        stage = next_stage(asked)
        while stage is not None:
            found = []
            if stage.unknown_tokens:
                active.miss_objects += 1
                active.miss_tokens += stage.unknown_tokens
                look_ups.prompt_misses += 1
                look_ups.prompt_tokens += stage.unknown_tokens
            for kind, references in self._kinds(stage):
                for reference in references:
                    found.append(self._add_read(active, reference))
                    look_ups.count(kind, (reference,), found[-1:])
                    look_ups.prompted_hits += stage.decodes and request.prompt_tokens > 0 and found[-1]
                    if found[-1]:
                        yield Next.STAGE
            for reference in stage.writes:
                yield from self._add_write(active, reference)
            if stage.delay_ns:
                add_stage(active, [], stage.delay_ns)
                yield Next.STAGE
            stage = next_stage(asked, found)

    def _look_ups_of(self, active: ActiveRequest) -> LookUps:
        """Where those of a request are counted."""
        return self._books.look_ups if active.phase == Phase.MEASURE else LookUps()

    @staticmethod
    def _kinds(stage: Stage) -> tuple[tuple[str, tuple[ObjectRef, ...]], ...]:
        return ("history", stage.history), ("context" if stage.decodes else "first", stage.context)

    def _add_read(self, active: ActiveRequest, reference: ObjectRef) -> bool:
        """A stage that reads one object, where it is there."""
        if reference.key in self._being_written:
            active.miss_objects += 1
            active.miss_tokens += reference.tokens
            return False
        stage: list[Unit] = []
        found = self._look_up(active, reference, stage)
        add_stage(active, stage)
        return found

    def _add_write(self, active: ActiveRequest, reference: ObjectRef) -> Iterator[Next]:
        """A stage that writes an object that nobody has written. Room is only taken once it has a place: what waits
        for one must not push out what is there."""
        if self._books.cache.lookup(reference.key) is not None:
            return
        yield Next.PLACE
        stage: list[Unit] = []
        self._write(active, reference, stage)
        if stage:
            self._being_written.add(reference.key)
            (write,) = stage
            assert isinstance(write, Operation)
            write.placed, active.has_place = active.has_place, False
            add_stage(active, stage)
            yield Next.STAGE

    def _write(self, active: ActiveRequest, reference: ObjectRef, stage: list[Unit]) -> None:
        nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
        self._plan(active, self._books.cache.insert(reference.key, nbytes), reference, stage)

    def _look_up(self, active: ActiveRequest, reference: ObjectRef, stage: list[Unit]) -> bool:
        steps = self._books.cache.read(reference.key)
        writer = None if steps or self._sharing is None else self._sharing.peers.writer_of(reference.key)
        if not steps and writer is None:
            active.miss_objects += 1
            active.miss_tokens += reference.tokens
            return False
        active.hit_objects += 1
        active.hit_tokens += reference.tokens
        if writer is not None:
            self._plan_elsewhere(active, reference, writer, stage)
            return True
        if steps[-1].op == _PROMOTE:
            # The promotion is the read: the object lands in the faster tier, and nothing is read twice.
            self._plan(active, [step for step in steps if step.op != _READ], reference, stage)
        else:
            self._queueing.ask(Operation(steps[0], active, reference.tokens, len(active.stages)), stage)
        return True

    def _plan(self, active: ActiveRequest, steps: Sequence[Step], reference: ObjectRef, stage: list[Unit]) -> None:
        for step in steps:
            if step.key == reference.key and step.op in _ASKED_FOR:
                self._queueing.ask(Operation(step, active, reference.tokens, len(active.stages)), stage)
                continue
            self._queueing.make_room(Operation(step, active, step.nbytes // self._bytes_per_token, None))

    def _plan_elsewhere(self, active: ActiveRequest, reference: ObjectRef, writer: int, stage: list[Unit]) -> None:
        """A read of another rank's object: it takes no room here, and nothing on this rank can be in its way."""
        assert self._sharing is not None
        nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
        step = Step(Op.READ, reference.key, nbytes, self._sharing.storage_tier, None)
        operation = Operation(step, active, reference.tokens, len(active.stages))
        operation.waits_for = 1
        operation.writer, operation.locality = writer, self._sharing.locality(writer)
        stage.append(operation)
