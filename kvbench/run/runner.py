"""The phases of one run, in order: plan, check, calibrate, precondition, measure, gather, clean up.

Every rank walks through the same phases. What a rank does alone in a phase ends in an agreement: if it failed anywhere,
rank 0 raises one KvbenchError and the others FailedElsewhere, and no rank is left waiting.
"""

import datetime
import secrets
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from kvbench import timed_io
from kvbench.cluster.agree import Agreement, FailedElsewhere, together
from kvbench.cluster.broadcast import deal_out, share, total
from kvbench.cluster.clock import ClockReading, CommonClock, read_clock
from kvbench.cluster.comm import Communicator, detect_launcher, quiet_barrier
from kvbench.cluster.gather import MEMORY_BYTES, Way, choose_gathering
from kvbench.cluster.oversubscription import pause_s
from kvbench.cluster.progress import ProgressExchange
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.cluster.watch.watch import FAREWELL_S, PATIENCE_S, Watch
from kvbench.config.run_config import RunConfig, TraceWorkload, load_config, parse_config
from kvbench.engine.dispatcher import Timeline
from kvbench.engine.engine import Load
from kvbench.engine.visibility import Looker
from kvbench.errors import KvbenchError
from kvbench.keeping import announce, discard, how_to_go_on, saying_what_is_left
from kvbench.records.schema import Phase
from kvbench.run.bench import Bench
from kvbench.run.checks.expectation import Expect
from kvbench.run.live import Counters, View, counters_width
from kvbench.run.order import Identity
from kvbench.run.outcome import Outcome, gather_outcome
from kvbench.run.output.run_file import open_output
from kvbench.run.output.spill_files import SpillOrder, calibration_as_list, reading_as_list
from kvbench.run.sampler import SAMPLE_DTYPE
from kvbench.run.shared_space import Rounds, exchange_offsets, join, report
from kvbench.units import printable
from kvbench.workload.build import build_role_schedule, build_schedule, trace_parts
from kvbench.workload.preconditioning import PreconditionSchedule
from kvbench.workload.request import Schedule
from kvbench.workload.traces import Trace, load_trace

START_DELAY_S: Final = 0.1
"""Between the agreement to start and the common start, so that every rank has heard of it."""

DRAIN_S: Final = 1.5
"""After the end of the load, operations in flight may end by themselves for so long; then they are canceled."""

LAST_WORD_S: Final = 120.0
"""A canceled operation comes back after the system call under way; storage that keeps one for so long is given up."""

_POLL_S: Final = pause_s(0.02, 0.05)
_ENDING_POLL_S: Final = pause_s(0.001)
"""When a rank has little left to do: whoever was interrupted may have half a second. And where ranks share a key space:
what one wrote, others are to know soon."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for; read on rank 0 alone."""

    source: str
    """Path or name of the configuration."""
    overrides: tuple[str, ...]
    directory: Path | None
    """None: only for configurations without a file tier."""
    out: Path
    overwrite: bool
    gather: Way = "auto"
    gather_memory_bytes: int = MEMORY_BYTES
    expect: Expect = ""
    heading: Callable[[float], str] | None = None
    """From the seconds that the run still takes, what progress is to say before its figures."""
    patience_s: float = PATIENCE_S
    """How long nothing may be heard of a rank (every rank's own)."""
    spill: SpillOrder = field(default_factory=SpillOrder)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: the same on all ranks, but for the schedule."""

    identity: Identity
    schedule: Schedule
    directory: Path | None
    spill: SpillOrder
    part: Trace | None
    """This rank's part of the trace; None for personas."""
    gather: Way = "auto"
    gather_memory_bytes: int = MEMORY_BYTES
    heading: Callable[[float], str] | None = None

    @property
    def config(self) -> RunConfig:
        return self.identity.config


def run(comm: Communicator, order: Order, console: Console) -> Path:
    """Carry out one run on all ranks of `comm`; returns the run file's path (written by rank 0).

    Raises KvbenchError on rank 0 and FailedElsewhere on the others, when the run could not be done, or was done and
    ended early; what was measured until then is in the file all the same.
    """
    agreement = Agreement(comm)
    launched = detect_launcher() is not None
    with Interrupt(launched) as interrupt, together(comm), Watch(comm, order.patience_s) as watch:
        topology = discover(comm)
        watch.connect(topology, console.print)
        plan = _plan(comm, agreement, order)
        writer = agreement.run("check", lambda: open_output(comm, order.out, order.overwrite))
        try:
            wishes = plan.gather, plan.gather_memory_bytes
            gathering = agreement.run("check", lambda: choose_gathering(topology, *wishes))
            _announce(console, topology, plan)
            sharing = join(topology, plan.config, plan.part)
            expect = plan.identity.expect
            with Bench.build(
                topology, agreement, plan.identity, plan.schedule, plan.directory, plan.spill, sharing, expect
            ) as bench:
                watch.before_end.append(lambda: bench.stream.hand_on(FAREWELL_S))
                watch.advice = how_to_go_on(bench.spill, plan.identity.run_id, order.out, plan.directory)
                announce(console, topology, plan.spill, bench.around.spill, bench.sizes.spill_bytes)
                outcome = _load(topology, agreement, plan, bench, interrupt, watch, console)
                with saying_what_is_left(topology, bench.spill, plan.identity.run_id, order.out):
                    status = gather_outcome(topology, agreement, plan.identity, bench, outcome, writer, gathering)
                discard(agreement, bench.spill)
                watch.advice = how_to_go_on(None, plan.identity.run_id, order.out, plan.directory)
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


def _plan(comm: Communicator, agreement: Agreement, order: Order) -> Plan:
    """Rank 0 reads the configuration and the trace; every rank gets the one and its part of the other."""

    def read() -> tuple[dict[str, Any], Trace | None]:
        if comm.rank != 0:
            return {}, None
        config = load_config(order.source, order.overrides)
        _check_roles(config, comm.size)
        if config.keeps_files and order.directory is None:
            raise KvbenchError(f"{order.source} has a file tier: give the directory under test with --dir")
        trace = load_trace(config.workload) if isinstance(config.workload, TraceWorkload) else None
        return _shared_plan(config, trace, order, comm.size), trace

    content, trace = agreement.run("plan", read)
    content = share(comm, content)
    config = parse_config(content["config"], content["source"])
    part: Trace | None = None
    if isinstance(config.workload, TraceWorkload):
        workload = config.workload
        roles = config.role_ranks
        parts = None if trace is None else (p.to_arrays() for p in trace_parts(trace, workload, comm.size, roles))
        part = Trace.from_arrays(*deal_out(comm, parts))
    schedule = agreement.run("plan", lambda: _schedule(config, comm, part))
    identity = Identity(
        config, content["run_id"], content["fingerprint"], content["started_at"], content["trace"], content["expect"]
    )
    directory = content["directory"]
    spill = SpillOrder.from_json(content["spill"])
    directory = None if directory is None else Path(directory)
    way, gather_memory_bytes = content["gather"]
    return Plan(identity, schedule, directory, spill, part, way, gather_memory_bytes, order.heading)


def _check_roles(config: RunConfig, ranks: int) -> None:
    roles = config.role_ranks
    problem = "" if roles is None else roles.problem(ranks)
    if problem:
        raise KvbenchError(f"roles: {problem} (roles={config.roles})")


def _schedule(config: RunConfig, comm: Communicator, part: Trace | None) -> Schedule:
    roles = config.role_ranks
    if roles is None:
        return build_schedule(config, comm.rank, comm.size, part)
    return build_role_schedule(config, roles, comm.rank, part)


def _shared_plan(config: RunConfig, trace: Trace | None, order: Order, ranks: int) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    facts = {}
    if trace is not None:
        facts = {
            "trace_source": trace.source,
            "trace_requests": len(trace),
            "trace_digest": trace.digest,
            "trace_bad_lines": trace.bad_lines,
        }
    return {
        "config": config.model_dump(mode="json"),
        "source": order.source,
        "directory": None if order.directory is None else str(order.directory.absolute()),
        "spill": order.spill.to_json(),
        "run_id": f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        "fingerprint": config.fingerprint(ranks, "" if trace is None else trace.digest),
        "started_at": now.isoformat(timespec="seconds"),
        "trace": facts,
        "gather": [order.gather, order.gather_memory_bytes],
        "expect": order.expect,
    }


def _announce(console: Console, topology: Topology, plan: Plan) -> None:
    if topology.rank == 0:
        identity = plan.identity
        ranks = f"{_count(topology.size, 'rank')} on {_count(topology.nodes, 'node')}"
        console.print(
            f"kvbench run {identity.run_id}: {ranks}, {printable(plan.config.name)}, "
            f"{plan.directory or 'no directory'}, fingerprint {identity.fingerprint}",
            soft_wrap=True,
            highlight=False,
        )


# Load


def _load(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    bench: Bench,
    interrupt: Interrupt,
    watch: Watch,
    console: Console,
) -> Outcome:
    """Calibrate, precondition, warm up and measure; returns what came of it on this rank, also when it ended early."""
    config = plan.config
    before = read_clock(topology, timed_io.now_ns)
    sharing = bench.engine.sharing
    if sharing is not None:
        exchange_offsets(topology, sharing, before)
    calibration = agreement.run("calibrate", lambda: bench.calibrate(topology))
    bench.note(clock_before=reading_as_list(before), calibration=calibration_as_list(calibration))
    view = View(console, bench.tier_names, topology.size, plan.heading) if topology.rank == 0 else None
    drive = _Drive(topology, bench, interrupt, watch, view)

    stopped = False
    bench.stream.start()
    anything = next(plan.schedule.preconditioning(), None) is not None
    if total(topology.comm, anything)[0]:
        now_ns = timed_io.now_ns()
        untimed = Timeline.untimed(now_ns, Phase.PRECONDITION)
        load = bench.engine.start(PreconditionSchedule(plan.schedule), untimed, "asap")
        stopped = drive.until_done(load, now_ns, None)

    start_ns = _common_start(topology, before)
    measure_ns = start_ns + int(config.warmup_s * 1e9)
    bench.note(measure_start_ns=measure_ns)
    end_ns = None if config.duration_s is None else measure_ns + int(config.duration_s * 1e9)
    samples = np.empty(0, SAMPLE_DTYPE)
    looker, found = bench.looker(topology), None
    if not stopped:
        if looker is not None:
            looker.start()
        sampler = bench.sampler(topology) if topology.local_rank == 0 else None
        if sampler:
            sampler.start()
        load = bench.engine.start(plan.schedule, Timeline(start_ns, measure_ns, end_ns, Phase.WARMUP))
        stopped = drive.until_done(load, start_ns, end_ns, looker)
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


class _Drive:
    """The main thread's part while the workers work: progress, interrupts, the common end."""

    def __init__(self, topology: Topology, bench: Bench, interrupt: Interrupt, watch: Watch, view: View | None) -> None:
        self._topology = topology
        self._bench = bench
        self._interrupt = interrupt
        self._watch = watch
        self._view = view
        self.interrupted = False

    def until_done(self, load: Load, start_ns: int, end_ns: int | None, looker: Looker | None = None) -> bool:
        """Watch `load` until it has ended on every rank; returns whether it was stopped before its end on any."""
        engine = self._bench.engine
        tiers = len(self._bench.tiers)
        width = counters_width(tiers)
        exchange = ProgressExchange(self._topology.comm, width + 1)
        rounds = None if engine.sharing is None else Rounds(self._topology.comm, engine.sharing, load, looker)
        local = np.zeros(width + 1, dtype=np.int64)
        duration_s = None if end_ns is None else (end_ns - start_ns) / 1e9
        stopped = False
        canceled_ns: int | None = None
        with (
            self._watch.exchange(),
            self._view or nullcontext(),
            self._bench.stream.read_by(lambda: Counters(engine.stores, tiers)) as counters,
        ):
            while not exchange.over or (rounds is not None and not rounds.over):
                now_ns = timed_io.now_ns()
                broken = bool(self._interrupt.seen or engine.failures)
                if broken or stopped:
                    load.stop()
                if broken or stopped or (end_ns is not None and now_ns > end_ns + int(DRAIN_S * 1e9)):
                    engine.cancel()
                    canceled_ns = canceled_ns or now_ns
                    if now_ns > canceled_ns + int(LAST_WORD_S * 1e9) and not load.finished:
                        self._watch.fail(
                            f"operations on {self._bench.rundir.directory} have not come back for {LAST_WORD_S:g} s "
                            "after they were canceled: the storage does not answer"
                        )
                local[:width] = counters.update()
                local[width] = self._interrupt.seen
                aggregate = exchange.poll(local, finished=load.finished, stop=broken)
                self._watch.beat(aggregate is not None or exchange.over)
                if aggregate is not None:
                    stopped |= aggregate.stopping > 0
                    self.interrupted |= bool(aggregate.totals[width])
                    if self._view is not None:
                        self._view.show(aggregate.totals[:width], (now_ns - start_ns) / 1e9, duration_s)
                if rounds is not None:
                    rounds.poll()
                hurry = broken or stopped or load.finished or rounds is not None
                time.sleep(_ENDING_POLL_S if hurry else _POLL_S)
        load.close()
        return stopped


def _raise_failure(outcome: Outcome) -> None:
    if outcome.failures:
        raise KvbenchError(outcome.failure)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
