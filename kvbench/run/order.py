"""What a run is told to do (`Order`), what rank 0 makes of it for all ranks (`Plan`), and each rank's part (`Work`).

What travels: the plan from rank 0 to all ranks, as JSON, and each rank's part of the trace (`dealing`). A new option of
a run is a field of `Order`, and its value is at hand wherever the plan is.
"""

import datetime
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from kvbench import timed_io
from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import share
from kvbench.cluster.comm import Communicator
from kvbench.cluster.gather import MEMORY_BYTES, Way
from kvbench.cluster.topology import Topology
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.config.load import load_config
from kvbench.config.names import TIER_KINDS
from kvbench.config.run_config import RunConfig, SessionsWorkload, TraceWorkload
from kvbench.config.virtual_speed import VirtualSpeed
from kvbench.errors import KvbenchError
from kvbench.records.schema import VIRTUAL_FORMAT_VERSION
from kvbench.run.addresses import placeholders
from kvbench.run.checks.expectation import Expect
from kvbench.run.checks.promised import check_objectives
from kvbench.run.dealing import deal_trace
from kvbench.run.output.run_file import description
from kvbench.run.output.spill_files import SpillOrder
from kvbench.run.steady_state import PreconditionOrder, check_precondition
from kvbench.tiers.contract import Tier
from kvbench.units import storable
from kvbench.workload.build import build_role_schedule, build_schedule, check_groups, dealt, own_part
from kvbench.workload.request import Schedule
from kvbench.workload.sessions.make import SOURCE
from kvbench.workload.traces import Trace, load_trace


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is told to do: by the command line, a study or a sequence of trials. The same on all ranks."""

    source: str
    """Path or name of the configuration; read on rank 0 alone."""
    directory: str | None
    """Under test, absolute, and perhaps one for each rank (`directories`). None: only for configurations without a file
    tier."""
    out: Path
    """The run file; written on rank 0 alone."""
    overrides: tuple[str, ...] = ()
    """KEY=VALUE."""
    engine: str = ""
    """The twin of an engine, by name or as a YAML file, read on rank 0 alone."""
    overwrite: bool = False
    gather: Way = "auto"
    gather_memory_bytes: int = MEMORY_BYTES
    expect: Expect = ""
    patience_s: float = PATIENCE_S
    """How long nothing may be heard of a rank."""
    spill: SpillOrder = field(default_factory=SpillOrder)
    consent_devices: tuple[str, ...] = ()
    """Block devices that may be overwritten, each named as it is given as `directory`."""
    run_id: str = ""
    """Of `new_run_id`, where whoever orders has to know it beforehand; "": the run makes one."""
    metrics: tuple[str, int] | None = None
    """Address and port that rank 0 tells live figures at; None: nowhere."""
    precondition: PreconditionOrder | None = None
    """Writes before the load; None: none."""
    speed: VirtualSpeed | None = None
    """What is to seem faster or slower than it is; None: nothing, as in every run but those of `study whatif`."""

    def to_json(self) -> dict[str, Any]:
        """The order as JSON holds it."""
        content: dict[str, Any] = _ORDER.dump_python(self, mode="json")
        return content

    @staticmethod
    def from_json(content: Any) -> "Order":
        """The order that `to_json` gave."""
        return _ORDER.validate_python(content)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, made by rank 0 of its order: the same on all ranks."""

    order: Order
    config: RunConfig
    run_id: str
    fingerprint: str
    started_at: str
    trace: dict[str, str | int] = field(default_factory=dict)
    """Attributes of the run file that say which trace it was, or that it was made up; empty for personas."""

    @property
    def own_directories(self) -> bool:
        """Whether ranks have directories of their own."""
        return self.order.directory is not None and bool(placeholders(self.order.directory))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON holds it."""
        content: dict[str, Any] = _PLAN.dump_python(self, mode="json")
        return content

    @property
    def stretch(self) -> float:
        """So many times as long as configured does the load take."""
        return 1.0 if self.order.speed is None else self.order.speed.stretch

    @staticmethod
    def from_json(content: Any) -> "Plan":
        """The plan that `to_json` gave."""
        return _PLAN.validate_python(content)


_ORDER: Final = TypeAdapter(Order)
_PLAN: Final = TypeAdapter(Plan)


@dataclass(frozen=True, slots=True)
class Work:
    """What one rank has to do of a plan."""

    schedule: Schedule
    part: Trace | None
    """Its part of the trace; None where it makes its requests itself."""


def make_plan(comm: Communicator, agreement: Agreement, order: Order) -> tuple[Plan, Work]:
    """Rank 0 reads the configuration and the trace; every rank gets the one and its part of the other. Collective."""

    def read() -> tuple[Plan, Trace | None]:
        config = load_config(order.source, order.overrides, order.engine)
        check_objectives(config, order.source)
        _check_roles(config, comm.size)
        check_groups(config, comm.size)
        check_precondition(config, order.precondition)
        if config.has_target and order.directory is None:
            raise KvbenchError(
                f"{order.source} has a {config.tiers[-1].kind} tier: give the directory under test with --dir"
            )
        _check_directory(config, order.directory)
        check_speed(config, order.speed)
        trace = load_trace(config.workload) if isinstance(config.workload, TraceWorkload) else None
        return _planned(order, config, trace, comm.size), trace

    made, trace = agreement.on_first("plan", read, computes=True) or (None, None)
    plan = Plan.from_json(share(comm, None if made is None else made.to_json()))
    config, part = plan.config, None
    if isinstance(config.workload, TraceWorkload):
        workload, roles, group = config.workload, config.role_ranks, config.tensor_parallel
        parts = None if trace is None else dealt(trace, workload, comm.size, roles, group)
        received = deal_trace(comm, agreement, trace, parts)
        part = agreement.run("plan", lambda: own_part(config, received, comm.rank // group), computes=True)
    return plan, Work(agreement.run("plan", lambda: _schedule(config, comm, part), computes=True), part)


def _planned(order: Order, config: RunConfig, trace: Trace | None, ranks: int) -> Plan:
    now = datetime.datetime.now(datetime.UTC)
    facts: dict[str, str | int] = {}
    if trace is not None:
        facts = {
            "trace_source": storable(trace.source),
            "trace_requests": len(trace),
            "trace_digest": trace.digest,
            "trace_bad_lines": trace.bad_lines,
        }
    elif isinstance(config.workload, SessionsWorkload):
        facts = {"trace_source": SOURCE}
    return Plan(
        order,
        config,
        run_id=order.run_id or new_run_id(now),
        fingerprint=config.fingerprint(ranks, "" if trace is None else trace.digest),
        started_at=now.isoformat(timespec="seconds"),
        trace=facts,
    )


def new_run_id(now: datetime.datetime) -> str:
    """The name of a run that begins at `now` (UTC)."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _check_roles(config: RunConfig, ranks: int) -> None:
    roles = config.role_ranks
    problem = "" if roles is None else roles.problem(ranks)
    if problem:
        raise KvbenchError(f"roles: {problem} (roles={config.roles})")


def _check_directory(config: RunConfig, given: str | None) -> None:
    if given is not None and placeholders(given) and config.namespace == "shared":
        raise KvbenchError(
            f"namespace is shared, so that all ranks need one directory, and --dir {given} gives each its own: leave "
            "the placeholders out, or set namespace=private"
        )


def _schedule(config: RunConfig, comm: Communicator, part: Trace | None) -> Schedule:
    roles = config.role_ranks
    if roles is None:
        return build_schedule(config, comm.rank, comm.size, part)
    return build_role_schedule(config, roles, comm.rank, part)


def check_speed(config: RunConfig, speed: VirtualSpeed | None) -> None:
    """Raise KvbenchError where nothing of a run of `config` can seem faster."""
    if speed is not None and (config.namespace == "shared" or config.tensor_parallel > 1):
        key = "namespace=shared" if config.namespace == "shared" else "tensor_parallel"
        raise KvbenchError(
            f"what if {speed.part} were {speed.factor:g} times as fast cannot be asked with {key}: ranks wait for each "
            "other's messages, which cannot be delayed"
        )


def marks_of(speed: VirtualSpeed | None) -> dict[str, str | int | float]:
    """The attributes by which a run file with virtual speeds is told from all others, by older versions too."""
    return {} if speed is None else {"virtual_speed_json": speed.to_json(), "format_version": VIRTUAL_FORMAT_VERSION}


def tier_names(kinds: Sequence[str]) -> list[str]:
    """Names of tiers of `kinds`, fastest first: their kind, numbered where there are several of one kind, and whether
    they are modelled."""
    names = [f"{k}-{kinds[:i].count(k)}" if kinds.count(k) > 1 else k for i, k in enumerate(kinds)]
    return [
        f"{name} (modelled)" if kind in TIER_KINDS and TIER_KINDS[kind].modelled else name
        for name, kind in zip(names, kinds, strict=True)
    ]


def known_attributes(
    plan: Plan,
    topology: Topology,
    cache_directory: str,
    tiers: Sequence[Tier],
    capacities: Sequence[int],
    arena_bytes: int,
) -> dict[str, str | int | float]:
    """The attributes of the run file but for those of how the run went; `cache_directory` is a
    `places.PlaceSharing`."""
    names = tier_names([tier.kind for tier in tiers])
    return (
        description(plan.config, topology.size, topology.nodes, timed_io.TIMER)
        | plan.trace
        | {
            "run_id": plan.run_id,
            "fingerprint": plan.fingerprint,
            "started_at": plan.started_at,
            "tiers_json": json.dumps(
                [
                    {"name": name, "kind": tier.kind, "capacity_bytes": capacity, "storage": tier.storage}
                    for name, tier, capacity in zip(names, tiers, capacities, strict=True)
                ]
            ),
            "arena_bytes": arena_bytes,
            "cache_directory": cache_directory,
            "expected_directory": plan.order.expect,
            "records": plan.config.records,
        }
        | ({} if plan.order.precondition is None else {"precondition": plan.order.precondition.text})
        | ({"directories": plan.order.directory} if plan.own_directories and plan.order.directory else {})
        | marks_of(plan.order.speed)
    )
