"""From what the ranks hold after a run to the run file on rank 0: attributes, tables and rows.

Called on every rank; the rows travel in bounded chunks, rank after rank, and the small tables as one fixed-width row
a rank.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import kvbench
from kvbench.cluster.agree import Agreement
from kvbench.cluster.comm import Communicator, mpi_version
from kvbench.cluster.gather import STRAIGHT, Gathering, gather_rows, gather_table
from kvbench.cluster.node import Node
from kvbench.config.run_config import RunConfig
from kvbench.records.clock import CommonClock
from kvbench.records.gathered_rows import RankRows
from kvbench.records.outputs import make_folder
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.tables import as_columns, clock_columns, number_rows
from kvbench.tiers.target import Volume
from kvbench.units import storable
from kvbench.workload.compute_time import compute_model
from kvbench.workload.request import QOS_CLASSES

if TYPE_CHECKING:
    from kvbench.records.file import RunFileWriter


def place_row(node: int, directory: str, filesystem: Volume, group: int) -> dict[str, str | int]:
    """The columns of a directory under test as node number `node` sees it; `group` is its filesystem group."""
    return {
        "node": node,
        "directory": storable(directory),
        "filesystem": filesystem.kind,
        "mount_point": filesystem.mount_point,
        "mount_options": filesystem.options,
        "device": filesystem.device,
        "filesystem_group": group,
    }


def node_row(node: Node, place: Mapping[str, str | int], clock: CommonClock) -> dict[str, str | int | float]:
    """A row of NODE_DTYPE: the facts of a node and its clock beside those of its directory (`place_row`)."""
    return {**node_facts(node, place), **clock_columns(clock)}


def node_facts(node: Node, place: Mapping[str, str | int]) -> dict[str, str | int]:
    """The columns of NODE_DTYPE but for those of the clock."""
    return {
        **place,
        "host": node.host,
        "cpus": node.cpus,
        "cpu_model": node.cpu_model,
        "memory_bytes": node.memory_bytes,
        "llc_bytes": node.llc_bytes,
        "kernel": node.kernel,
        "clock_source": node.clock_source,
    }


def open_output(
    comm: Communicator, out: Path, overwrite: bool, run_id: str = "", inputs: Sequence[str | Path] = ()
) -> "RunFileWriter | None":
    """On rank 0 the writer of `out`, whose directory is made; None on the others. `inputs` are files that the run
    reads. Raises KvbenchError."""
    if comm.rank != 0:
        return None
    make_folder(out.parent, "the run file", "choose another directory with --out")
    from kvbench.records.file import RunFileWriter  # noqa: PLC0415 - HDF5, which no other rank needs

    return RunFileWriter(out, overwrite=overwrite, run_id=run_id, inputs=inputs)


def open_until(
    stack: ExitStack,
    comm: Communicator,
    out: Path,
    overwrite: bool,
    run_id: str = "",
    inputs: Sequence[str | Path] = (),
) -> "RunFileWriter | None":
    """As `open_output`; a file that is not finished when `stack` is left is removed. Raises KvbenchError."""
    writer = open_output(comm, out, overwrite, run_id, inputs)
    if writer is not None:
        stack.callback(writer.abort)
    return writer


def write_rows(
    comm: Communicator,
    agreement: Agreement,
    writer: "RunFileWriter | None",
    rows: RankRows,
    gathering: Gathering = STRAIGHT,
) -> None:
    """Gather all ranks' rows to rank 0 and write them there (`writer` is None on the other ranks). Collective.

    Each step is agreed on: where rank 0 cannot write, no rank begins the next. Raises KvbenchError on rank 0,
    FailedElsewhere on the others; so does `write_tables`.
    """
    records, requests = _sink(writer, "append_records"), _sink(writer, "append_requests")
    agreement.run("gather", lambda: gather_rows(comm, rows.record_chunks(), RECORD_DTYPE, records, None, gathering))
    agreement.run("gather", lambda: gather_rows(comm, rows.request_chunks(), REQUEST_DTYPE, requests, None, gathering))


def write_tables(
    comm: Communicator,
    agreement: Agreement,
    writer: "RunFileWriter | None",
    tables: Mapping[str, npt.NDArray[np.void]],
    attributes: dict[str, str | int | float],
    merged: Mapping[str, npt.NDArray[np.void]] | None = None,
) -> None:
    """Gather all ranks' rows of each of `tables` to rank 0 and complete the file there. Collective.

    `merged` are tables that rank 0 has already, which are written as they are. `attributes` count on rank 0 only, where
    the end of the measured window (the end of the last measured operation of any rank) is added to them.
    """
    gathered = {name: gather_table(comm, table) for name, table in tables.items()}
    agreement.run("gather", lambda: _finish(writer, gathered | dict(merged or {}), attributes))


def _finish(
    writer: "RunFileWriter | None",
    tables: Mapping[str, npt.NDArray[np.void] | None],
    attributes: dict[str, str | int | float],
) -> None:
    if writer is None:
        return
    end_ns = 0
    for name, table in tables.items():
        assert table is not None, "rank 0 has the writer and the gathered tables"
        if name == "ranks":
            number_rows(table)
            end_ns = max(int(attributes["measure_start_ns"]), int(table["end_ns"].max()))
        writer.write_table(name, as_columns(table))
    writer.set_attributes(attributes | {"kvbench_version": kvbench.__version__, "measure_end_ns": end_ns})
    writer.finish()


def description(config: RunConfig, ranks: int, nodes: int, timer: str) -> dict[str, str | int | float]:
    """The attributes that are known from the configuration and the software."""
    return {
        "config_json": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "timer": timer,
        "ranks": ranks,
        "nodes": nodes,
        "payload": config.payload.kind if config.keeps_bytes else "none",
        "verify": config.payload.verify if config.keeps_bytes else "off",
        "read_path": config.io.read_path,
        "write_path": config.io.write_path,
        "sync": config.io.sync,
        "layout": config.tiers[-1].layout.text,
        "twin": "" if config.twin is None else config.twin.text,
        "pacing": config.pacing.mode,
        "decision_order": _decision_order(config),
        "namespace": config.namespace,
        "roles": config.roles or "",
        "bytes_per_token": config.geometry.bytes_per_token,
        "model": config.model if isinstance(config.model, str) else "custom",
        "qos_classes_json": json.dumps(QOS_CLASSES),
        "compute_model_json": "" if config.compute is None else compute_model(config).to_json(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mpi": mpi_version(),
        "platform": platform.platform(),
    }


def _decision_order(config: RunConfig) -> str:
    if config.namespace == "shared":
        return "exchange"
    # The reference's requests look up what is there when their turn comes, and wait by priority.
    follows = config.pacing.mode == "closed" or config.workload.kind == "reference"
    return "completion" if follows or config.pacing.admission == "priority" else "schedule"


def _sink(writer: "RunFileWriter | None", method: str) -> Any:
    if writer is None:
        return lambda rank, rows: None
    append = getattr(writer, method)
    return lambda rank, rows: append(rows)
