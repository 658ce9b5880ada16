"""`plan`: what the requests of all ranks come to, over MPI like a run, or for any number of ranks in one process.

What travels: the configuration and each rank's part of the trace from rank 0, as for a run (ranks make sessions
themselves); back one sum of a few numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import highest, share, total
from kvbench.cluster.comm import Communicator
from kvbench.config.load import load_config
from kvbench.config.names import CHAIN_POLICIES
from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.engine.chained import block_bytes
from kvbench.engine.prefix_hits import HIT, prefix_kinds
from kvbench.errors import KvbenchError
from kvbench.records.endurance import RatedDrives, rated_drives
from kvbench.run.checks.promised import check_objectives
from kvbench.run.dealing import deal_trace
from kvbench.run.order import tier_names
from kvbench.run.planning.curve import Capacities, Curve, check_capacities, check_sample, curve_of, curve_sums
from kvbench.run.planning.decisions import Decided, decide, requests_within
from kvbench.run.planning.figures import Found, Planned, Sums, TierSums
from kvbench.run.planning.frontier import (
    Frontier,
    FrontierOrder,
    frontier_of,
    frontier_sums,
    ways_of,
)
from kvbench.run.planning.operations import Operations, operations_of
from kvbench.run.planning.predict import OnStorage, predict
from kvbench.units import format_bytes, storable
from kvbench.workload.build import check_groups, dealt, own_part, sessions_part, trace_parts
from kvbench.workload.chains import Chains
from kvbench.workload.sessions.make import SOURCE
from kvbench.workload.traces import Trace, load_trace


@dataclass(frozen=True, slots=True)
class Capacity:
    """What stands in the place of the capacity of the last tier, for each rank."""

    nbytes: int | None
    """None: it is never full."""
    blocks: int | None = None
    """So many blocks, whatever they take."""

    def of(self, config: RunConfig) -> int | None:
        """In bytes."""
        return self.nbytes if self.blocks is None else self.blocks * block_bytes(config)


def plan(
    comm: Communicator,
    agreement: Agreement,
    source: str,
    overrides: Sequence[str],
    capacity: Capacity | None,
    ranks: int | None = None,
    *,
    capacities: Capacities | None = None,
    policies: Sequence[str] = CHAIN_POLICIES,
    export: Callable[[RunConfig, Sequence[Operations]], None] | None = None,
    rate: float | None = None,
    sample: float | None = None,
    engine: str = "",
    frontier: FrontierOrder | None = None,
    rated: RatedDrives | None = None,
    storage: OnStorage | None = None,
) -> Planned:
    """The plan of CONFIG on `ranks` ranks (in one process; under a launcher always the ranks that there are).

    `capacity` is of the last tier, for each rank; None: what the configuration says, and never full where that leaves
    it to the free space of a directory. With `capacities` the plan has a curve over them, for each of `policies`; with
    `sample`, for LRU alone, estimated from samples of that share of the blocks. `rate` (requests/s, all ranks together)
    asks for figures at that rate too. `engine`: the twin of one, whose blocks count. `frontier` has
    hits against writes decided too, of as many ways as it names. `rated`: the endurance of the drives, in place of that
    of the configuration. With `storage` the run is simulated on it besides. The same on every rank. `export`, in one
    process alone, is given every operation.
    Collective. Raises KvbenchError on rank 0 and FailedElsewhere on the others.
    """

    def read() -> tuple[RunConfig, Trace | None]:
        config = load_config(source, overrides, engine)
        check_objectives(config, source)
        if not config.serves_as_engine:
            raise KvbenchError(
                f"{source}: only requests that are served as an engine does can be planned: sessions, or a trace with "
                f"workload.serving=engine; what this configuration needs is said by: kvbench datasize {source}"
            )
        check_groups(config, comm.size if comm.size > 1 else ranks or 1)
        if capacities is not None:
            check_capacities(config, capacities)
        if sample is not None:
            check_sample(config, sample, policies)
        return config, load_trace(config.workload) if isinstance(config.workload, TraceWorkload) else None

    made, trace = agreement.on_first("plan", read, computes=True) or (None, None)
    facts = None if made is None else [made.model_dump(mode="json"), *_facts_of(trace)]
    content, digest, trace_source, bad_lines, first_bad_line = share(comm, facts)
    config = RunConfig.model_validate(content)
    alone, size = comm.size == 1, comm.size if comm.size > 1 else ranks or 1
    group = config.tensor_parallel
    if alone:
        mine = _all_parts(config, trace, size)
    elif not isinstance(config.workload, TraceWorkload):
        mine = (sessions_part(config, rank) for rank in _first_of_group(comm.rank, group))
    else:
        positions = None if trace is None else dealt(trace, config.workload, size, together=group)
        part = deal_trace(comm, agreement, trace, positions)
        mine = (own_part(config, part, rank // group) for rank in _first_of_group(comm.rank, group))
    if capacities is not None or frontier is not None or export is not None:
        several = mine
        mine = agreement.run("plan", lambda: list(several), computes=True)
    sizes = tier_capacities(config, capacity)
    sums, tiers, last_ns = agreement.run("plan", lambda: _decided(config, mine, sizes), computes=True)
    if export is not None:
        export(config, operations_of(config, mine, sizes))
    summed = np.array(total(comm, *sums.tolist(), *tiers.ravel().tolist()))
    known = digest, trace_source, _span_s(config, highest(comm, last_ns))
    if rated is None and config.drive is not None:
        rated = rated_drives(config.drive.model_dump())
    planned = _planned(config, size, known, sizes, summed)
    planned = replace(planned, rate=rate, bad_lines=bad_lines, first_bad_line=first_bad_line, rated=rated)
    if frontier is not None:
        planned = replace(planned, frontier=_frontier(comm, agreement, planned, mine, sizes, frontier))
    if storage is not None:
        planned = replace(planned, predicted=predict(comm, agreement, config, trace, size, sizes, storage))
    if capacities is None:
        return planned
    unlimited = planned.sums.unlimited_hit_blocks
    curve = _curve(comm, agreement, config, mine, sizes[:-1], capacities, policies, unlimited, sample)
    return replace(planned, curve=curve)


def plan_of(config: RunConfig, trace: Trace | None, ranks: int, capacities: Sequence[int | None]) -> Planned:
    """The plan of a configuration that is served as an engine does it, in this process alone: what `plan` says, for
    tiers of `capacities` bytes of each of `ranks` ranks (None: never full). `trace`: None where ranks make up their
    sessions."""
    sums, tiers, last_ns = _decided(config, _all_parts(config, trace, ranks), capacities)
    digest, source, bad_lines, first_bad_line = _facts_of(trace)
    known = digest, source, _span_s(config, last_ns)
    planned = _planned(config, ranks, known, capacities, np.concatenate([sums, tiers.ravel()]))
    return replace(planned, bad_lines=bad_lines, first_bad_line=first_bad_line)


def _facts_of(trace: Trace | None) -> tuple[str, str, int, str]:
    """Digest, source, bad lines and the first of them; None: of sessions that ranks make up."""
    if trace is None:
        return "", SOURCE, 0, ""
    return trace.digest, storable(trace.source), trace.bad_lines, storable(trace.first_bad_line)


def _all_parts(config: RunConfig, trace: Trace | None, ranks: int) -> Iterable[Trace]:
    """What each rank decides on, one after the other; of ranks that serve together, which decide the same, the first
    stands for all."""
    group = config.tensor_parallel
    if not isinstance(config.workload, TraceWorkload):
        return (sessions_part(config, rank) for rank in range(0, ranks, group))
    assert trace is not None
    parts = trace_parts(trace, config.workload, ranks // group)
    return (own_part(config, part, number) for number, part in enumerate(parts))


def _first_of_group(rank: int, group: int) -> list[int]:
    """The rank itself, if it stands for all that serve with it."""
    return [] if rank % group else [rank]


def _planned(
    config: RunConfig,
    ranks: int,
    known: tuple[str, str, float | None],
    capacities: Sequence[int | None],
    summed: NDArray[np.int64],
) -> Planned:
    """`known` are the trace's digest, source and span; `summed` is what `_decided` gave, over all ranks."""
    digest, source, span_s = known
    of_tiers: list[list[int]] = summed[-4 * len(config.tiers) :].reshape(-1, 4).tolist()
    sums = _as_sums(summed[: -4 * len(config.tiers)], len(config.tiers))
    names = tier_names([tier.kind for tier in config.tiers])
    return Planned(
        config=config,
        ranks=ranks,
        fingerprint=config.fingerprint(ranks, digest),
        source=source,
        span_s=span_s,
        block_bytes=block_bytes(config) * config.tensor_parallel,
        sums=sums,
        tiers=tuple(
            TierSums(name, nbytes, tier.facts.storage, sums.prefix[HIT, number], *row)
            for number, (name, nbytes, tier, row) in enumerate(
                zip(names, capacities, config.tiers, of_tiers, strict=True)
            )
        ),
    )


def tier_capacities(config: RunConfig, capacity: Capacity | None) -> tuple[int | None, ...]:
    """Bytes of each tier of a rank, fastest first; None: never full."""
    sizes = [None if tier.usable_bytes == "auto" else tier.usable_bytes for tier in config.tiers]
    if capacity is not None:
        sizes[-1] = capacity.of(config)
    if sizes[-1] is not None and sizes[-1] < block_bytes(config) and not any(sizes[:-1]):
        raise KvbenchError(
            f"a capacity of {format_bytes(sizes[-1])} holds no block, which takes {format_bytes(block_bytes(config))} "
            f"({config.cache.block_tokens} tokens): give more, or a smaller model or cache.block_tokens"
        )
    return tuple(sizes)


_SCALARS = 4
"""Numbers of `_decided` before the rows of prefixes: output tokens, full blocks, and hits where no tier is full."""


def _decided(
    config: RunConfig, parts: Iterable[Trace], capacities: Sequence[int | None]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The sums over ranks (`_as_sums` says of what), the rows of their tiers (TierSums from `read_blocks` on), and the
    last arrival (ns)."""
    last_ns = 0
    kinds = len(prefix_kinds(len(config.tiers)))
    sums = np.zeros(_SCALARS + 3 * kinds, np.int64)
    tiers = np.zeros((len(config.tiers), 4), np.int64)
    for part in parts:
        chains, requests = Chains(config, part), requests_within(config, part)
        real = decide(config, part, chains, capacities, requests)
        ideal = real if _is_unlimited(config, capacities) else _unlimited(config, part, chains, requests)
        _, unlimited_blocks, unlimited_tokens = ideal.prefix[prefix_kinds(len(config.tiers)).index((HIT, -1))]
        output_tokens = part.output_tokens[:requests].sum(dtype=np.int64)
        full_blocks = chains.full_blocks[:requests].sum()
        sums[:_SCALARS] += (output_tokens, full_blocks, unlimited_blocks, unlimited_tokens)
        sums[_SCALARS:] += real.prefix.ravel()
        tiers += np.stack([real.read, real.written, real.deleted, real.held], axis=1)
        last_ns = max(last_ns, int(part.arrival_ns[requests - 1]) if requests else 0)
    return sums, tiers, last_ns


def _is_unlimited(config: RunConfig, capacities: Sequence[int | None]) -> bool:
    return list(capacities) == [None] and config.cache.admission == "always" and config.cache.ttl_s is None


def _as_sums(numbers: NDArray[np.int64], tiers: int) -> Sums:
    rows: list[list[int]] = numbers[_SCALARS:].reshape(-1, 3).tolist()
    prefix = {kind: Found(*row) for kind, row in zip(prefix_kinds(tiers), rows, strict=True)}
    output_tokens, full_blocks, unlimited_blocks, unlimited_tokens = numbers[:_SCALARS].tolist()
    return Sums(output_tokens, full_blocks, unlimited_blocks, unlimited_tokens, prefix)


def _unlimited(config: RunConfig, part: Trace, chains: Chains, requests: int) -> Decided:
    """The same requests where nothing is ever pushed out, refused or too old."""
    plain = config.model_copy(update={"cache": config.cache.model_copy(update={"admission": "always", "ttl_s": None})})
    return decide(plain, part, chains, [None] * len(config.tiers), requests)


def _curve(
    comm: Communicator,
    agreement: Agreement,
    config: RunConfig,
    parts: Iterable[Trace],
    above: Sequence[int | None],
    capacities: Capacities,
    policies: Sequence[str],
    unlimited: int,
    sample: float | None,
) -> Curve:
    sums = agreement.run("plan", lambda: curve_sums(config, parts, above, capacities, policies, sample), computes=True)
    summed = np.array(total(comm, *sums.ravel().tolist())).reshape(sums.shape)
    return curve_of(summed, capacities, policies, unlimited, sample)


def _frontier(
    comm: Communicator,
    agreement: Agreement,
    planned: Planned,
    parts: Iterable[Trace],
    sizes: Sequence[int | None],
    order: FrontierOrder,
) -> Frontier:
    config = planned.config
    ways = ways_of(config, order, sizes[-1])
    sums = agreement.run("plan", lambda: frontier_sums(config, parts, sizes[:-1], ways), computes=True)
    summed = np.array(total(comm, *sums.ravel().tolist())).reshape(sums.shape)
    of = planned.sums.looked_up
    return frontier_of(config, ways, summed, of.blocks, of.requests, planned.ranks)


def _span_s(config: RunConfig, last_ns: int) -> float | None:
    return None if config.pacing.mode == "asap" else last_ns / 1e9 / config.pacing.speedup or None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
