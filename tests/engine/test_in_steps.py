"""Requests that are decided step by step: what is found when, one operation at a time, and who goes first."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from rank_harness import Rank, Script, finish, operations_from, ref, request

from kvbench import timed_io
from kvbench.cache import Cache
from kvbench.cache.waterfall_lru import WaterfallLru
from kvbench.engine.arrivals import Timeline
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.look_ups import LookUps
from kvbench.engine.operation import Operation
from kvbench.engine.planner import Books
from kvbench.engine.ready import Limits
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE, Op, Phase
from kvbench.units import SECTOR_BYTES
from kvbench.workload.request import ObjectRef, Request

MS = 1_000_000
MakeRank = Callable[..., Rank]


def stepwise(number: int, *context: ObjectRef, prompt_tokens: int = 0, **fields: object) -> Request:
    asked = request(number, *context, **fields)  # type: ignore[arg-type]
    return replace(asked, in_steps=True, prompt_tokens=prompt_tokens)


def dispatcher_of(
    requests: list[Request],
    places: int,
    capacity: int = 100,
    by_priority: bool = False,
    there: tuple[int, ...] = (),
    writes: int = 0,
) -> Dispatcher:
    """`places` of requests, `writes` of those of new entries; `there`: keys of objects of one sector that the cache
    holds."""
    books = Books(Cache([capacity * SECTOR_BYTES], WaterfallLru()), [capacity * SECTOR_BYTES], [True])
    for key in there:
        books.cache.insert(key, SECTOR_BYTES)
        books.rooms[0].free_bytes -= SECTOR_BYTES
    dispatcher = Dispatcher(
        books,
        Script([requests]),
        "open",
        Limits(places, writes),
        SECTOR_BYTES,
        0,
        RowStore(REQUEST_DTYPE),
        by_priority=by_priority,
    )
    now_ns = timed_io.now_ns()
    dispatcher.begin(Timeline(now_ns, now_ns, None, Phase.WARMUP))
    return dispatcher


def drain(dispatcher: Dispatcher) -> list[tuple[Op, int]]:
    """What one worker carries out, in order."""
    done, batch = [], operations_from(dispatcher)
    while batch:
        done += steps_of(batch)
        batch = operations_from(dispatcher, batch)
    return done


def steps_of(batch: Sequence[Operation]) -> list[tuple[Op, int]]:
    return [(operation.step.op, operation.step.key) for operation in batch]


def test_a_request_reads_its_history_writes_and_reads_one_after_the_other() -> None:
    requests = [
        stepwise(0, ref(1)),
        stepwise(1, ref(2), history=[ref(1)]),
        stepwise(2, ref(3), history=[ref(1), ref(9), ref(2)], decode_passes=3),
    ]
    assert drain(dispatcher_of(requests, 1)) == [
        (Op.WRITE, 1),
        (Op.READ, 1),
        (Op.WRITE, 2),
        (Op.READ, 1),
        (Op.READ, 2),
        (Op.WRITE, 3),
        (Op.READ, 3),
        (Op.READ, 3),
        (Op.READ, 3),
    ]


def test_what_is_still_being_written_is_not_there_and_what_was_written_meanwhile_is() -> None:
    dispatcher = dispatcher_of([stepwise(0, ref(1)), stepwise(1, ref(2), history=[ref(1)])], 2)
    assert steps_of(operations_from(dispatcher)) == [(Op.WRITE, 1)]
    other = operations_from(dispatcher)
    assert steps_of(other) == [(Op.WRITE, 2)], "its history is not there yet"
    assert other[0].request.miss_objects == 1

    requests = [stepwise(0, ref(1)), stepwise(1, ref(2), history=[ref(7), ref(1)])]
    dispatcher = dispatcher_of(requests, 2, there=(7,))
    write, read = operations_from(dispatcher), operations_from(dispatcher)
    assert (steps_of(write), steps_of(read)) == ([(Op.WRITE, 1)], [(Op.READ, 7)])
    dispatcher._finish(write)  # as a worker hands it in, without waiting for another operation
    after = operations_from(dispatcher, read)
    assert steps_of(after) == [(Op.READ, 1)], "written while the request was at its first turn"


def test_a_system_prompt_is_looked_up_and_never_found(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    rank.run(Script([[stepwise(0, ref(1), prompt_tokens=5), stepwise(1, ref(2), prompt_tokens=5)]]))
    assert rank.log["miss_objects"].tolist() == [1, 1]
    assert rank.log["miss_tokens"].tolist() == [5, 5]
    assert rank.rows["op"].tolist() == [Op.WRITE, Op.WRITE]


def test_the_context_is_not_looked_up_before_it_is_written(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    rank.run(Script([[stepwise(0, ref(1), decode_passes=2)]]))
    assert (rank.log["hit_objects"].tolist(), rank.log["miss_objects"].tolist()) == ([2], [0])


def test_an_entry_that_is_gone_when_it_is_to_be_decoded_is_written_again_and_not_read() -> None:
    """Room for one entry: the other request's takes its place between the write and the read."""
    dispatcher = dispatcher_of([stepwise(0, ref(1), decode_passes=3), stepwise(1, ref(2))], 2, capacity=1)
    assert drain(dispatcher) == [(Op.WRITE, 1), (Op.DELETE, 1), (Op.WRITE, 2), (Op.DELETE, 2), (Op.WRITE, 1)]


def test_room_is_made_only_for_writes_that_have_a_place() -> None:
    requests = [stepwise(number, ref(number)) for number in range(3)]
    dispatcher = dispatcher_of(requests, 3, capacity=2, there=(8, 9), writes=1)
    first = operations_from(dispatcher)
    assert steps_of(first) == [(Op.DELETE, 8)]
    write = operations_from(dispatcher, first)
    assert steps_of(write) == [(Op.WRITE, 0)]
    assert dispatcher._planner._books.cache.lookup(9) == 0, "the other two wait for a place, and take no room"
    rest, batch = [], operations_from(dispatcher, write)
    while batch:
        rest += steps_of(batch)
        batch = operations_from(dispatcher, batch)
    assert rest == [(Op.DELETE, 9), (Op.WRITE, 1), (Op.DELETE, 0), (Op.WRITE, 2)]


def test_a_write_that_is_too_large_for_every_tier_gives_its_place_back() -> None:
    requests = [stepwise(0, ref(1, 5)), stepwise(1, ref(2, 5), decode_passes=1), stepwise(2, ref(3))]
    assert drain(dispatcher_of(requests, 3, capacity=2, writes=1)) == [(Op.WRITE, 3)]


def test_no_more_writes_are_in_flight_than_there_are_places_for(make_rank: MakeRank) -> None:
    rank = make_rank((40,), pacing="open", threads=8, allocs=2)
    rank.run(Script([[stepwise(n, ref(n, 2), history=[ref(n - 1)], decode_passes=2) for n in range(60)]]))
    writes = rank.rows[rank.rows["op"] == Op.WRITE]
    starts, ends = writes["t_start_ns"], writes["t_start_ns"] + writes["wall_ns"]
    assert max(int(((starts <= start) & (ends > start)).sum()) for start in starts) <= 2
    assert len(writes) >= 60


def test_reads_of_one_entry_do_not_overlap(make_rank: MakeRank) -> None:
    """The second would find in the page cache what the first has read."""
    rank = make_rank(pacing="open", threads=8)
    rank.run(Script([[stepwise(0, ref(0, 40))]]))
    rank.run(Script([[stepwise(n, ref(n), history=[ref(0)] * 5) for n in range(1, 9)]]))
    reads = np.sort(rank.rows[rank.rows["op"] == Op.READ], order="t_start_ns")
    assert len(reads) == 40
    assert (reads["t_start_ns"][1:] >= (reads["t_start_ns"] + reads["wall_ns"])[:-1]).all()


def test_look_ups_are_counted_by_kind_in_the_measured_phase_alone(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    start_ns = timed_io.now_ns()
    requests = [
        stepwise(0, ref(1), decode_passes=2),
        stepwise(1, ref(2), history=[ref(1), ref(9)], decode_passes=2, arrival_ns=2 * MS, prompt_tokens=6),
        stepwise(2, ref(3), history=[ref(1)], arrival_ns=3 * MS),
    ]
    load, _ = rank.start(Script([requests]), Timeline(start_ns, start_ns + MS, None, Phase.WARMUP))
    finish(load)
    assert rank.engine.books.look_ups == LookUps(
        history_hits=2,
        history_misses=1,
        context_hits=2,
        context_misses=0,
        prompted_hits=2,
        prompt_misses=1,
        prompt_tokens=6,
        plain_requests=1,
        history_hit_tokens=2,
        history_miss_tokens=1,
        context_hit_tokens=2,
    )


def test_look_ups_that_are_decided_at_once_are_told_apart_too(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    rank.run(
        Script(
            [
                [
                    request(0, ref(1), ref(2, 3), decode_passes=2),
                    request(1, ref(1), ref(4), history=[ref(2, 3), ref(9)], decode_passes=1),
                ]
            ]
        )
    )
    assert rank.engine.books.look_ups == LookUps(
        history_hits=1,
        history_misses=1,
        first_hits=1,
        first_misses=3,
        context_hits=6,
        history_hit_tokens=3,
        history_miss_tokens=1,
        first_hit_tokens=1,
        first_miss_tokens=5,
        context_hit_tokens=10,
    )


def test_of_the_requests_that_have_arrived_the_higher_class_goes_first() -> None:
    classes = [2, 1, 0, 2, 0, 1]
    requests = [stepwise(number, ref(number), qos=qos) for number, qos in enumerate(classes)]
    assert [key for _, key in drain(dispatcher_of(requests, 1, by_priority=True))] == [2, 4, 1, 5, 0, 3]
    assert [key for _, key in drain(dispatcher_of(requests, 1))] == [0, 1, 2, 3, 4, 5]


def test_a_higher_class_does_not_go_before_it_has_arrived(make_rank: MakeRank) -> None:
    late = stepwise(1, ref(2), qos=0, arrival_ns=20 * MS)
    rank = make_rank(pacing="open", threads=1)
    rank.run(Script([[stepwise(0, ref(1), qos=2), late]]))
    assert np.argsort(rank.log["start_ns"]).tolist() == [0, 1]


def test_a_request_keeps_its_place_while_it_generates(make_rank: MakeRank) -> None:
    rank = make_rank(pacing="open", threads=1)
    rank.run(Script([[stepwise(0, ref(1), generation_ns=3 * MS), stepwise(1, ref(2))]]))
    first, second = rank.log
    assert first["end_ns"] - first["start_ns"] >= 3 * MS
    assert second["start_ns"] >= first["end_ns"]
