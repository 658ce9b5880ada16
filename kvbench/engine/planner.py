"""Makes the cache decisions of a request and turns them into operations, in an order in which all can be carried out.

It moves no bytes and does not wait. The dispatcher calls it under its lock, one request after the other.
"""

from collections.abc import Callable, Sequence

from kvbench import timed_io
from kvbench.cache import Cache, Step
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.engine.order import KeyOrder, Room
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import Op
from kvbench.tiers.arena import stored_bytes
from kvbench.workload.request import ObjectRef


class Books:
    """What outlives one load: where each object is, and the room that is really free on each tier."""

    def __init__(self, cache: Cache, capacities: Sequence[int], storage: Sequence[bool]) -> None:
        self.cache = cache
        self.rooms = [Room(capacity) for capacity in capacities]
        self.storage = tuple(storage)


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

    def decide(self, active: ActiveRequest) -> None:
        """All decisions of a request, in the order of its stages: look-ups first, then the writes of what is missing,
        then the decode reads. A stage thus only ever waits for what was decided before it."""
        request = active.request
        if not request.handed_over:
            self._decide_prefill(active)
        delay_ns = request.generation_ns // max(1, request.decode_passes)
        for decode_pass in range(request.decode_passes):
            passes: list[Operation] = []
            for reference in request.context:
                self._look_up(active, reference, passes)
            self._add_stage(active, passes, delay_ns if decode_pass else 0)
        self._add_stage(active, [], delay_ns)

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
