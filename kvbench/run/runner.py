"""The phases of one run, in order: plan, check, calibrate, precondition, measure, gather, clean up.

Every rank walks through the same phases. What a rank does alone in a phase ends in an agreement: if it failed anywhere,
rank 0 raises one KvbenchError and the others FailedElsewhere, and no rank is left waiting.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.agree import Agreement, FailedElsewhere, RunInterrupted, together
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.clock import read_clock
from kvbench.cluster.comm import Communicator, detect_launcher, quiet_barrier
from kvbench.cluster.gather import choose_gathering
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.cluster.watch.watch import FAREWELL_S, Watch
from kvbench.config.run_config import TraceWorkload
from kvbench.engine.arrivals import Timeline
from kvbench.engine.engine import Load
from kvbench.errors import KvbenchError
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.outputs import Written
from kvbench.records.schema import Phase
from kvbench.records.spill.header import calibration_as_list, reading_as_list
from kvbench.records.spill.writer import SpillWriter
from kvbench.run.addresses import addresses_of_node
from kvbench.run.bench import Bench
from kvbench.run.drive import Drive
from kvbench.run.metrics import Metrics, serve
from kvbench.run.node_counters import NodeCounters
from kvbench.run.order import Order, Plan, make_plan
from kvbench.run.outcome import Outcome, gather_outcome, why_nothing
from kvbench.run.output.run_file import open_until
from kvbench.run.output.spill_files import announce, discard, how_to_go_on, saying_what_is_left
from kvbench.run.precondition import Preconditioned, precondition
from kvbench.run.shared_space import exchange_offsets, join, report
from kvbench.units import printable, storable
from kvbench.workload.preconditioning import PreconditionSchedule
from kvbench.workload.request import Schedule

if TYPE_CHECKING:
    from rich.console import Console

START_DELAY_S: Final = 0.1
"""Between the agreement to start and the common start, so that every rank has heard of it."""

_LONG_S: Final = 2.0
"""A calibration that takes so long is announced."""


def run(comm: Communicator, order: Order, console: "Console", heading: Callable[[float], str] | None = None) -> Written:
    """Carry out one run on all ranks of `comm`; returns the run file, which rank 0 has written and open.

    `heading` gives what progress says before its figures, from the seconds that the run still takes (rank 0's counts).
    Raises KvbenchError on rank 0 and FailedElsewhere on the others, when the run could not be done, or was done and
    ended early; what was measured until then is in the file all the same.
    """
    interrupt = Interrupt(launched=detect_launcher() is not None, speaks=comm.rank == 0)
    agreement = Agreement(comm, interrupt)
    with (
        interrupt,
        together(comm),
        Watch(comm, order.patience_s) as watch,
        interrupt.ended_by(watch.give_up),
        ExitStack() as stack,
    ):
        topology = discover(comm)
        watch.connect(topology, console.print)
        plan, work = make_plan(comm, agreement, order)
        order = plan.order
        inputs = _files_read(plan)
        writer = agreement.on_first(
            "check", lambda: open_until(stack, comm, order.out, order.overwrite, plan.run_id, inputs)
        )
        if writer is not None:
            watch.before_end.append(writer.withdraw)
        wishes = order.gather, order.gather_memory_bytes
        gathering = agreement.run("check", lambda: choose_gathering(topology, *wishes))
        _announce(console, topology, plan)
        metrics = agreement.on_first("check", lambda: _metrics(stack, console, topology, plan))
        sharing = join(topology, plan.config, work.part)
        addresses = addresses_of_node(topology, order.directory)
        watch.advice = _advice(topology, plan, addresses)
        with Bench.build(topology, agreement, plan, addresses, work.schedule, sharing) as bench:
            watch.before_end.append(lambda: bench.farewell(FAREWELL_S))
            announce(console, topology, order.spill, bench.around.spill, bench.sizes.spill_bytes)
            outcome = _load(
                topology, agreement, plan, work.schedule, bench, interrupt, watch, console, heading, metrics
            )
            interrupt.waits_for = f"writing {order.out}"
            with saying_what_is_left(topology, bench.spill, plan.run_id, order.out, writes=True):
                status = gather_outcome(topology, agreement, plan, bench, outcome, writer, gathering)
            discard(agreement, bench.spill)
            watch.advice = _advice(topology, plan, addresses)
            if comm.rank == 0 and status != "complete":
                console.print(f"{order.out} holds what was measured, marked {status}", soft_wrap=True)
            agreement.run("measure", lambda: _raise_failure(outcome))
            nothing = "" if outcome.interrupted else why_nothing(topology, bench)
        written = Written(order.out) if writer is None else writer.written()
    if outcome.interrupted or interrupt.seen:
        written.close()
        if comm.rank != 0:
            raise FailedElsewhere
        late = "" if outcome.interrupted else f", after all was measured: {order.out} is complete"
        raise RunInterrupted(f"interrupted{late}")
    if nothing:
        written.close()
        if comm.rank != 0:
            raise FailedElsewhere
        raise KvbenchError(f"{nothing} ({order.out} holds the run)")
    return written


# Plan


def _advice(topology: Topology, plan: Plan, addresses: Sequence[str], spill: SpillWriter | None = None) -> str:
    """What can be done where the ranks were ended without leaving in good order."""
    given = plan.order.directory if plan.own_directories and topology.nodes > 1 else None
    return how_to_go_on(spill, plan.run_id, plan.order.out, addresses, given or "")


def _files_read(plan: Plan) -> list[str | Path]:
    """What the run file must not replace: the configuration, and the trace if there is one."""
    workload = plan.config.workload
    return [plan.order.source, *([workload.path] if isinstance(workload, TraceWorkload) else [])]


def _announce(console: "Console", topology: Topology, plan: Plan) -> None:
    if topology.rank == 0:
        ranks = f"{_count(topology.size, 'rank')} on {_count(topology.nodes, 'node')}"
        console.print(
            f"kvbench run {plan.run_id}: {ranks}, {printable(plan.config.name)}, "
            f"{plan.order.directory or 'no directory'}, fingerprint {plan.fingerprint}",
            soft_wrap=True,
            highlight=False,
        )


def _metrics(stack: ExitStack, console: "Console", topology: Topology, plan: Plan) -> Metrics | None:
    """Rank 0's live figures for others, until `stack` is left."""
    if plan.order.metrics is None:
        return None
    facts = {"run_id": plan.run_id, "configuration": plan.config.name, "fingerprint": plan.fingerprint}
    metrics = Metrics({name: printable(value) for name, value in facts.items()}, topology.size)
    url = serve(stack, metrics, plan.order.metrics)
    console.print(f"live figures for Prometheus: {url}", soft_wrap=True, highlight=False)
    return metrics


# Load


def _load(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    schedule: Schedule,
    bench: Bench,
    interrupt: Interrupt,
    watch: Watch,
    console: "Console",
    heading: Callable[[float], str] | None,
    metrics: Metrics | None,
) -> Outcome:
    """Calibrate, precondition, warm up and measure; returns what came of it on this rank, also when it ended early."""
    config = plan.config
    before = read_clock(topology, timed_io.now_ns)
    sharing = bench.engine.sharing
    if sharing is not None:
        exchange_offsets(topology, sharing, before)
    calibration = _calibrate(topology, agreement, bench, interrupt, console)
    bench.note(clock_before=reading_as_list(before), calibration=calibration_as_list(calibration))
    view = None
    if topology.rank == 0:
        from kvbench.run.live import View  # noqa: PLC0415 - no other rank loads what it prints with

        view = View(console, bench.tier_names, topology.size, heading, metrics)
    drive = Drive(topology, bench, interrupt, watch, view)
    in_flight = f"waiting for operations in flight on {plan.order.directory or 'the tiers'}"
    watch.advice = _advice(topology, plan, bench.around.addresses, bench.spill)

    prepared = _precondition(topology, agreement, plan, schedule, bench, drive, console, in_flight)
    stopped = prepared is not None and prepared.stopped
    stopped = stopped or _fill(topology, agreement, plan, schedule, bench, drive, in_flight)
    # What takes time before the first operation is over on every rank before a common start is agreed on.
    measured = None if stopped else _set_up(topology, agreement, plan, schedule, bench)
    interrupt.waits_for = in_flight
    node = NodeCounters(bench, topology, begins=measured is not None)
    looker, found = bench.looker(topology), None
    start_ns = _common_start(topology, before)
    measure_ns = start_ns + int(config.warmup_s * plan.stretch * 1e9)
    bench.note(measure_start_ns=measure_ns)
    end_ns = None if config.duration_s is None else measure_ns + int(config.duration_s * plan.stretch * 1e9)
    if measured is not None:
        measured.begin(Timeline(start_ns, measure_ns, end_ns, Phase.WARMUP))
        if looker is not None:
            looker.start()
        node.start()
        stopped = drive.until_done(measured, start_ns, end_ns, looker)
        if not stopped:
            interrupt.waits_for = f"syncing {plan.order.directory or 'the tiers'}"
            bench.sync_at_end(topology.rank)
        # Whoever was interrupted may have little time left: neither drives nor the clock are read again.
        node.stop(with_drives=not stopped)
        if looker is not None:
            found = looker.stop()
    after = before if stopped else read_clock(topology, timed_io.now_ns)
    ended = "failed" if bench.engine.failures else "interrupted" if drive.interrupted else "complete"
    failures = [storable(failure) for failure in bench.engine.failures[:16]]
    bench.note(clock_after=reading_as_list(after), ended=ended, failures=failures)
    bench.stream.stop()
    clock = CommonClock(before, after)
    samples, drives = node.on(clock)
    return Outcome(
        clock=clock,
        measure_start_ns=clock.to_common(measure_ns),
        interrupted=drive.interrupted,
        failures=tuple(bench.engine.failures),
        samples=samples,
        calibration=calibration,
        shared_space=report(topology, sharing, bench.engine.violations, looker, found, clock),
        preconditioned=prepared,
        drives=drives,
    )


def _calibrate(
    topology: Topology, agreement: Agreement, bench: Bench, interrupt: Interrupt, console: "Console"
) -> npt.NDArray[np.void]:
    seconds = bench.calibration_s(topology)
    if topology.rank == 0 and seconds >= _LONG_S:
        text = f"calibrating for about {seconds:.0f} s: each rank of a node alone, then all of them at once"
        console.print(text, highlight=False, soft_wrap=True)
    return agreement.run("calibrate", lambda: bench.calibrate(topology, interrupt))


def _precondition(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    schedule: Schedule,
    bench: Bench,
    drive: Drive,
    console: "Console",
    in_flight: str,
) -> Preconditioned | None:
    """Bring the storage to a steady state; None where that was not asked for."""
    order = plan.order.precondition
    if order is None:
        return None
    return precondition(topology, agreement, plan, order, schedule, bench, drive, console, in_flight)


def _fill(
    topology: Topology, agreement: Agreement, plan: Plan, schedule: Schedule, bench: Bench, drive: Drive, in_flight: str
) -> bool:
    """Fill the tiers with what is there before anything is measured; whether that was stopped before its end."""
    anything = next(schedule.preconditioning(), None) is not None
    if not total(topology.comm, anything)[0]:
        return False
    objects = PreconditionSchedule(schedule)
    agreement.interrupt.waits_for = ""
    with saying_what_is_left(topology, bench.spill if bench.stream.started else None, plan.run_id, plan.order.out):
        load = agreement.run("set up", lambda: bench.engine.prepare(objects, "asap"), computes=True)
    bench.begin_stream()
    agreement.interrupt.waits_for = in_flight
    now_ns = timed_io.now_ns()
    load.begin(Timeline.untimed(now_ns, Phase.PRECONDITION))
    return drive.until_done(load, now_ns, None)


def _set_up(topology: Topology, agreement: Agreement, plan: Plan, schedule: Schedule, bench: Bench) -> Load:
    """The load that is measured, ready to begin."""
    agreement.interrupt.waits_for = ""
    # Once rows have been made there may be something to keep.
    with saying_what_is_left(topology, bench.spill if bench.stream.started else None, plan.run_id, plan.order.out):
        load = agreement.run("set up", lambda: bench.engine.prepare(schedule), computes=True)
    bench.begin_stream()
    return load


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
