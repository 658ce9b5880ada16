"""Makes the cache decisions of a request and turns them into operations, in an order in which all can be carried out.

It moves no bytes and does not wait. The dispatcher calls it under its lock, one request after the other.
"""

from collections.abc import Callable, Iterator, Sequence

from kvbench import timed_io
from kvbench.cache import Cache, Step
from kvbench.engine.look_ups import LookUps
from kvbench.engine.operation import ActiveRequest, Next, Operation
from kvbench.engine.order import KeyOrder, Room
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import Op, Phase
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.request import ObjectRef


class Books:
    """What outlives one load: where each object is, and the room that is really free on each tier."""

    def __init__(self, cache: Cache, capacities: Sequence[int], storage: Sequence[bool]) -> None:
        self.cache = cache
        self.rooms = [Room(capacity) for capacity in capacities]
        self.storage = tuple(storage)
        self.look_ups = LookUps()


class Planner:
    """Decides requests with `books`; `order` keeps operations on one key in order."""

    def __init__(
        self,
        books: Books,
        order: KeyOrder,
        sharing: Sharing | None,
        bytes_per_token: int,
        make_ready: Callable[[Operation], None],
    ) -> None:
        """`make_ready` is called with each operation that nothing stands in the way of."""
        self._books = books
        self._order = order
        self._sharing = sharing
        self._bytes_per_token = bytes_per_token
        self._make_ready = make_ready
        self._being_written: set[int] = set()

    def decide(self, active: ActiveRequest) -> None:
        """All decisions of a request, in the order of its stages: look-ups first, then the writes of what is missing,
        then the decode reads. A stage thus only ever waits for what was decided before it."""
        request = active.request
        if request.in_steps:
            active.more = self._in_steps(active)
            return
        if not request.handed_over:
            self._decide_prefill(active)
        delay_ns = request.generation_ns // max(1, request.decode_passes)
        for decode_pass in range(request.decode_passes):
            passes: list[Operation] = []
            for reference in request.context:
                self._look_up(active, reference, passes)
            self._add_stage(active, passes, delay_ns if decode_pass else 0)
        self._add_stage(active, [], delay_ns)

    def decide_next(self, active: ActiveRequest) -> Next:
        """Decide the next step of a request that is decided step by step."""
        return next(active.more or iter(()), Next.NOTHING)

    def written(self, key: int) -> None:
        """The object `key` is there now, where requests are decided step by step."""
        self._being_written.discard(key)

    def _in_steps(self, active: ActiveRequest) -> Iterator[Next]:
        request = active.request
        look_ups = self._books.look_ups if active.phase == Phase.MEASURE else LookUps()
        if request.prompt_tokens:
            active.miss_objects += 1
            active.miss_tokens += request.prompt_tokens
            look_ups.prompt_misses += 1
            look_ups.prompt_tokens += request.prompt_tokens
        else:
            look_ups.plain_requests += 1
        for reference in request.history:
            found = self._add_read(active, reference)
            look_ups.history_hits += found
            look_ups.history_misses += not found
            if found:
                yield Next.STAGE
        if request.prefill:
            yield from self._add_writes(active)
        for decode_pass in range(request.decode_passes):
            gone = False
            for reference in request.context:
                found = self._add_read(active, reference)
                gone |= not found
                look_ups.context_hits += found
                look_ups.context_misses += not found
                look_ups.prompted_hits += found and request.prompt_tokens > 0
                if found:
                    yield Next.STAGE
            if gone and decode_pass == 0:
                yield from self._add_writes(active)
                break
        if request.generation_ns:
            self._add_stage(active, [], request.generation_ns)
            yield Next.STAGE

    def _add_read(self, active: ActiveRequest, reference: ObjectRef) -> bool:
        """A stage that reads one object, where it is there."""
        if reference.key in self._being_written:
            active.miss_objects += 1
            active.miss_tokens += reference.tokens
            return False
        stage: list[Operation] = []
        found = self._look_up(active, reference, stage)
        self._add_stage(active, stage)
        return found

    def _add_writes(self, active: ActiveRequest) -> Iterator[Next]:
        """A stage for each object of the context that nobody has written. Room is only taken for those that have a
        place: what waits for one must not push out what is there."""
        cache = self._books.cache
        for reference in active.request.context:
            if cache.lookup(reference.key) is not None:
                continue
            yield Next.PLACE
            stage: list[Operation] = []
            nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
            self._plan(active, cache.insert(reference.key, nbytes), reference, stage)
            if stage:
                self._being_written.add(reference.key)
                stage[0].placed, active.has_place = active.has_place, False
                self._add_stage(active, stage)
                yield Next.STAGE

    def _decide_prefill(self, active: ActiveRequest) -> None:
        request, cache = active.request, self._books.cache
        reads: list[Operation] = []
        missing: list[ObjectRef] = []
        for reference in request.history:
            self._look_up(active, reference, reads)
        for reference in request.context:
            if not self._look_up(active, reference, reads):
                missing.append(reference)
        self._add_stage(active, reads)
        if request.prefill:
            writes: list[Operation] = []
            for reference in missing:
                if cache.lookup(reference.key) is None:
                    nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
                    self._plan(active, cache.insert(reference.key, nbytes), reference, writes)
            self._add_stage(active, writes)

    def _look_up(self, active: ActiveRequest, reference: ObjectRef, stage: list[Operation]) -> bool:
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
        if steps[-1].op == Op.PROMOTE:
            # The promotion is the read: the object lands in the faster tier, and nothing is read twice.
            steps = [step for step in steps if step.op != Op.READ]
        self._plan(active, steps, reference, stage)
        return True

    def _plan(self, active: ActiveRequest, steps: Sequence[Step], reference: ObjectRef, stage: list[Operation]) -> None:
        for step in steps:
            asked_for = step.key == reference.key and step.op in (Op.READ, Op.WRITE, Op.PROMOTE)
            tokens = reference.tokens if asked_for else step.nbytes // self._bytes_per_token
            operation = Operation(step, active, tokens, len(active.stages) if asked_for else None)
            operation.alone = active.request.in_steps
            self._order.add(operation)
            if step.target is not None:
                self._books.rooms[step.target].ask(operation)
            if asked_for:
                operation.waits_for += 1
                stage.append(operation)
            else:
                operation.ready_ns = timed_io.now_ns()
                if operation.waits_for == 0:
                    self._make_ready(operation)

    def _plan_elsewhere(self, active: ActiveRequest, reference: ObjectRef, writer: int, stage: list[Operation]) -> None:
        """A read of another rank's object: it takes no room here, and nothing on this rank can be in its way."""
        assert self._sharing is not None
        nbytes = stored_bytes(reference.tokens * self._bytes_per_token)
        step = Step(Op.READ, reference.key, nbytes, self._sharing.storage_tier, None)
        operation = Operation(step, active, reference.tokens, len(active.stages), waits_for=1)
        operation.writer, operation.locality = writer, self._sharing.locality(writer)
        stage.append(operation)

    @staticmethod
    def _add_stage(active: ActiveRequest, operations: list[Operation], delay_ns: int = 0) -> None:
        if operations or delay_ns:
            active.stages.append(operations)
            active.stage_delays_ns.append(delay_ns)
