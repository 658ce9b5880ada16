"""The phases of one run, in order: plan, check, calibrate, precondition, measure, gather, clean up.

Every rank walks through the same phases. What a rank does alone in a phase ends in an agreement: if it failed anywhere,
rank 0 raises one KvbenchError and the others FailedElsewhere, and no rank is left waiting.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from kvbench import timed_io
from kvbench.cluster.agree import Agreement, FailedElsewhere, together
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import Communicator, detect_launcher, quiet_barrier
from kvbench.cluster.gather import choose_gathering
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.cluster.watch.watch import FAREWELL_S, Watch
from kvbench.engine.arrivals import Timeline
from kvbench.errors import KvbenchError
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.schema import Phase
from kvbench.records.spill.header import calibration_as_list, reading_as_list
from kvbench.records.tables import SAMPLE_DTYPE
from kvbench.run.bench import Bench
from kvbench.run.drive import Drive
from kvbench.run.live import View
from kvbench.run.order import Order, Plan, make_plan
from kvbench.run.outcome import Outcome, gather_outcome
from kvbench.run.output.run_file import open_output
from kvbench.run.output.spill_files import announce, discard, how_to_go_on, saying_what_is_left
from kvbench.run.shared_space import exchange_offsets, join, report
from kvbench.units import printable
from kvbench.workload.preconditioning import PreconditionSchedule
from kvbench.workload.request import Schedule

START_DELAY_S: Final = 0.1
"""Between the agreement to start and the common start, so that every rank has heard of it."""


def run(comm: Communicator, order: Order, console: Console, heading: Callable[[float], str] | None = None) -> Path:
    """Carry out one run on all ranks of `comm`; returns the run file's path (written by rank 0).

    `heading` gives what progress says before its figures, from the seconds that the run still takes (rank 0's counts).
    Raises KvbenchError on rank 0 and FailedElsewhere on the others, when the run could not be done, or was done and
    ended early; what was measured until then is in the file all the same.
    """
    agreement = Agreement(comm)
    launched = detect_launcher() is not None
    with Interrupt(launched) as interrupt, together(comm), Watch(comm, order.patience_s) as watch:
        topology = discover(comm)
        watch.connect(topology, console.print)
        plan, work = make_plan(comm, agreement, order)
        order = plan.order
        writer = agreement.run("check", lambda: open_output(comm, order.out, order.overwrite))
        try:
            wishes = order.gather, order.gather_memory_bytes
            gathering = agreement.run("check", lambda: choose_gathering(topology, *wishes))
            _announce(console, topology, plan)
            sharing = join(topology, plan.config, work.part)
            with Bench.build(topology, agreement, plan, work.schedule, sharing) as bench:
                watch.before_end.append(lambda: bench.stream.hand_on(FAREWELL_S))
                watch.advice = how_to_go_on(bench.spill, plan.run_id, order.out, order.directory)
                announce(console, topology, order.spill, bench.around.spill, bench.sizes.spill_bytes)
                outcome = _load(topology, agreement, plan, work.schedule, bench, interrupt, watch, console, heading)
                with saying_what_is_left(topology, bench.spill, plan.run_id, order.out):
                    status = gather_outcome(topology, agreement, plan, bench, outcome, writer, gathering)
                discard(agreement, bench.spill)
                watch.advice = how_to_go_on(None, plan.run_id, order.out, order.directory)
                if comm.rank == 0 and status != "complete":
                    console.print(f"{order.out} holds what was measured, marked {status}", soft_wrap=True)
                agreement.run("measure", lambda: _raise_failure(outcome))
        finally:
            if writer is not None:
                writer.abort()
    if outcome.interrupted:
        if comm.rank != 0:
            raise FailedElsewhere
        raise KvbenchError("interrupted")
    return order.out


# Plan


def _announce(console: Console, topology: Topology, plan: Plan) -> None:
    if topology.rank == 0:
        ranks = f"{_count(topology.size, 'rank')} on {_count(topology.nodes, 'node')}"
        console.print(
            f"kvbench run {plan.run_id}: {ranks}, {printable(plan.config.name)}, "
            f"{plan.order.directory or 'no directory'}, fingerprint {plan.fingerprint}",
            soft_wrap=True,
            highlight=False,
        )


# Load


def _load(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    schedule: Schedule,
    bench: Bench,
    interrupt: Interrupt,
    watch: Watch,
    console: Console,
    heading: Callable[[float], str] | None,
) -> Outcome:
    """Calibrate, precondition, warm up and measure; returns what came of it on this rank, also when it ended early."""
    config = plan.config
    before = read_clock(topology, timed_io.now_ns)
    sharing = bench.engine.sharing
    if sharing is not None:
        exchange_offsets(topology, sharing, before)
    calibration = agreement.run("calibrate", lambda: bench.calibrate(topology))
    bench.note(clock_before=reading_as_list(before), calibration=calibration_as_list(calibration))
    view = View(console, bench.tier_names, topology.size, heading) if topology.rank == 0 else None
    drive = Drive(topology, bench, interrupt, watch, view)

    stopped = False
    bench.stream.start()
    anything = next(schedule.preconditioning(), None) is not None
    if total(topology.comm, anything)[0]:
        filling = PreconditionSchedule(schedule)
        load = agreement.run("set up", lambda: bench.engine.prepare(filling, "asap"))
        now_ns = timed_io.now_ns()
        load.begin(Timeline.untimed(now_ns, Phase.PRECONDITION))
        stopped = drive.until_done(load, now_ns, None)

    # What takes time before the first operation is over on every rank before a common start is agreed on.
    measured = None if stopped else agreement.run("set up", lambda: bench.engine.prepare(schedule))
    looker, found = bench.looker(topology), None
    start_ns = _common_start(topology, before)
    measure_ns = start_ns + int(config.warmup_s * 1e9)
    bench.note(measure_start_ns=measure_ns)
    end_ns = None if config.duration_s is None else measure_ns + int(config.duration_s * 1e9)
    samples = np.empty(0, SAMPLE_DTYPE)
    if measured is not None:
        measured.begin(Timeline(start_ns, measure_ns, end_ns, Phase.WARMUP))
        if looker is not None:
            looker.start()
        sampler = bench.sampler(topology) if topology.local_rank == 0 else None
        if sampler:
            sampler.start()
        stopped = drive.until_done(measured, start_ns, end_ns, looker)
        if sampler:
            samples = sampler.stop()
        if looker is not None:
            found = looker.stop()
    # Whoever was interrupted may have little time left: the clock is not read again.
    after = before if stopped else read_clock(topology, timed_io.now_ns)
    ended = "failed" if bench.engine.failures else "interrupted" if drive.interrupted else "complete"
    bench.note(clock_after=reading_as_list(after), ended=ended, failures=bench.engine.failures[:16])
    bench.stream.stop()
    clock = CommonClock(before, after)
    samples["t_ns"] = clock.to_common(samples["t_ns"])
    return Outcome(
        clock=clock,
        measure_start_ns=clock.to_common(measure_ns),
        interrupted=drive.interrupted,
        failures=tuple(bench.engine.failures),
        samples=samples,
        calibration=calibration,
        shared_space=report(topology, sharing, bench.engine.violations, looker, found, clock),
    )


def _common_start(topology: Topology, reading: ClockReading) -> int:
    """A moment a little ahead on rank 0's clock, as this node's time; the same moment on every rank."""
    clock = CommonClock(reading, reading)
    quiet_barrier(topology.comm)
    common_ns = share(topology.comm, timed_io.now_ns() + int(START_DELAY_S * 1e9))
    return clock.to_local(common_ns)


def _raise_failure(outcome: Outcome) -> None:
    if outcome.failures:
        raise KvbenchError(outcome.failure)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
