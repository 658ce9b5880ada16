"""From what the ranks hold after a copy-path study to the study file on rank 0: a run file with more tables.

Beside a run's tables: /cells (one row for each cell that was measured to its end), /roofline (memory copies, summed
over the ranks of a node) and /directories. The rows of a cell carry its number as `user`.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.agree import Agreement
from kvbench.cluster.gather import gather_table
from kvbench.cluster.node import peak_resident_bytes
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import Calibration, Io, Pacing, RunConfig
from kvbench.records.clock import CommonClock
from kvbench.records.file import RunFileWriter
from kvbench.records.gathered_rows import RankRows
from kvbench.records.recorder import RowStore
from kvbench.records.schema import REQUEST_DTYPE, label
from kvbench.records.tables import NODE_DTYPE, RANK_DTYPE, as_rows
from kvbench.records.tally import Tally
from kvbench.run.checks.sizes import process_bytes
from kvbench.run.outcome import gather_failures
from kvbench.run.output.run_file import description, node_row, place_row, write_rows, write_tables
from kvbench.studies.equipment import IO_BYTES, Stock
from kvbench.studies.measuring import Measured
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import READS_PER_REQUEST, objects_of
from kvbench.studies.requirements import StudyPlaces
from kvbench.units import storable

KIND: Final = "study-copy-path"

_CELL_DTYPE: Final = np.dtype(
    [
        ("cell", "<i8"),
        ("directory", "S1024"),
        ("filesystem", "S32"),
        ("ranks", "<i8"),
        ("threads", "<i8"),
        ("read_path", "S16"),
        ("object_bytes", "<i8"),
        ("mode", "S16"),
        ("repeat", "<i8"),
        ("order", "<i8"),
        ("start_ns", "<i8"),
        ("end_ns", "<i8"),
    ]
)
_COPY_DTYPE: Final = np.dtype([("node", "<i8"), ("ranks", "<i8"), ("repeat", "<i8"), ("copy_gib_per_s", "<f8")])
_DIRECTORY_DTYPE: Final = np.dtype(
    [
        ("node", "<i8"),
        ("directory", "S1024"),
        ("filesystem", "S32"),
        ("mount_point", "S128"),
        ("mount_options", "S256"),
        ("device", "S128"),
        ("filesystem_group", "<i8"),
    ]
)


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """Which study it is; the same on all ranks."""

    choices: CopyPathChoices
    run_id: str
    started_at: str


def gather_study(
    topology: Topology,
    agreement: Agreement,
    identity: StudyIdentity,
    around: StudyPlaces,
    stock: Stock | None,
    measured: Measured,
    writer: RunFileWriter | None,
) -> None:
    """Write the study file on rank 0 from what all ranks hold. Collective.

    Raises KvbenchError on rank 0 and FailedElsewhere on the others.
    """
    outcome = measured.outcome
    stores = stock.stores if stock is not None else []
    tables = agreement.run("gather", lambda: _tables(topology, identity, around, stock, measured))
    failures = gather_failures(topology, outcome)
    copies = gather_table(topology.comm, _copy_rows(topology, measured))
    tables["roofline"] = np.empty(0, _COPY_DTYPE) if copies is None else _summed(copies)
    attributes = _attributes(topology, identity, around) | {
        "status": "failed" if failures else "interrupted" if outcome.interrupted else "complete",
        "status_message": "; ".join(failures),
        "measure_start_ns": outcome.measure_start_ns,
        "clock_uncertainty_ns": outcome.clock.worst_uncertainty_ns,
    }
    write_rows(topology.comm, agreement, writer, RankRows(stores, RowStore(REQUEST_DTYPE, 1), outcome.clock))
    write_tables(topology.comm, agreement, writer, tables, attributes)


def _tables(
    topology: Topology, identity: StudyIdentity, around: StudyPlaces, stock: Stock | None, measured: Measured
) -> dict[str, npt.NDArray[np.void]]:
    """This rank's rows of each table."""
    leader = topology.local_rank == 0
    places = [_place_row(topology, around, number) for number in range(len(around.places))] if leader else []
    return {
        "ranks": as_rows([_rank_row(topology, identity, around, stock, measured)], RANK_DTYPE),
        "nodes": as_rows([_node_row(topology, around, measured.outcome.clock)] if leader else [], NODE_DTYPE),
        "directories": as_rows(places, _DIRECTORY_DTYPE),
        "calibration": measured.outcome.calibration,
        "samples": measured.outcome.samples,
        "cells": as_rows(_cell_rows(around, measured) if topology.rank == 0 else [], _CELL_DTYPE),
    }


def _cell_rows(around: StudyPlaces, measured: Measured) -> list[dict[str, Any]]:
    return [
        {
            "cell": time.cell.number,
            "directory": around.places[time.cell.directory].target.address,
            "filesystem": around.places[time.cell.directory].filesystem.kind,
            "ranks": time.cell.ranks,
            "threads": time.cell.threads,
            "read_path": label(time.cell.read_path),
            "object_bytes": time.cell.object_bytes,
            "mode": time.cell.mode,
            "repeat": time.cell.repeat,
            "order": time.order,
            "start_ns": time.start_ns,
            "end_ns": time.end_ns,
        }
        for time in measured.cells
    ]


def _copy_rows(topology: Topology, measured: Measured) -> npt.NDArray[np.void]:
    rows = [(topology.node, level.ranks, level.repeat, figure) for level, figure in measured.copies]
    return np.array(rows, dtype=_COPY_DTYPE)


def _summed(copies: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The bandwidths of the ranks of a node that copied at once, added up."""
    which, place = np.unique(copies[["node", "ranks", "repeat"]], return_inverse=True)
    table = np.zeros(len(which), _COPY_DTYPE)
    for name in ("node", "ranks", "repeat"):
        table[name] = which[name]
    table["copy_gib_per_s"] = np.bincount(place, copies["copy_gib_per_s"], minlength=len(which))
    return table


def _attributes(topology: Topology, identity: StudyIdentity, around: StudyPlaces) -> dict[str, str | int | float]:
    choices = identity.choices
    io = Io(io_bytes=IO_BYTES, threads=max(choices.threads), arena_bytes=around.arena_bytes)
    config = RunConfig(
        name="copy-path",
        seed=choices.seed,
        model=choices.model,
        pacing=Pacing(mode="asap"),
        io=io,
        calibration=Calibration(seconds=0),
    )
    study = choices.to_json() | {"reads_per_request": READS_PER_REQUEST}
    stands = config.model_dump(mode="json", include={"name", "seed", "model", "io", "payload"})
    stands["io"].pop("read_path")
    tiers = [
        {"name": storable(place.target.address), "kind": "file", "capacity_bytes": 0, "storage": True}
        for place in around.places
    ]
    return description(config, topology.size, topology.nodes, timed_io.TIMER) | {
        "kind": KIND,
        "run_id": identity.run_id,
        "started_at": identity.started_at,
        "config_json": json.dumps(stands | {"study": study}, sort_keys=True),
        "fingerprint": _fingerprint(study, topology),
        "tiers_json": json.dumps(tiers),
        "read_path": ",".join(label(path) for path in choices.read_paths),
        "reads_per_request": READS_PER_REQUEST,
        "arena_bytes": around.arena_bytes,
    }


def _fingerprint(study: Mapping[str, Any], topology: Topology) -> str:
    """16 hex digits over everything that decides what is read, wherever that is."""
    content = {name: value for name, value in study.items() if name != "directories"}
    content |= {"places": len(study["directories"]), "all_ranks": topology.size, "nodes": topology.nodes}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _rank_row(
    topology: Topology, identity: StudyIdentity, around: StudyPlaces, stock: Stock | None, measured: Measured
) -> dict[str, str | int]:
    choices, clock = identity.choices, measured.outcome.clock
    stores = stock.stores if stock is not None else []
    tally = Tally()
    for rows in (view for store in stores for view in store.views()):
        tally.take_records(rows)
    objects = sum(objects_of(size, choices.threads) * size for size in choices.sizes)
    return {
        "rank": topology.rank,
        "node": topology.node,
        "host": topology.host,
        "pid": os.getpid(),
        "first_row": 0,
        "rows": tally.records,
        "first_request": 0,
        "requests": 0,
        "arena_bytes": stock.arena.nbytes if stock is not None else 0,
        "clock_offset_ns": clock.offset_ns,
        "clock_drift_ns": clock.after.offset_ns - clock.before.offset_ns,
        "peak_rss_bytes": peak_resident_bytes(),
        "predicted_peak_bytes": process_bytes() if stock is None else around.memory_bytes,
        "storage_capacity_bytes": objects if stock is not None else 0,
        "canceled_ops": tally.canceled,
        "failed_ops": tally.failed,
        "verified_sectors": measured.verified_sectors,
        "too_large_objects": 0,
        "waiting_requests": 0,
        "waiting_tokens": 0,
        "spilled_rows": 0,
        "spill_bytes": 0,
        "spill_errno": 0,
        "retried_requests": 0,
        "begin_ns": 0 if tally.begin_ns == 0 else clock.to_common(tally.begin_ns),
        "end_ns": 0 if tally.end_ns == 0 else clock.to_common(tally.end_ns),
    }


def _node_row(topology: Topology, around: StudyPlaces, clock: CommonClock) -> dict[str, str | int | float]:
    return node_row(around.node, _place_row(topology, around, 0), clock)


def _place_row(topology: Topology, around: StudyPlaces, number: int) -> dict[str, str | int]:
    place = around.places[number]
    return place_row(topology.node, place.target.address, place.filesystem, place.group.group)
