"""`plan --storage`: the requests of a configuration in simulated time, on a storage that a model describes.

Each draw is a simulation of the whole run: the first with the model's estimates, the others with what its resamples
gave, all with works of their own. Over MPI each rank simulates all ranks, in every so many-th draw.

What travels: the model from rank 0, some hundred KB; the whole trace from rank 0 to each rank, one after the other;
back one sum of some fifty numbers for each draw.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.comm import Communicator
from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.engine.chained import block_shape
from kvbench.errors import KvbenchError
from kvbench.records.schema import MOVING_OPS, Op, Phase, RequestState, label
from kvbench.records.storage_model import (
    STATIONS,
    StorageModel,
    Times,
    read_storage_model,
    sizes_within,
    times_at,
)
from kvbench.run.dealing import deal_trace
from kvbench.run.planning.predicted import PARTS, STATISTICS, Figure, Predicted
from kvbench.run.planning.simulation import Simulated, simulate
from kvbench.units import format_bytes
from kvbench.workload.build import own_part, sessions_part, trace_parts
from kvbench.workload.traces import Trace

DRAWS: Final = 20
_MOST_LOAD: Final = 4096
"""In flight, that times are told for; more is like this."""
_OPS: Final = tuple(label(op) for op in Op)
_SUMS: Final = ("done", "cut_short", "read_per_s", "written_per_s", "busy_ppm", "most")
_READS: Final = ("read", "promote")
_WRITES: Final = ("write", "demote")


@dataclass(frozen=True, slots=True)
class OnStorage:
    """What is to be predicted."""

    path: Path
    """Of the model."""
    draws: int = DRAWS
    extrapolate: bool = False
    """Whether it may be asked for what was not measured."""
    storage_ranks: int | None = None
    """Ranks that share a storage; None: all."""
    export: Callable[[NDArray[Any]], None] | None = None
    """Is given the requests (REQUEST_DTYPE) of the first draw, on rank 0."""


def predict(
    comm: Communicator,
    agreement: Agreement,
    config: RunConfig,
    trace: Trace | None,
    ranks: int,
    capacities: Sequence[int | None],
    order: OnStorage,
) -> Predicted:
    """What `ranks` ranks come to, whose tiers have `capacities` bytes each (None: never full); `trace` is on rank 0.
    The same on every rank. Collective. Raises KvbenchError on rank 0 and FailedElsewhere on the others."""

    def read() -> tuple[str, list[str]]:
        model = read_storage_model(order.path)
        beyond = [*_otherwise(config, model), *_sizes(config, model)]
        _refuse(beyond, order)
        return model.to_bytes().decode(), beyond

    text, beyond = share(comm, agreement.on_first("plan", read))
    model = StorageModel.model_validate(json.loads(text))
    every = trace
    if comm.size > 1 and isinstance(config.workload, TraceWorkload):
        whole = None if trace is None else itertools.repeat(np.arange(len(trace)), comm.size)
        every = deal_trace(comm, agreement, trace, whole)
    storage_ranks = min(ranks, order.storage_ranks or ranks)
    mine = range(comm.rank, order.draws, comm.size)
    width = len(PARTS) * len(STATISTICS) + len(_SUMS) + len(_OPS) + 2 * len(_OPS)
    numbers = np.zeros((order.draws, width), np.int64)

    def simulated() -> None:
        parts, times = _parts(config, every, ranks), _times(config, model, storage_ranks)
        for draw in mine:
            estimate = 0 if draw == 0 or not model.resamples else 1 + (draw - 1) % model.resamples
            rng = np.random.default_rng([config.seed, draw])
            found = simulate(config, parts, capacities, times, estimate, storage_ranks, rng)
            numbers[draw] = _numbers(found)
            if draw == 0 and order.export is not None:
                order.export(found.requests)

    agreement.run("plan", simulated, computes=True)
    summed = np.array(total(comm, *numbers.ravel().tolist()), np.int64).reshape(numbers.shape)
    beyond = [*beyond, *_beyond(model, summed)]
    agreement.on_first("plan", lambda: _refuse(beyond, order), computes=True)
    return _predicted(config, model, order, summed, storage_ranks, tuple(beyond))


def _parts(config: RunConfig, trace: Trace | None, ranks: int) -> list[Trace]:
    """What each rank serves; those that serve together have the same."""
    group = config.tensor_parallel
    if not isinstance(config.workload, TraceWorkload):
        firsts = [sessions_part(config, rank) for rank in range(0, ranks, group)]
    else:
        assert trace is not None
        dealt = trace_parts(trace, config.workload, ranks // group)
        firsts = [own_part(config, part, number) for number, part in enumerate(dealt)]
    return [part for part in firsts for _ in range(group)]


def _times(config: RunConfig, model: StorageModel, storage_ranks: int) -> dict[str, dict[str, Times]]:
    """By station and kind, at the size of this configuration's objects."""
    nbytes = block_shape(config).object_bytes
    threads = config.io.threads * config.depth
    most = {name: min(_MOST_LOAD, threads * (1 if name == "client" else storage_ranks)) for name in STATIONS}
    kinds = sorted({(service.station, service.kind) for service in model.services})
    found: dict[str, dict[str, Times]] = {name: {} for name in STATIONS}
    for station, kind in kinds:
        found[station][kind] = times_at(model.of(station, kind), nbytes, most[station])
    return found


# What was not measured


def _otherwise(config: RunConfig, model: StorageModel) -> list[str]:
    """In what the configuration moves bytes otherwise than the runs that the model comes from."""
    source, last = model.sources[0], config.tiers[-1]
    if config.namespace == "shared" or config.roles is not None:
        raise KvbenchError("--storage: ranks that share a key space, or have roles, are not predicted")
    if last.layout.kind == "bucket":
        raise KvbenchError("--storage: buckets are compacted as they fill, which is not predicted: use another layout")
    pairs = [
        ("tier", model.tier_kind, last.kind),
        ("engine", source.engine, config.io.engine),
        ("read path", source.read_path, config.io.read_path),
        ("write path", source.write_path, config.io.write_path),
        ("sync", source.sync, config.io.sync),
    ]
    if last.facts.layouts:
        pairs.append(("layout", source.layout, last.layout.text))
    return [
        f"{name} {wanted}, where {measured or 'none'} was measured"
        for name, measured, wanted in pairs
        if measured != wanted
    ]


def _sizes(config: RunConfig, model: StorageModel) -> list[str]:
    nbytes = block_shape(config).object_bytes
    found = []
    for op in MOVING_OPS:
        services = model.of("storage", label(op))
        if services and not sizes_within(services, nbytes):
            low, high = (format_bytes(round(services[at].nbytes)) for at in (0, -1))
            measured = low if low == high else f"{low} to {high}"
            found.append(f"{label(op)} of {format_bytes(nbytes)}, where {measured} was measured")
    return found


def _beyond(model: StorageModel, numbers: NDArray[np.int64]) -> list[str]:
    """What the simulations needed and the model has not."""
    highest = numbers.max(axis=0)[len(PARTS) * len(STATISTICS) + len(_SUMS) :].reshape(3, -1)
    found = []
    for at, op in enumerate(_OPS):
        services = model.of("storage", op)
        most = max((service.most for service in services), default=0)
        if highest[0, at] > most and services:
            found.append(f"{op} with {highest[0, at]} in flight, where up to {most} was measured")
        if highest[1, at]:
            found.append(f"{op} on the storage, where none was measured: it takes no time")
        if highest[2, at]:
            found.append(f"{op} in memory, where none was measured: it takes no time")
    return found


def _refuse(beyond: Sequence[str], order: OnStorage) -> None:
    if beyond and not order.extrapolate:
        raise KvbenchError(
            f"{order.path} was not measured for this load, which needs {'; '.join(beyond)}. Fit runs that cover it, "
            "change the configuration, or give --extrapolate, and every figure says so"
        )


# Figures


def _numbers(found: Simulated) -> NDArray[np.int64]:
    """A draw, as whole numbers that can be summed over ranks: times in ns, -1 where there are none."""
    rows = found.requests[found.requests["phase"] == Phase.MEASURE]
    done = rows[(rows["state"] == RequestState.DONE) & (rows["load_ns"] >= 0)]
    columns = {
        "queue": done["start_ns"] - done["intended_ns"],
        "look_up": done["look_up_ns"],
        "load": done["load_ns"],
        "first_token": done["first_token_ns"][done["first_token_ns"] > 0],
    }
    numbers: list[float] = []
    for part in PARTS:
        values = columns[part]
        numbers += [float(values.mean()), *np.percentile(values, [50, 95, 99])] if len(values) else [-1.0] * 4
    seconds = max(1, found.span_ns) / 1e9
    read, written = (sum(found.moved_bytes.get(op, 0) for op in ops) / seconds for ops in (_READS, _WRITES))
    most = [found.most.get(op, 0) for op in _OPS]
    unknown = [int(f"{op} on {name}" in found.unknown) for name in ("storage", "memory") for op in _OPS]
    numbers += [len(done), len(rows) - len(done), read, written, found.busy_share * 1e6, max(most), *most, *unknown]
    return np.rint(numbers).astype(np.int64)


def _predicted(
    config: RunConfig,
    model: StorageModel,
    order: OnStorage,
    numbers: NDArray[np.int64],
    storage_ranks: int,
    beyond: tuple[str, ...],
) -> Predicted:
    times, sums = np.split(numbers, [len(PARTS) * len(STATISTICS)], axis=1)
    by_part = times.reshape(len(numbers), len(PARTS), len(STATISTICS))
    parts = {
        part: {name: Figure.of(by_part[:, at, of] / 1e9) for of, name in enumerate(STATISTICS)}
        for at, part in enumerate(PARTS)
        if (by_part[:, at] >= 0).all() and (part != "first_token" or config.compute is not None)
    }
    figures = dict(zip(_SUMS, sums.T.astype(np.float64), strict=False))
    return Predicted(
        storage=order.path.name,
        model=model,
        draws=order.draws,
        storage_ranks=storage_ranks,
        parts=parts,
        requests=Figure.of(figures["done"]),
        cut_short=Figure.of(figures["cut_short"]),
        read_bytes_per_s=Figure.of(figures["read_per_s"]),
        written_bytes_per_s=Figure.of(figures["written_per_s"]),
        utilisation=Figure.of(figures["busy_ppm"] / 1e6),
        most_in_flight=int(figures["most"].max()),
        extrapolated=beyond,
    )
