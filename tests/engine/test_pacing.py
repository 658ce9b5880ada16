"""When requests start and what they wait for: intended starts, generation, priorities, phases, the end."""

import itertools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rank_harness import HANG_S, Rank, Script, finish, operations_from, ref, request, wait_for

from kvbench import timed_io
from kvbench.cache import Cache
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.engine.arrivals import Timeline
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.operation import Operation
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE, Op, Phase, RequestState
from kvbench.units import SECTOR_BYTES
from kvbench.workload.request import Request

MS = 1_000_000
HOUR = 3_600_000 * MS
MakeRank = Callable[..., Rank]


def test_open_loop_requests_are_intended_at_their_arrival_and_queue_from_it(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    start_ns = rank.run(Script([[request(n, ref(n), arrival_ns=n * MS // 4) for n in range(40)]]))
    assert rank.log["intended_ns"].tolist() == [start_ns + n * MS // 4 for n in range(40)]
    assert (rank.log["start_ns"] >= rank.log["intended_ns"]).all()
    rows = rank.rows[np.argsort(rank.rows["request"])]
    assert (rows["t_start_ns"] - rows["queue_ns"]).tolist() == rank.log["intended_ns"].tolist()


def test_waiting_to_be_let_in_is_part_of_the_queue(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    start_ns = rank.run(Script([[request(n, ref(n)) for n in range(10)]]))
    rows = np.sort(rank.rows, order="t_start_ns")
    assert (rank.log["intended_ns"] == start_ns).all(), "all came at once"
    ends = rows["t_start_ns"] + rows["wall_ns"]
    assert (rows["queue_ns"][1:] >= ends[:-1] - start_ns).all(), "each waited for all before it"


def test_a_request_that_has_nothing_to_do_ends_when_it_was_let_in_and_not_before(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    missing = request(1, ref(1), prefill=False, decode_passes=1)
    later = request(2, ref(2), prefill=False, decode_passes=1, generation_ns=2 * MS)
    rank.run(Script([[request(0, *(ref(10 + n) for n in range(20))), missing, later]]))
    log = rank.log
    assert (log["intended_ns"] == log["intended_ns"][0]).all()
    assert (log["start_ns"][1:] >= log["end_ns"][0]).all(), "they waited for the first"
    assert log["end_ns"][1] >= log["start_ns"][1]
    assert log["end_ns"][2] >= log["start_ns"][2] + 2 * MS


def test_as_fast_as_possible_a_request_is_intended_when_it_is_let_in(make_rank: MakeRank) -> None:
    rank = make_rank(threads=1)
    rank.run(Script([[request(n, ref(n)) for n in range(10)]]))
    assert (rank.log["intended_ns"] == rank.log["start_ns"]).all()
    assert (rank.log["start_ns"][1:] >= rank.log["end_ns"][:-1]).all(), "one thread, one request at a time"


def test_a_later_stage_queues_from_the_end_of_the_one_before(make_rank: MakeRank) -> None:
    rank = make_rank(threads=4)
    rank.run(Script([[request(0, ref(1), ref(2), ref(3), decode_passes=3)]]))
    rows = rank.rows
    wanted, ends = rows["t_start_ns"] - rows["queue_ns"], rows["t_start_ns"] + rows["wall_ns"]
    stages = sorted(set(wanted.tolist()))
    assert [int((wanted == at).sum()) for at in stages] == [3, 3, 3, 3]
    assert stages[0] == rank.log["intended_ns"][0]
    for before, after in itertools.pairwise(stages):
        assert ends[wanted == before].max() <= after


def test_a_user_thinks_between_the_answer_and_the_next_request(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="closed", threads=2)
    streams = [[request(2 * n + u, ref(n), user=u, arrival_ns=MS) for n in range(6)] for u in range(2)]
    start_ns = rank.run(Script(streams, closed_loop=True))
    for user in range(2):
        own = rank.log[rank.log["user"] == user]
        assert own["intended_ns"].tolist() == [start_ns + MS, *(own["end_ns"][:-1] + MS).tolist()]


def test_generation_is_spent_in_equal_parts_after_each_decode_pass(make_rank: MakeRank) -> None:
    rank = make_rank(threads=2)
    rank.run(Script([[request(0, ref(1), decode_passes=4, generation_ns=8 * MS)]]))
    reads = np.sort(rank.rows[rank.rows["op"] == Op.READ], order="t_start_ns")
    assert len(reads) == 4
    ends = reads["t_start_ns"] + reads["wall_ns"]
    wanted = reads["t_start_ns"] - reads["queue_ns"]
    assert (wanted[1:] - ends[:-1] >= 2 * MS).all(), "each pass is wanted when the tokens before it are generated"
    assert (reads["queue_ns"] >= 0).all()
    assert rank.log["end_ns"][0] - ends[-1] >= 2 * MS


def test_priority_decides_who_is_let_in_first_where_the_limit_binds(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="closed", threads=1)
    classes = [2, 1, 0, 2, 0, 1]
    rank.run(Script([[request(u, ref(u), user=u, qos=qos)] for u, qos in enumerate(classes)], closed_loop=True))
    in_order = np.sort(rank.log, order="start_ns")
    assert in_order["qos"].tolist() == [0, 0, 1, 1, 2, 2]
    assert in_order["user"].tolist() == [2, 4, 1, 5, 0, 3], "first come, first served within a class"


@pytest.mark.parametrize("pacing", ["closed", "open", "asap"])
def test_the_first_request_of_every_stream_is_there_before_the_load_begins(make_rank: MakeRank, pacing: str) -> None:
    """Drawing it takes long where there are many users, and the clock of a load that has begun runs."""
    rank = make_rank(pacing=pacing, threads=2)
    drawn: list[int] = []

    class Drawn(Script):
        def stream(self, user: int) -> Iterator[Request]:
            for asked in super().stream(user):
                drawn.append(asked.number)
                yield asked

    users = 50 if pacing == "closed" else 1
    streams = [
        [request(users * n + u, ref(users * n + u), user=u, arrival_ns=MS) for n in range(2)] for u in range(users)
    ]
    load = rank.engine.prepare(Drawn(streams, closed_loop=pacing == "closed"))
    assert drawn == list(range(users))
    assert not load.finished
    start_ns = timed_io.now_ns()
    load.begin(Timeline(start_ns, start_ns, None, Phase.WARMUP))
    finish(load)
    assert len(rank.log) == 2 * users
    assert rank.log["intended_ns"].min() >= start_ns
    if pacing != "asap":
        assert (rank.log["intended_ns"][:users] == start_ns + MS).all(), "counted from the beginning of the load"


def test_a_load_that_never_begins_does_nothing_and_lets_its_threads_go(make_rank: MakeRank) -> None:
    rank = make_rank(threads=3)
    load = rank.engine.prepare(Script([[request(0, ref(0))]]))
    rank.engine.close()
    finish(load)
    assert len(rank.rows) == 0


def test_the_phase_follows_from_the_intended_start(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=2)
    start_ns = timed_io.now_ns()
    script = Script([[request(n, ref(n), arrival_ns=n * MS) for n in range(8)]])
    load, _ = rank.start(script, Timeline(start_ns, start_ns + 3 * MS, None, Phase.WARMUP))
    finish(load)
    assert rank.log["phase"].tolist() == [Phase.WARMUP] * 3 + [Phase.MEASURE] * 5
    rows = rank.rows[np.argsort(rank.rows["request"])]
    assert rows["phase"].tolist() == rank.log["phase"].tolist()


def test_at_the_end_requests_that_are_under_way_are_cut_short(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="closed", threads=3)
    start_ns = timed_io.now_ns()
    end_ns = start_ns + 50 * MS
    streams = [
        [request(0, ref(0), decode_passes=2, generation_ns=HOUR)],
        [request(1, ref(1), user=1)],
        [request(2, ref(2), user=2, arrival_ns=HOUR)],
    ]
    load, _ = rank.start(Script(streams, closed_loop=True), Timeline(start_ns, start_ns, end_ns, Phase.WARMUP))
    finish(load)
    assert timed_io.now_ns() >= end_ns
    generating = rank.log["request"] == 0
    assert (rank.log["state"][generating] == RequestState.CUT_SHORT).all()
    assert 2 not in rank.log["request"], "the third never started"


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("pacing", ["asap", "open"])
def test_a_load_whose_last_requests_need_no_operation_ends(make_rank: MakeRank, threads: int, pacing: str) -> None:
    rank = make_rank(pacing=pacing, threads=threads)
    missing = [request(n, ref(n), prefill=False, decode_passes=1) for n in range(200)]
    rank.run(Script([missing]))
    assert rank.log["miss_objects"].tolist() == [2] * 200
    assert len(rank.rows) == 0


@pytest.mark.parametrize("threads", [1, 16])
def test_a_load_without_requests_ends(make_rank: MakeRank, threads: int) -> None:
    make_rank(threads=threads).run(Script([[]]))
    make_rank(pacing="closed", threads=threads).run(Script([[], []], closed_loop=True))


def test_no_more_operations_are_in_flight_than_there_are_threads(make_rank: MakeRank) -> None:
    rank = make_rank((200,), threads=5)
    rank.run(Script([[request(n, ref(n), ref(n + 1), decode_passes=1) for n in range(60)]]))
    assert rank.rows["inflight"].min() == 1
    assert rank.rows["inflight"].max() <= 5


def test_an_idle_worker_starts_what_falls_due_while_the_others_are_busy() -> None:
    """The worker that ends a request sets its user's timer, and goes on to something that takes long."""
    books = Books(Cache([2 * SECTOR_BYTES], WaterfallLru()), [2 * SECTOR_BYTES], [True])
    for key in (1, 2):
        books.cache.insert(key, SECTOR_BYTES)
        books.rooms[0].free_bytes -= SECTOR_BYTES
    streams = [
        [request(0, ref(1), prefill=False), request(2, ref(2), prefill=False, arrival_ns=5 * MS)],
        [request(1, ref(3), user=1, history=[ref(2)])],
    ]
    schedule = Script(streams, closed_loop=True)
    dispatcher = Dispatcher(books, schedule, "closed", Limits(2, 0), SECTOR_BYTES, 0, RowStore(REQUEST_DTYPE))
    now_ns = timed_io.now_ns()
    dispatcher.begin(Timeline(now_ns, now_ns, None, Phase.WARMUP))
    first, second = operations_from(dispatcher), operations_from(dispatcher)
    assert [(each.step.op, each.step.key) for each in (*first, *second)] == [(Op.READ, 1), (Op.READ, 2)]
    taken: list[Operation] = []
    idle = threading.Thread(target=lambda: taken.extend(operations_from(dispatcher, second)), daemon=True)
    idle.start()
    wait_for(lambda: len(dispatcher._condition._waiters) == 1, "the worker does not wait")  # type: ignore[attr-defined]
    (long,) = operations_from(dispatcher, first)
    assert (long.step.op, long.step.key) == (Op.DELETE, 1), "the room for object 3, freed as request 0 ended"
    idle.join(HANG_S)
    assert [operation.step.key for operation in taken] == [2], "request 2 started meanwhile"
