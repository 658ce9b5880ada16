"""`plan`: what the requests of all ranks come to, over MPI like a run, or for any number of ranks in one process.

What travels: the configuration and each rank's part of the trace from rank 0, as for a run; back one sum of a few
numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import deal_out, share, total
from kvbench.cluster.comm import Communicator
from kvbench.config.names import CHAIN_POLICIES
from kvbench.config.run_config import RunConfig, TraceWorkload, load_config
from kvbench.engine.chained import block_bytes
from kvbench.engine.prefix_hits import HIT, prefix_kinds
from kvbench.errors import KvbenchError
from kvbench.run.order import tier_names
from kvbench.run.planning.curve import Capacities, Curve, check_capacities, check_sample, curve_of, curve_sums
from kvbench.run.planning.decisions import Decided, decide, requests_within
from kvbench.run.planning.figures import Found, Planned, Sums, TierSums
from kvbench.run.planning.operations import Operations, operations_of
from kvbench.units import format_bytes, storable
from kvbench.workload.build import trace_parts
from kvbench.workload.chains import Chains
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
    capacities: Capacities | None = None,
    policies: Sequence[str] = CHAIN_POLICIES,
    export: Callable[[RunConfig, Sequence[Operations]], None] | None = None,
    rate: float | None = None,
    sample: float | None = None,
) -> Planned:
    """The plan of CONFIG on `ranks` ranks (in one process; under a launcher always the ranks that there are).

    `capacity` is of the last tier, for each rank; None: what the configuration says, and never full where that leaves
    it to the free space of a directory. With `capacities` the plan has a curve over them, for each of `policies`; with
    `sample`, for LRU alone, estimated from samples of that share of the blocks. `rate` (requests/s, all ranks together)
    asks for figures at that rate too. The same on every rank. `export`, in one process alone, is given every operation.
    Collective. Raises KvbenchError on rank 0 and FailedElsewhere on the others.
    """

    def read() -> tuple[RunConfig, Trace]:
        config = load_config(source, overrides)
        if not config.serves_as_engine or not isinstance(config.workload, TraceWorkload):
            raise KvbenchError(
                f"{source}: only requests that are served as an engine does can be planned: a trace, with "
                f"workload.serving=engine; what this configuration needs is said by: kvbench datasize {source}"
            )
        if capacities is not None:
            check_capacities(config, capacities)
        if sample is not None:
            check_sample(config, sample, policies)
        return config, load_trace(config.workload)

    made, trace = agreement.on_first("plan", read, computes=True) or (None, None)
    facts = None
    if made is not None and trace is not None:
        facts = [made.model_dump(mode="json"), trace.digest, storable(trace.source), _span_s(made, trace)]
    content, digest, trace_source, span_s = share(comm, facts)
    config = RunConfig.model_validate(content)
    assert isinstance(config.workload, TraceWorkload)
    alone, size = comm.size == 1, comm.size if comm.size > 1 else ranks or 1
    parts = None if trace is None else trace_parts(trace, config.workload, size)
    mine: Iterable[Trace] = parts or () if alone else [_own_part(comm, parts)]
    if capacities is not None or export is not None:
        mine = list(mine)
    sizes = tier_capacities(config, capacity)
    sums, tiers = agreement.run("plan", lambda: _decided(config, mine, sizes), computes=True)
    if export is not None:
        export(config, operations_of(config, mine, sizes))
    summed = np.array(total(comm, *sums.tolist(), *tiers.ravel().tolist()))
    planned = _planned(config, size, (digest, trace_source, span_s), sizes, summed)
    if capacities is None:
        return replace(planned, rate=rate)
    unlimited = planned.sums.unlimited_hit_blocks
    curve = _curve(comm, agreement, config, mine, sizes[:-1], capacities, policies, unlimited, sample)
    return replace(planned, rate=rate, curve=curve)


def plan_of(config: RunConfig, trace: Trace, ranks: int, capacities: Sequence[int | None]) -> Planned:
    """The plan of a configuration that is served as an engine does it, in this process alone: what `plan` says, for
    tiers of `capacities` bytes of each of `ranks` ranks (None: never full)."""
    assert isinstance(config.workload, TraceWorkload)
    sums, tiers = _decided(config, trace_parts(trace, config.workload, ranks), capacities)
    known = trace.digest, storable(trace.source), _span_s(config, trace)
    return _planned(config, ranks, known, capacities, np.concatenate([sums, tiers.ravel()]))


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
        block_bytes=block_bytes(config),
        sums=sums,
        tiers=tuple(
            TierSums(name, nbytes, sums.prefix[HIT, number], *row)
            for number, (name, nbytes, row) in enumerate(zip(names, capacities, of_tiers, strict=True))
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
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sums over ranks (`_as_sums` says of what), and the rows of their tiers: TierSums from `read_blocks` on."""
    kinds = len(prefix_kinds(len(config.tiers)))
    sums = np.zeros(_SCALARS + 3 * kinds, np.int64)
    tiers = np.zeros((len(config.tiers), 4), np.int64)
    for part in parts:
        chains, requests = Chains(config, part), requests_within(config, part)
        real = decide(config, part, chains, capacities, requests)
        ideal = real if capacities[-1] is None and len(capacities) == 1 else _unlimited(config, part, chains, requests)
        _, unlimited_blocks, unlimited_tokens = ideal.prefix[prefix_kinds(len(config.tiers)).index((HIT, -1))]
        output_tokens = part.output_tokens[:requests].sum(dtype=np.int64)
        full_blocks = chains.full_blocks[:requests].sum()
        sums[:_SCALARS] += (output_tokens, full_blocks, unlimited_blocks, unlimited_tokens)
        sums[_SCALARS:] += real.prefix.ravel()
        tiers += np.stack([real.read, real.written, real.deleted, real.held], axis=1)
    return sums, tiers


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
    return curve_of(summed, capacities, policies, unlimited, not above, sample)


def _own_part(comm: Communicator, parts: Iterator[Trace] | None) -> Trace:
    arrays = None if parts is None else (part.to_arrays() for part in parts)
    return Trace.from_arrays(*deal_out(comm, arrays))


def _span_s(config: RunConfig, trace: Trace) -> float | None:
    requests = requests_within(config, trace)
    if config.pacing.mode != "open" or not requests:
        return None
    return int(trace.arrival_ns[requests - 1]) / 1e9 / config.pacing.speedup
