"""What a run is ordered to do, which run it is, and the attributes of its run file that are known before it starts.

What travels: the order from rank 0 to all, and each rank's part of the trace.
"""

import datetime
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvbench import timed_io
from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import deal_out, share
from kvbench.cluster.comm import Communicator
from kvbench.cluster.gather import MEMORY_BYTES, Way
from kvbench.cluster.topology import Topology
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.config.run_config import RunConfig, TraceWorkload, load_config, parse_config
from kvbench.errors import KvbenchError
from kvbench.run.checks.expectation import Expect
from kvbench.run.output.run_file import description
from kvbench.run.output.spill_files import SpillOrder
from kvbench.tiers.contract import Tier
from kvbench.workload.build import build_role_schedule, build_schedule, trace_parts
from kvbench.workload.request import Schedule
from kvbench.workload.traces import Trace, load_trace


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run it is; the same on all ranks."""

    config: RunConfig
    run_id: str
    fingerprint: str
    started_at: str
    trace: dict[str, str | int]
    expect: Expect = ""


def tier_names(kinds: Sequence[str]) -> list[str]:
    """Names of tiers of `kinds`, fastest first: their kind, numbered where there are several of one kind."""
    return [f"{k}-{kinds[:i].count(k)}" if kinds.count(k) > 1 else k for i, k in enumerate(kinds)]


def known_attributes(
    identity: Identity,
    topology: Topology,
    cache_directory: str,
    tiers: Sequence[Tier],
    capacities: Sequence[int],
    arena_bytes: int,
) -> dict[str, str | int | float]:
    """The attributes of the run file but for those of how the run went; `cache_directory` as in `topology.Sharing`."""
    names = tier_names([tier.kind for tier in tiers])
    return (
        description(identity.config, topology.size, topology.nodes, timed_io.TIMER)
        | identity.trace
        | {
            "run_id": identity.run_id,
            "fingerprint": identity.fingerprint,
            "started_at": identity.started_at,
            "tiers_json": json.dumps(
                [
                    {"name": name, "kind": tier.kind, "capacity_bytes": capacity, "storage": tier.storage}
                    for name, tier, capacity in zip(names, tiers, capacities, strict=True)
                ]
            ),
            "arena_bytes": arena_bytes,
            "cache_directory": cache_directory,
            "expected_directory": identity.expect,
            "records": identity.config.records,
        }
    )


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


def make_plan(comm: Communicator, agreement: Agreement, order: Order) -> Plan:
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
