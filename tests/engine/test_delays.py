"""Delays that make a part seem faster: what is predicted is what is true where all times are known, nothing of it is
within a timed span, and the work stays the same."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_harness import Rank, Script, config_of, finish, ref, request

from kvbench.config.virtual_speed import MOST, PARTS, Part, VirtualSpeed
from kvbench.engine.delays import Delays, Hands
from kvbench.records.batches import BatchSplit
from kvbench.records.schema import RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload

_ROUNDED_NS = 50_000
"""Less than this is owed, and not slept."""
_SPUN_NS = 2_000


class Clocks(Hands):
    """A thread whose time is told, and passes by nothing else."""

    def __init__(self) -> None:
        self.now_ns = self.busy_ns = 0

    def cpu_ns(self) -> int:
        return self.busy_ns

    def run(self, cpu_ns: int, blocked_ns: int = 0) -> None:
        self.busy_ns += cpu_ns
        self.now_ns += cpu_ns + blocked_ns

    def work(self, nanoseconds: int) -> int:
        self.run(nanoseconds)
        return nanoseconds

    work_alone = work

    def sleep(self, nanoseconds: int) -> int:
        self.run(0, nanoseconds)
        return nanoseconds


@dataclass(frozen=True)
class Batch:
    """What a batch takes: blocked, on the processor, there for copies; and what its worker does besides."""

    device_ns: int
    host_ns: int
    copy_ns: int
    between_ns: int

    @property
    def split(self) -> BatchSplit:
        wall_ns = self.device_ns + self.host_ns
        return BatchSplit(0, wall_ns, self.host_ns, 0, self.device_ns, self.copy_ns, 0)

    def truth_ns(self, part: Part, factor: float) -> float:
        """What it takes where `part` really is so many times as fast. More cores change nothing for one thread."""
        times = [self.device_ns, self.host_ns - self.copy_ns, self.copy_ns, self.between_ns]
        faster = {"device": (0,), "host": (1, 2, 3), "copies": (2,)}.get(part, ())
        return sum(time / factor if number in faster else time for number, time in enumerate(times))


def batches(draw: st.DrawFn) -> Batch:
    copy_ns = draw(st.integers(0, 10**7))
    return Batch(
        draw(st.integers(0, 10**8)), copy_ns + draw(st.integers(0, 10**7)), copy_ns, draw(st.integers(0, 10**6))
    )


BATCHES = st.composite(batches)()
SPEEDS = st.one_of(
    st.builds(VirtualSpeed, st.sampled_from(PARTS), st.floats(1.01, MOST)),
    st.builds(
        VirtualSpeed,
        st.sampled_from([part for part in PARTS if part not in ("cores", "nothing")]),
        st.floats(1 / MOST, 0.99),
    ),
)


def delayed(speed: VirtualSpeed, work: Sequence[Batch]) -> Iterator[float]:
    """How long each of `work` seems to take."""
    clocks = Clocks()
    delays = Delays(speed, np.zeros(1, np.int32), clocks)
    delays.begin()
    for batch in work:
        start_ns = clocks.now_ns
        clocks.run(batch.host_ns, batch.device_ns)
        delays.note(batch.split)
        clocks.run(batch.between_ns)
        assert delays.pay()
        yield (clocks.now_ns - start_ns) / speed.stretch


@given(SPEEDS, st.lists(BATCHES, min_size=1, max_size=20))
def test_work_seems_to_take_what_it_would_where_a_part_is_faster_or_slower(
    speed: VirtualSpeed, work: list[Batch]
) -> None:
    seems, truth = sum(delayed(speed, work)), sum(batch.truth_ns(speed.part, speed.factor) for batch in work)
    # What is too short to be waited for stays owed.
    assert abs(seems - truth) <= _ROUNDED_NS + 2 * _SPUN_NS + 3 * len(work)


@given(SPEEDS.filter(lambda speed: speed.factor > 1), st.lists(st.tuples(st.integers(0, 10**8), BATCHES), max_size=30))
def test_waits_behind_others_seem_what_they_would_be(speed: VirtualSpeed, arriving: list[tuple[int, Batch]]) -> None:
    # One worker, first come, first served; requests come at a slower pace by as much as all else is.
    seems = waits(
        [round(gap_ns * speed.stretch) for gap_ns, _ in arriving],
        [time * speed.stretch for time in delayed(speed, [batch for _, batch in arriving])],
    )
    truth = waits(
        [gap_ns for gap_ns, _ in arriving],
        [batch.truth_ns(speed.part, speed.factor) for _, batch in arriving],
    )
    close = (_ROUNDED_NS + 2 * _SPUN_NS + 10) * (len(arriving) + 1)
    assert all(abs(one / speed.stretch - other) <= close for one, other in zip(seems, truth, strict=True))


def waits(gaps_ns: Sequence[float], services_ns: Sequence[float]) -> list[float]:
    """How long each of those that come after `gaps_ns` is there, in a queue with one server (Lindley)."""
    found, left_ns = [], 0.0
    for gap_ns, service_ns in zip(gaps_ns, services_ns, strict=True):
        left_ns = max(0.0, left_ns - gap_ns) + service_ns
        found.append(left_ns)
    return found


@given(st.floats(1.5, MOST), BATCHES)
def test_with_more_cores_work_takes_as_long_and_leaves_its_processor_for_the_rest(factor: float, batch: Batch) -> None:
    clocks = Clocks()
    delays = Delays(VirtualSpeed("cores", factor), np.zeros(1, np.int32), clocks)
    delays.begin()
    clocks.run(batch.host_ns + batch.between_ns, batch.device_ns)
    delays.note(batch.split)
    assert delays.pay()
    assert clocks.busy_ns == batch.host_ns + batch.between_ns, "nothing kept a processor busy"
    busy_share = clocks.busy_ns / max(1, clocks.now_ns)
    truth = (batch.host_ns + batch.between_ns) / max(1.0, batch.truth_ns("cores", factor))
    assert busy_share <= truth / factor + 2 * _ROUNDED_NS / max(1, clocks.now_ns)


def test_what_a_sleep_took_too_long_is_taken_off_the_next() -> None:
    class Sleepy(Clocks):
        def sleep(self, nanoseconds: int) -> int:
            return super().sleep(2 * nanoseconds)

    clocks = Sleepy()
    delays = Delays(VirtualSpeed("host", 2), np.zeros(1, np.int32), clocks)
    delays.begin()
    for _ in range(1000):
        delays.note(Batch(1_000_000, 0, 0, 0).split)
        delays.pay()
    assert 10**9 <= delays.sums.asleep_ns <= 10**9 + 2_000_000


def test_a_load_that_is_ended_ends_a_delay() -> None:
    stop = np.zeros(1, np.int32)
    delays = Delays(VirtualSpeed("host", 2), stop, Clocks())
    delays.begin()
    delays.note(Batch(10**12, 0, 0, 0).split)
    stop[0] = 1
    assert not delays.pay()


def test_what_was_done_before_the_load_is_not_delayed() -> None:
    clocks = Clocks()
    delays = Delays(VirtualSpeed("nothing", 2), np.zeros(1, np.int32), clocks)
    clocks.run(10**9, 10**9)
    delays.note(Batch(10**9, 10**9, 0, 0).split)
    delays.begin()
    assert delays.pay()
    assert (delays.sums.asleep_ns, delays.sums.busy_ns) == (0, 0)


# On a rank


@pytest.fixture
def rank_with(folder: Path, arena: Arena, payload: Payload) -> Iterator[Callable[..., Rank]]:
    made: list[Rank] = []

    def make(speed: VirtualSpeed | None, **changes: Any) -> Rank:
        for path in folder.iterdir():
            path.unlink()
        made.append(
            Rank(config_of(**changes), folder, [40] * len(changes.get("tiers", ("file",))), arena, payload, speed)
        )
        return made[-1]

    yield make
    for rank in made:
        rank.close()


SCRIPT = Script([[request(number, ref(number % 9, 3), ref(100 + number), decode_passes=1) for number in range(40)]])


def taken(rank: Rank) -> Any:
    return rank.engine.delays()


@pytest.mark.parametrize("tiers", [("file",), ("memory", "file"), ("null",)])
@pytest.mark.parametrize("part", PARTS)
def test_the_decisions_are_the_same_and_every_batch_is_paid_for(
    rank_with: Callable[..., Rank], part: Part, tiers: tuple[str, ...]
) -> None:
    plain = rank_with(None, tiers=tiers, threads=1)
    plain.run(SCRIPT)
    assert len(taken(plain)) == 0
    rank = rank_with(VirtualSpeed(part, 2), tiers=tiers, threads=1)
    rank.run(SCRIPT)
    assert rank.cache.decisions == plain.cache.decisions
    names = ["op", "tier", "tokens", "nbytes", "request", "phase", "errno"]
    assert rank.rows[names].tolist() == plain.rows[names].tolist()
    (sums,) = taken(rank)
    rows = rank.rows
    for column in ("device_ns", "host_ns", "copy_ns"):
        assert sums[column] == rows[column].sum(), "of every row, as it stands there"
    speed = VirtualSpeed(part, 2)
    processor_ns = sums["host_ns"] + sums["between_ns"]
    busy_ns = speed.host * (processor_ns - sums["copy_ns"]) + speed.copies * sums["copy_ns"]
    asleep_ns = speed.device * sums["device_ns"] + speed.idle * processor_ns
    assert sums["busy_ns"] >= busy_ns - 2 * _SPUN_NS - 10
    assert sums["asleep_ns"] >= asleep_ns - _ROUNDED_NS - 10


def test_a_delay_lies_between_the_batches_of_a_thread_and_before_its_request_goes_on(
    rank_with: Callable[..., Rank],
) -> None:
    rank = rank_with(VirtualSpeed("device", 0.1), threads=1)
    script = Script([[request(0, *(ref(key) for key in range(8))), request(1, *(ref(key) for key in range(8)))]])
    rank.run(script)
    rows = np.sort(rank.rows, order="t_start_ns")
    device_ns = int(rows["device_ns"].sum())
    (sums,) = taken(rank)
    # Nine times the device time was slept, and no row has any of it: it is in the time of the requests alone.
    assert sums["asleep_ns"] >= 9 * device_ns - _ROUNDED_NS
    assert (rows["wall_ns"] == rows["device_ns"] + rows["host_ns"] + rows["runq_ns"]).all()
    gaps_ns = np.diff(rows["t_start_ns"]) - rows["wall_ns"][:-1]
    assert (gaps_ns >= 0).all()
    log = rank.log
    assert int(log["end_ns"].max() - log["start_ns"].min()) >= int(sums["asleep_ns"]) + int(rows["wall_ns"].sum())


@pytest.mark.parametrize("tiers", [("file",), ("null",)])
def test_a_delay_that_is_canceled_cuts_its_request_short(
    rank_with: Callable[..., Rank], monkeypatch: pytest.MonkeyPatch, tiers: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Delays, "pay", lambda delays: False)
    rank = rank_with(VirtualSpeed("device", 2), tiers=tiers, threads=1)
    load, _ = rank.start(SCRIPT)
    finish(load)
    assert not rank.engine.failures
    assert len(rank.rows) >= 1
    assert set(rank.log["state"]) == {RequestState.CUT_SHORT}


def test_what_fills_the_tiers_beforehand_is_not_delayed(rank_with: Callable[..., Rank]) -> None:
    rank = rank_with(VirtualSpeed("nothing", 2), threads=1)
    load, _ = rank.start(SCRIPT, pacing="asap")
    finish(load)
    assert len(rank.rows)
    (sums,) = taken(rank)
    assert (sums["asleep_ns"], sums["busy_ns"]) == (0, 0)
