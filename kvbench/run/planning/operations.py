"""The operations of a plan, one by one, for other tools: a Parquet table of all of them, or a job that fio replays.

Decided, and not carried out. In the table a row is an operation on an object as a run would record it, in the order in
which it is decided; in the job are those of the last tier, in one file with a slot for each object.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from kvbench.cache.chains import ChainCache
from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import BlockShape, block_shape, chain_settings
from kvbench.records.schema import Op, label
from kvbench.run.planning.decisions import requests_within, rows_within
from kvbench.workload.chains import Chains
from kvbench.workload.traces import Trace
from kvbench.workload.traces.parquet import table_bytes

_READS: Final = (Op.READ, Op.PROMOTE)
_WRITES: Final = (Op.WRITE, Op.DEMOTE)
_SLAB: Final = "kvbench.slab"


@dataclass(frozen=True, slots=True)
class Operations:
    """Of one rank; n operations, parallel columns."""

    rank: int
    request: "np.ndarray[Any, np.dtype[np.int64]]"
    """Number of the request in the whole trace."""
    arrival_ns: "np.ndarray[Any, np.dtype[np.int64]]"
    """Of that request, by the trace's clock."""
    step: "np.ndarray[Any, np.dtype[np.int64]]"
    """(n, 4) `Op`, key (as int64), source and target tier, -1 for none."""


def operations_of(config: RunConfig, parts: Iterable[Trace], capacities: Iterable[int | None]) -> list[Operations]:
    """All operations of each rank; `parts` are those of `planned.plan`. Takes some 300 bytes of memory for each.

    Ranks that serve together do the same, each with its part of every block.
    """
    settings, shape = chain_settings(config, list(capacities)), block_shape(config)
    made: list[Operations] = []
    for part in parts:
        one = _of_rank(config, len(made), part, ChainCache(settings), shape)
        made += [replace(one, rank=len(made) + member) for member in range(shape.ranks)]
    return made


def _of_rank(config: RunConfig, rank: int, part: Trace, cache: ChainCache, shape: BlockShape) -> Operations:
    chains = Chains(config, part)
    steps: list[tuple[int, int, int, int]] = []
    counts = []
    rows = rows_within(config, part, requests_within(config, part))
    for position, is_prefetch, time_ns in zip(*(column.tolist() for column in rows), strict=True):
        if is_prefetch:
            made = cache.prefetch(chains.session_chain(position).keys, time_ns)
        else:
            chain = chains.chain(position)
            _, made = cache.serve(chain.keys, chain.lookup, chain.stored, time_ns)
        steps += [(op, key, source, target) for op, block, source, target in made for key, _ in shape.objects(block)]
        counts.append(len(made) * shape.parts)
    keys = np.array([step[1] for step in steps], np.uint64).view(np.int64)
    rest = np.array([(op, source, target) for op, _, source, target in steps], np.int64).reshape(-1, 3)
    number, time_ns = (np.repeat(column, counts) for column in (part.number[rows.position], rows.time_ns))
    return Operations(rank, number, time_ns, np.column_stack([rest[:, 0], keys, rest[:, 1], rest[:, 2]]))


def as_parquet(config: RunConfig, ranks: Iterable[Operations]) -> bytes:
    """A table with a row for each operation: rank, request, arrival_ns, operation, key, source_tier, target_tier (-1:
    none), bytes. Raises KvbenchError without pyarrow."""
    ranks = list(ranks)
    step = np.concatenate([one.step for one in ranks])
    names = np.array([label(op) for op in Op])
    return table_bytes(
        {
            "rank": np.concatenate([np.full(len(one.step), one.rank, np.int32) for one in ranks]),
            "request": np.concatenate([one.request for one in ranks]),
            "arrival_ns": np.concatenate([one.arrival_ns for one in ranks]),
            "operation": names[step[:, 0]],
            "key": step[:, 1].view(np.uint64),
            "source_tier": step[:, 2].astype(np.int8),
            "target_tier": step[:, 3].astype(np.int8),
            "bytes": np.full(len(step), block_shape(config).object_bytes, np.int64),
        }
    )


def as_fio(config: RunConfig, ranks: Iterable[Operations], log_name: str) -> tuple[str, dict[str, str]]:
    """A job file of fio, and the logs that it names, by their names: one job and log for each rank, as fast as fio can.

    The log is fio's own, version 2: `file action offset length`. It has the reads and writes of the last tier; an
    object that is deleted frees its slot for the next.
    """
    job = [
        "# The reads and writes of the last tier that kvbench has planned: fio THIS_FILE, in a folder of the storage.",
        "[global]",
        "ioengine=psync",
        "direct=0",
    ]
    logs = {}
    for one in ranks:
        name = f"{log_name}-rank-{one.rank}.iolog"
        job += [f"[rank-{one.rank}]", f"read_iolog={name}"]
        logs[name] = "\n".join(_log(one, len(config.tiers) - 1, block_shape(config).object_bytes)) + "\n"
    return "\n".join(job) + "\n", logs


def _log(operations: Operations, last: int, nbytes: int) -> Iterator[str]:
    file = f"{_SLAB}-{operations.rank}"
    yield "fio version 2 iolog"
    yield f"{file} add"
    yield f"{file} open"
    slots: dict[int, int] = {}
    free: list[int] = []
    rows: list[list[int]] = operations.step.tolist()
    for op, key, source, target in rows:
        if target == last and op in _WRITES:
            slots[key] = free.pop() if free else len(slots)
            yield f"{file} write {slots[key] * nbytes} {nbytes}"
        elif source == last and op in _READS:
            yield f"{file} read {slots[key] * nbytes} {nbytes}"
        if source == last and op in (Op.DELETE, Op.PROMOTE):
            free.append(slots.pop(key))
    yield f"{file} close"
