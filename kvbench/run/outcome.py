"""What came of a load on one rank, and its way into the run file."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import highest, total
from kvbench.cluster.gather import STRAIGHT, Gathering, gather_table
from kvbench.cluster.merge import agree_on_levels
from kvbench.cluster.node import peak_resident_bytes
from kvbench.cluster.topology import Topology
from kvbench.engine.look_ups import LOOK_UPS_DTYPE
from kvbench.records.clock import CommonClock
from kvbench.records.gathered_rows import RankRows, Spilled
from kvbench.records.tables import DIRECTORY_DTYPE, DRIVE_DTYPE, NODE_DTYPE, PREFIX_DTYPE, RANK_DTYPE, as_rows
from kvbench.run.bench import Bench
from kvbench.run.condensing import condense
from kvbench.run.order import Plan, known_attributes
from kvbench.run.output.run_file import write_rows, write_tables
from kvbench.run.precondition import Preconditioned
from kvbench.tiers.file.nixl_library import load as load_nixl

if TYPE_CHECKING:
    from kvbench.records.file import RunFileWriter

_FAILURE_DTYPE: Final = np.dtype([("rank", "<i8"), ("host", "S64"), ("text", "S1024")])
_MOST_FAILURES: Final = 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the load on this rank."""

    clock: CommonClock
    measure_start_ns: int
    """Rank 0's clock."""
    interrupted: bool
    """Some rank was asked to end early."""
    failures: tuple[str, ...]
    """Of this rank."""
    samples: npt.NDArray[np.void]
    """Of this node, on its first rank (SAMPLE_DTYPE, times on rank 0's clock)."""
    calibration: npt.NDArray[np.void]
    shared_space: Mapping[str, npt.NDArray[np.void]] = field(default_factory=dict)
    """The rows of this rank in the tables that a shared key space adds."""
    drives: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, DRIVE_DTYPE))
    """Of this node, on its first rank, likewise."""
    preconditioned: Preconditioned | None = None
    """What came of writes before the load."""

    @property
    def failure(self) -> str:
        """What ended the load on this rank: the first failure, as the others are mostly the same; "" for nothing."""
        if not self.failures:
            return ""
        others = len(self.failures) - 1
        return self.failures[0] + (f" (and {others} more failed alike)" if others else "")


def gather_outcome(
    topology: Topology,
    agreement: Agreement,
    plan: Plan,
    bench: Bench,
    outcome: Outcome,
    writer: "RunFileWriter | None",
    gathering: Gathering = STRAIGHT,
) -> str:
    """Write the run file on rank 0 from what all ranks hold; returns its status there. Collective.

    Raises KvbenchError on rank 0 and FailedElsewhere on the others.
    """
    is_leader = topology.local_rank == 0
    condensed = None if bench.digest is None else condense(topology, bench.digest, outcome.clock, bench.tally.end_ns)
    bench.engine.batches.close()
    agree_on_levels(topology.comm, bench.engine.batches.sample)
    kept = _kept_rows(bench, outcome.clock)
    write_rows(topology.comm, agreement, writer, kept, gathering)

    def tables_of_rank() -> dict[str, npt.NDArray[np.void]]:
        if writer is not None:
            # Before the row of this rank, which says how much memory it took at most.
            writer.complete_rows()
        return {
            "ranks": as_rows([_rank_row(topology, bench, outcome, kept)], RANK_DTYPE),
            "nodes": as_rows([bench.node_row(topology, outcome.clock)] if is_leader else [], NODE_DTYPE),
            "calibration": outcome.calibration,
            "samples": outcome.samples,
            "drives": outcome.drives,
            "batches": _batches(bench, outcome.clock),
            "splits": bench.engine.batches.splits(),
            **outcome.shared_space,
            **_look_ups(topology, bench),
            **({} if plan.order.speed is None else {"delays": bench.engine.delays()}),
            **_directories(plan, topology, bench),
        } | ({} if condensed is None else {"places": condensed.places})

    tables = agreement.run("gather", tables_of_rank)
    failures = gather_failures(topology, outcome)
    status = "failed" if failures else "interrupted" if outcome.interrupted else "complete"
    attributes = (
        known_attributes(
            plan,
            topology,
            bench.around.group.sharing,
            bench.tiers,
            bench.sizes.capacities,
            bench.arena.nbytes,
        )
        | {
            "status": status,
            "status_message": "; ".join(failures),
            "gathered_by": gathering.way,
            "measure_start_ns": outcome.measure_start_ns,
            "batches_sampled_1_in": 2**bench.engine.batches.sample.level,
            "clock_uncertainty_ns": outcome.clock.worst_uncertainty_ns,
        }
        | _of_engine(plan, topology, bench)
        | ({} if condensed is None else condensed.attributes)
    )
    merged = dict(() if condensed is None or condensed.tables is None else condensed.tables)
    if outcome.preconditioned is not None:
        attributes |= outcome.preconditioned.attributes()
        merged["precondition"] = outcome.preconditioned.table()
    write_tables(topology.comm, agreement, writer, tables, attributes, merged)
    return status


def why_nothing(topology: Topology, bench: Bench) -> str:
    """Why a run that went to its end has no figure: not one operation on any rank that is measured and worked. ""
    where it has some. The same on every rank. Collective."""
    tally = bench.tally
    counts = tally.measured, tally.records, tally.canceled, tally.failed, tally.measured_requests
    measured, operations, canceled, failed, requests = total(topology.comm, *counts)
    if measured:
        return ""
    before = operations - canceled - failed
    facts = [f"{requests} requests of it began" if requests else "no request of it began"]
    if before:
        facts.append(f"{before} operations were of requests that were due before it")
    facts += [
        f"{number} {fate}" for number, fate in ((canceled, "were canceled at its end"), (failed, "failed")) if number
    ]
    return (
        f"nothing was measured: no operation of the measured phase was carried out ({', '.join(facts)}); set a longer "
        "duration_s, or ask for less at once"
    )


def _of_engine(plan: Plan, topology: Topology, bench: Bench) -> dict[str, object]:
    """What is to be known of the I/O engine. Collective with `uring`."""
    if plan.config.io.engine == "uring":
        unregistered = highest(topology.comm, bench.tiers[-1].unregistered_errno)
        return {"uring_memory_registered": int(unregistered == 0)}
    return {"nixl_version": load_nixl().version} if plan.config.io.engine == "nixl" else {}


def _look_ups(topology: Topology, bench: Bench) -> dict[str, npt.NDArray[np.void]]:
    """The table of look-ups by kind."""
    if bench.config.serves_as_engine:
        # Of ranks that serve together, which find the same, the first says it.
        first = topology.rank % bench.config.tensor_parallel == 0
        rows = bench.engine.books.prefix_hits.rows(topology.rank) if first else []
        return {"prefix": as_rows(rows, PREFIX_DTYPE)}
    return {"look_ups": as_rows([bench.engine.books.look_ups.as_row(topology.rank)], LOOK_UPS_DTYPE)}


def _batches(bench: Bench, clock: CommonClock) -> npt.NDArray[np.void]:
    """The table of batches."""
    rows = bench.engine.batches.rows()
    rows["t_start_ns"] = clock.to_common(rows["t_start_ns"])
    return rows


def _directories(plan: Plan, topology: Topology, bench: Bench) -> dict[str, npt.NDArray[np.void]]:
    """The table of directories, where ranks have some of their own."""
    if not plan.own_directories:
        return {}
    return {"directories": as_rows([bench.directory_row(topology)], DIRECTORY_DTYPE)}


def gather_failures(topology: Topology, outcome: Outcome) -> list[str]:
    """What failed on which rank, for the first of the ranks on which something did; on rank 0, empty elsewhere."""
    if not total(topology.comm, len(outcome.failures))[0]:
        return []
    mine = [{"rank": topology.rank, "host": topology.host, "text": outcome.failure}] if outcome.failures else []
    rows = gather_table(topology.comm, as_rows(mine, _FAILURE_DTYPE))
    if rows is None:
        return []
    return [
        f"rank {row['rank']} on {row['host'].decode()}: {row['text'].decode(errors='replace')}"
        for row in rows[:_MOST_FAILURES]
    ]


def _kept_rows(bench: Bench, clock: CommonClock) -> RankRows:
    """The rows that go into the run file: all, or the sample of a digest."""
    engine, stream = bench.engine, bench.stream
    if bench.digest is not None:
        return RankRows([bench.digest.records], bench.digest.requests, clock)
    if bench.spill is None:
        return RankRows(engine.stores, engine.requests, clock)
    spill, kept = bench.spill, (stream.kept_records, stream.kept_requests)
    spilled = Spilled(spill.path, spill.kept_bytes, *kept, spill.descriptor)
    return RankRows(engine.stores, engine.requests, clock, spilled)


def _rank_row(topology: Topology, bench: Bench, outcome: Outcome, kept: RankRows) -> dict[str, str | int]:
    engine, clock, tally, spill = bench.engine, outcome.clock, bench.tally, bench.spill
    return bench.known_rank_row(topology) | {
        "first_row": 0,
        "rows": sum(rows.count for rows in kept.records),
        "first_request": 0,
        "requests": kept.requests.count,
        "clock_offset_ns": clock.offset_ns,
        "clock_drift_ns": clock.after.offset_ns - clock.before.offset_ns,
        "peak_rss_bytes": peak_resident_bytes(),
        "canceled_ops": tally.canceled,
        "failed_ops": tally.failed,
        "verified_sectors": engine.verified_sectors,
        "too_large_objects": engine.books.cache.too_large,
        "retried_requests": sum(tier.retried_requests for tier in bench.tiers),
        "waiting_requests": engine.books.left_waiting[0],
        "waiting_tokens": engine.books.left_waiting[1],
        "begin_ns": 0 if tally.begin_ns == 0 else clock.to_common(tally.begin_ns),
        "end_ns": 0 if tally.end_ns == 0 else clock.to_common(tally.end_ns),
        "spilled_rows": 0 if spill is None else spill.kept_records,
        "spill_bytes": 0 if spill is None else spill.kept_bytes,
        "spill_errno": 0 if spill is None or spill.error is None else spill.error.errno or errno.EIO,
    }
