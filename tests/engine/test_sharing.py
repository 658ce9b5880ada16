"""Deleting what others may read: never while a read that was begun before runs anywhere, and always in the end."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.cache import Step
from kvbench.cache.announcements import ANNOUNCEMENT_DTYPE, Announcements
from kvbench.engine.operation import ActiveRequest, Operation
from kvbench.engine.sharing import Sharing
from kvbench.records.schema import Op, Phase
from kvbench.workload.request import Request

RANKS = 3
KEYS = 4
REQUEST = Request(0, 0, 0, 0, 1, 1, (), (), True, 0, 0)


def operation(op: Op, key: int) -> Operation:
    return Operation(Step(op, key, 4096, 0, None), ActiveRequest(REQUEST, Phase.MEASURE, 0, 0), 1, None)


class Job:
    """Several ranks whose rounds are made by hand: a rank hears of a round only when `deliver` says so."""

    def __init__(self) -> None:
        self.ranks = [Sharing(rank, np.zeros(RANKS, np.int64), 0) for rank in range(RANKS)]
        self.rounds: list[tuple[Announcements, int]] = []
        self.heard = [0] * RANKS
        self.files: set[tuple[int, int]] = set()
        self.reads: list[tuple[Sharing, Operation]] = []
        self.retiring: dict[Operation, tuple[int, int]] = {}
        self.deleted = 0

    def write(self, rank: int, key: int) -> None:
        if (rank, key) not in self.files:
            self.files.add((rank, key))
            self.ranks[rank].written(key, 4096, 0)

    def retire(self, rank: int, key: int) -> None:
        if (rank, key) in self.files and (rank, key) not in self.retiring.values():
            delete = operation(Op.DELETE, key)
            self.retiring[delete] = (rank, key)
            self.ranks[rank].retire(delete, 0)

    def begin(self, rank: int, key: int) -> None:
        sharing = self.ranks[rank]
        writer = sharing.peers.writer_of(key)
        if writer is None:
            return
        read = operation(Op.READ, key)
        read.writer = writer
        assert sharing.find_writer(read)
        sharing.begin_read(read)
        assert read.writer is not None
        assert (read.writer, key) in self.files, "what may be read is there"
        self.reads.append((sharing, read))

    def end(self, which: int) -> None:
        if self.reads:
            sharing, read = self.reads.pop(which % len(self.reads))
            sharing.end_read(read)

    def start_round(self) -> None:
        """Every rank takes part in a round only when it has taken in the one before."""
        if any(heard < len(self.rounds) for heard in self.heard):
            return
        number = len(self.rounds) + 1
        said = [rank.say(number) for rank in self.ranks]
        settled = min(rank.settled for rank in self.ranks)
        self.rounds.append((np.concatenate([np.empty(0, ANNOUNCEMENT_DTYPE), *said]), settled))

    def deliver(self, rank: int) -> None:
        if self.heard[rank] == len(self.rounds):
            return
        self.heard[rank] += 1
        news, settled = self.rounds[self.heard[rank] - 1]
        heard = self.ranks[rank].take_in(self.heard[rank], news, settled, np.zeros(RANKS, np.bool_))
        for delete in heard.deletes:
            gone = self.retiring.pop(delete)
            for _, read in self.reads:
                assert (read.writer, read.step.key) != gone, "deleted under the eyes of a reader"
            self.files.discard(gone)
            self.deleted += 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "retire", "begin", "begin", "end", "start_round", "deliver", "deliver", "deliver"]),
        st.integers(0, RANKS - 1),
        st.integers(0, KEYS - 1),
    ),
    max_size=150,
)


@settings(max_examples=150)
@given(STEPS)
def test_nothing_is_deleted_while_it_is_read_and_all_is_deleted_in_the_end(steps: list[tuple[str, int, int]]) -> None:
    job = Job()
    for what, rank, key in steps:
        if what in ("write", "retire", "begin"):
            getattr(job, what)(rank, key)
        elif what == "end":
            job.end(key)
        elif what == "deliver":
            job.deliver(rank)
        else:
            job.start_round()
    while job.reads:
        job.end(0)
    for _ in range(3):
        for _ in range(2):
            for rank in range(RANKS):
                job.deliver(rank)
        job.start_round()
    for rank in range(RANKS):
        job.deliver(rank)
    assert not job.retiring, "no delete waits for ever"


def test_a_read_that_comes_too_late_is_counted_and_not_begun() -> None:
    job = Job()
    job.write(0, 1)
    for _ in range(2):
        job.start_round()
        for rank in range(RANKS):
            job.deliver(rank)
    late = operation(Op.READ, 1)
    late.writer = job.ranks[2].peers.writer_of(1)
    job.retire(0, 1)
    job.start_round()
    job.deliver(2)
    assert not job.ranks[2].find_writer(late)
    assert job.ranks[2].counts.evicted_reads == 1


def test_a_delete_waits_for_the_read_that_was_begun_before_it() -> None:
    job = Job()
    job.write(0, 1)
    job.start_round()
    for rank in range(RANKS):
        job.deliver(rank)
    job.begin(2, 1)
    job.retire(0, 1)
    for _ in range(5):
        job.start_round()
        for rank in range(RANKS):
            job.deliver(rank)
    assert job.deleted == 0
    job.end(0)
    for _ in range(3):
        job.start_round()
        for rank in range(RANKS):
            job.deliver(rank)
    assert job.deleted == 1
