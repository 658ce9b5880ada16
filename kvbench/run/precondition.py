"""Writes before a load, in rounds that all ranks end together, until storage is steady or was written full so often.

What is written goes to the rank's own part of the place under test, on the write path, with the threads, the engine and
the sync of the run, in objects as large as those of its requests. All of it is deleted before the load begins, whose
cache is as empty as without.

What travels: before each round one agreement, after it one sum of three integers and one highest integer of all ranks.
Nothing within a round but the progress counters.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import highest, total
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import RunConfig
from kvbench.engine.arrivals import Timeline
from kvbench.engine.chained import block_shape
from kvbench.engine.final_sync import sync_at_end
from kvbench.engine.overwriting import Overwriting
from kvbench.errors import KvbenchError
from kvbench.records.schema import Phase
from kvbench.records.tables import PRECONDITION_DTYPE, as_rows
from kvbench.run.bench import Bench
from kvbench.run.drive import Drive
from kvbench.run.order import Plan
from kvbench.run.output.spill_files import saying_what_is_left
from kvbench.run.steady_state import WINDOW_ROUNDS, PreconditionOrder, Verdict, verdict
from kvbench.tiers.arena import stored_bytes
from kvbench.units import GIB, format_bytes
from kvbench.workload.request import Schedule

if TYPE_CHECKING:
    from rich.console import Console

_SIZES: Final = 256
"""Objects of the first requests, whose sizes are written in turn."""
_STREAM: Final = 0x57EAD
"""Names the random numbers that say which object makes room."""


@dataclass(frozen=True, slots=True)
class Round:
    """All ranks together."""

    start_ns: int
    """When it began, by this rank's clock."""
    wall_ns: int
    """Until the last rank had ended it, what it still had to sync included."""
    nbytes: int
    writes: int
    verdict: Verdict

    @property
    def gib_per_s(self) -> float:
        return self.nbytes / self.wall_ns * 1e9 / GIB


@dataclass(slots=True)
class Preconditioned:
    """What came of it; the same on all ranks but for the times of rounds."""

    order: PreconditionOrder
    rounds: list[Round] = field(default_factory=list)
    target_bytes: int | None = None
    """Of all ranks, where a multiple of the capacity is written."""
    capacity_bytes: int = 0
    """Of all ranks."""
    stopped: bool = False
    """It was ended early: something failed, or the run was asked to end."""

    @property
    def steady_round(self) -> int:
        """The first round whose window is steady, counted from 1; 0: none is."""
        return next((number for number, done in enumerate(self.rounds, 1) if done.verdict.steady), 0)

    @property
    def nbytes(self) -> int:
        return sum(done.nbytes for done in self.rounds)

    @property
    def over(self) -> bool:
        """No further round."""
        if self.order.limit is not None and len(self.rounds) >= self.order.limit:
            return True
        if self.target_bytes is None:
            return self.steady_round > 0
        return self.nbytes >= self.target_bytes

    def attributes(self) -> dict[str, str | int | float]:
        """Of the run file."""
        return {
            "precondition_steady_round": self.steady_round,
            "precondition_rounds": len(self.rounds),
            "precondition_bytes": self.nbytes,
            "precondition_capacity_bytes": self.capacity_bytes,
            "precondition_s": sum(done.wall_ns for done in self.rounds) / 1e9,
        }

    def table(self) -> npt.NDArray[np.void]:
        """A row for each round (PRECONDITION_DTYPE), the times on rank 0's clock; of rank 0."""
        return as_rows(
            [
                {
                    "round": number,
                    "t_start_ns": done.start_ns,
                    "wall_ns": done.wall_ns,
                    "nbytes": done.nbytes,
                    "operations": done.writes,
                    "excursion": done.verdict.excursion,
                    "slope": done.verdict.slope,
                    "steady": done.verdict.steady,
                }
                for number, done in enumerate(self.rounds, 1)
            ],
            PRECONDITION_DTYPE,
        )


def precondition(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    order: PreconditionOrder,
    schedule: Schedule,
    bench: Bench,
    drive: Drive,
    console: "Console",
    in_flight: str,
) -> Preconditioned:
    """Write in rounds until it is over, and delete what was written. Collective. `in_flight`: what an interrupted rank
    waits for."""
    source = agreement.run("set up", lambda: _source(topology, bench, schedule), computes=True)
    agreement.interrupt.waits_for = in_flight
    own = _own_capacity(topology, bench)
    capacity = total(topology.comm, own)[0]
    most_bytes = None if order.multiple is None else int(own * order.multiple)
    done = Preconditioned(order, capacity_bytes=capacity)
    if most_bytes is not None:
        # What each rank writes is a whole number of objects.
        done.target_bytes = total(topology.comm, most_bytes)[0]
    say = _saying(topology, console)
    say(_intention(done))
    bench.begin_stream()
    while not done.over:
        before = source.written_bytes, source.writes
        source.begin_round(order.round_s, most_bytes)
        start_ns, end_ns, stopped = _round(topology, agreement, plan, bench, drive, source)
        mine = source.written_bytes - before[0], source.writes - before[1], stopped
        nbytes, writes, ended = total(topology.comm, *mine)
        wall_ns = max(1, highest(topology.comm, end_ns - start_ns))
        if ended:
            done.stopped = True
            return done
        figures = [one.nbytes / one.wall_ns for one in done.rounds] + [nbytes / wall_ns]
        done.rounds.append(Round(start_ns, wall_ns, nbytes, writes, verdict(figures)))
        say(_progress(done))
        if not nbytes:
            break
    source.begin_round(None)
    *_, stopped = _round(topology, agreement, plan, bench, drive, source)
    done.stopped = total(topology.comm, stopped)[0] > 0
    if not done.stopped:
        say(outcome_text(done))
    return done


def _round(
    topology: Topology, agreement: Agreement, plan: Plan, bench: Bench, drive: Drive, source: Overwriting
) -> tuple[int, int, bool]:
    """Its start, its end, and whether it was stopped on any rank."""
    with saying_what_is_left(topology, bench.spill, plan.run_id, plan.order.out):
        load = agreement.run("set up", lambda: bench.engine.prepare_source(source))
    start_ns = timed_io.now_ns()
    load.begin(Timeline.untimed(start_ns, Phase.PRECONDITION))
    stopped = drive.until_done(load, start_ns, None)
    if not stopped and bench.config.io.sync in ("none", "end"):
        failure = sync_at_end(
            bench.tiers, bench.engine.stores[0], topology.rank, bench.engine.cancel_flag, Phase.PRECONDITION
        )
        if failure:
            bench.engine.failures.append(failure)
        return start_ns, timed_io.now_ns(), bool(failure)
    return start_ns, source.ended_ns(start_ns), stopped


def _own_capacity(topology: Topology, bench: Bench) -> int:
    """Bytes that this rank fills; 0 for one that writes nothing in the run either."""
    roles = bench.config.role_ranks
    return bench.sizes.capacities[-1] if roles is None or topology.rank in roles.prefill else 0


def _source(topology: Topology, bench: Bench, schedule: Schedule) -> Overwriting:
    config, capacity = bench.config, _own_capacity(topology, bench)
    sizes = [nbytes for nbytes in object_sizes(config, schedule) if nbytes <= capacity]
    if capacity and not sizes:
        raise KvbenchError(
            f"a capacity of {format_bytes(capacity)} holds no object of this workload: there is nothing to write "
            "before the run; set a larger capacity_bytes of the last tier, or leave --precondition out"
        )
    rng = np.random.default_rng((config.seed, topology.rank, _STREAM))
    return Overwriting(len(config.tiers) - 1, capacity, sizes, rng, config.depth)


def object_sizes(config: RunConfig, schedule: Schedule) -> Sequence[int]:
    """Bytes of the objects that a rank's first requests store, in their order."""
    if config.serves_as_engine:
        return [block_shape(config).object_bytes]
    streams = (schedule.stream(user) for user in range(schedule.users if schedule.closed_loop else 1))
    contexts = (request.context for stream in streams for request in itertools.islice(stream, 8))
    tokens = [reference.tokens for context in contexts for reference in context[:_SIZES]]
    chosen = tokens[:_SIZES] or [schedule.largest_object_tokens()]
    return [stored_bytes(number * config.geometry.bytes_per_token) for number in chosen]


# What is said of it


def _saying(topology: Topology, console: "Console") -> Callable[[str], None]:
    def say(text: str) -> None:
        if topology.rank == 0:
            console.print(text, soft_wrap=True, highlight=False)

    return say


def _intention(done: Preconditioned) -> str:
    order = done.order
    until = (
        "until the bandwidth of five is steady"
        if done.target_bytes is None
        else f"until {format_bytes(done.target_bytes)} are written ({order.multiple:g} times the capacity)"
    )
    most = "" if order.limit is None else f", {order.limit} at most"
    return f"preconditioning: writes in rounds of {order.round_s:g} s, {until}{most}"


def _progress(done: Preconditioned) -> str:
    last = done.rounds[-1]
    text = f"round {len(done.rounds)}: {last.gib_per_s:.3g} GiB/s, {format_bytes(done.nbytes)} written"
    if np.isnan(last.verdict.excursion):
        return text
    steady = "steady" if last.verdict.steady else "not steady"
    return f"{text}; excursion {last.verdict.excursion:.1%}, slope {last.verdict.slope:+.1%}: {steady}"


def outcome_text(done: Preconditioned) -> str:
    """In a sentence."""
    written = (
        f"{format_bytes(done.nbytes)} written ({done.nbytes / max(1, done.capacity_bytes):.3g} times the capacity)"
    )
    missing = "not told, as five rounds are needed" if len(done.rounds) < WINDOW_ROUNDS else "not reached"
    state = f"after round {done.steady_round}" if done.steady_round else missing
    return f"preconditioned: {written}, steady state {state}; what was written is deleted, and the run begins"
