"""`plan`: what the requests of all ranks come to, over MPI like a run, or for any number of ranks in one process.

What travels: the configuration and each rank's part of the trace from rank 0, as for a run (ranks make sessions
themselves); back one sum of a few numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import highest, share, total
from kvbench.cluster.comm import Communicator
from kvbench.config.load import load_config
from kvbench.config.names import CHAIN_POLICIES
from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.engine.chained import block_bytes
from kvbench.errors import KvbenchError
from kvbench.run.dealing import deal_trace
from kvbench.run.order import tier_names
from kvbench.run.planning.curve import Capacities, Curve, check_capacities, curve_of, curve_sums
from kvbench.run.planning.decisions import Decided, decide, requests_within
from kvbench.run.planning.operations import Operations, operations_of
from kvbench.units import format_bytes, storable
from kvbench.workload.build import check_groups, dealt, own_part, sessions_part, trace_parts
from kvbench.workload.chains import Chains
from kvbench.workload.sessions.make import SOURCE
from kvbench.workload.traces import Trace, load_trace

_DAY_S: Final = 86_400


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


@dataclass(frozen=True, slots=True)
class Sums:
    """Of all requests of all ranks. Blocks and tokens are those of contexts (prompts), which alone are looked up; what
    tiers write is of answers too."""

    requests: int = 0
    requests_with_hit: int = 0
    """Of which at least one block was found."""
    input_tokens: int = 0
    output_tokens: int = 0
    full_blocks: int = 0
    """Whole blocks of all contexts, whether the trace names them or not."""
    blocks: int = 0
    """Blocks that were looked up, those included that an engine does not ask for any more behind a gap."""
    hit_blocks: int = 0
    """Found, from the first of a context up to the first that was missing."""
    hit_tokens: int = 0
    never_seen_blocks: int = 0
    """Missing, and in no request of the rank before."""
    behind_gap_blocks: int = 0
    """On a tier, but of no use, since one before it was missing."""
    ideal_hit_blocks: int = 0
    """Found where no tier is ever full (and all else is the same)."""
    ideal_hit_tokens: int = 0

    @property
    def evicted_blocks(self) -> int:
        """Missing, though a request before asked for it."""
        return self.blocks - self.hit_blocks - self.never_seen_blocks - self.behind_gap_blocks


@dataclass(frozen=True, slots=True)
class TierSums:
    """What was decided of one tier, of all ranks, in blocks of one size."""

    name: str
    capacity_bytes: int | None
    """Per rank; None: never full."""
    hit_blocks: int
    read_blocks: int
    written_blocks: int
    deleted_blocks: int
    held_blocks: int
    """At the end."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of a run."""

    config: RunConfig
    ranks: int
    fingerprint: str
    source: str
    """Of the trace."""
    span_s: float | None
    """From the start to the arrival of the last request; None where requests do not wait for their time."""
    block_bytes: int
    sums: Sums
    tiers: tuple[TierSums, ...]
    curve: Curve | None = None
    """Where capacities were given: hits against them."""

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, for JSON."""
        sums, size = self.sums, self.block_bytes
        span = self.span_s or None
        return {
            "name": self.config.name,
            "fingerprint": self.fingerprint,
            "trace": self.source,
            "ranks": self.ranks,
            "policy": policy_of(self.config),
            "requests": sums.requests,
            "input_tokens": sums.input_tokens,
            "output_tokens": sums.output_tokens,
            "block_tokens": self.config.cache.block_tokens,
            "block_bytes": size,
            "full_blocks": sums.full_blocks,
            "blocks": sums.blocks,
            "span_s": self.span_s,
            "prefix": {
                "requests_with_hit": sums.requests_with_hit,
                "hit_blocks": sums.hit_blocks,
                "hit_tokens": sums.hit_tokens,
                "hit_share": _share(sums.hit_tokens, sums.input_tokens),
                "block_hit_share": _share(sums.hit_blocks, sums.blocks),
                "never_seen_blocks": sums.never_seen_blocks,
                "evicted_blocks": sums.evicted_blocks,
                "behind_gap_blocks": sums.behind_gap_blocks,
                "unlimited_hit_blocks": sums.ideal_hit_blocks,
                "unlimited_hit_tokens": sums.ideal_hit_tokens,
                "unlimited_hit_share": _share(sums.ideal_hit_tokens, sums.input_tokens),
            },
            "tiers": [
                {
                    "name": tier.name,
                    "capacity_bytes_per_rank": tier.capacity_bytes,
                    "hit_blocks": tier.hit_blocks,
                    "read_bytes": tier.read_blocks * size,
                    "written_bytes": tier.written_blocks * size,
                    "deleted_blocks": tier.deleted_blocks,
                    "held_bytes": tier.held_blocks * size,
                    "read_bytes_per_request": tier.read_blocks * size / max(1, sums.requests),
                    "written_bytes_per_request": tier.written_blocks * size / max(1, sums.requests),
                    "read_bytes_per_s": None if span is None else tier.read_blocks * size / span,
                    "written_bytes_per_s": None if span is None else tier.written_blocks * size / span,
                    "written_bytes_per_day": None if span is None else tier.written_blocks * size / span * _DAY_S,
                    "drive_writes_per_day": self.drive_writes_per_day(tier),
                }
                for tier in self.tiers
            ],
            **({} if self.curve is None else {"curve": self.curve.as_dict()}),
        }

    def drive_writes_per_day(self, tier: TierSums) -> float | None:
        """How often a drive of the tier's capacity is written full in a day; None where either is open."""
        if not self.span_s or not tier.capacity_bytes:
            return None
        return tier.written_blocks * self.block_bytes / self.span_s * _DAY_S / (tier.capacity_bytes * self.ranks)


def policy_of(config: RunConfig) -> str:
    """The name of the policy that decides chains."""
    return "lru" if config.cache.policy == "waterfall-lru" else config.cache.policy


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
) -> Planned:
    """The plan of CONFIG on `ranks` ranks (in one process; under a launcher always the ranks that there are).

    `capacity` is of the last tier, for each rank; None: what the configuration says, and never full where that leaves
    it to the free space of a directory. With `capacities` the plan has a curve over them, for each of `policies`. The
    same on every rank. `export`, in one process alone, is given every operation. Collective. Raises KvbenchError on
    rank 0 and FailedElsewhere on the others.
    """

    def read() -> tuple[RunConfig, Trace | None]:
        config = load_config(source, overrides)
        if not config.serves_as_engine:
            raise KvbenchError(
                f"{source}: only requests that are served as an engine does can be planned: sessions, or a trace with "
                "workload.serving=engine (`kvbench datasize` says what any configuration needs)"
            )
        check_groups(config, comm.size if comm.size > 1 else ranks or 1)
        if capacities is not None:
            check_capacities(config, capacities)
        return config, load_trace(config.workload) if isinstance(config.workload, TraceWorkload) else None

    made, trace = agreement.on_first("plan", read, computes=True) or (None, None)
    facts = None
    if made is not None:
        of_trace = ("", SOURCE) if trace is None else (trace.digest, storable(trace.source))
        facts = [made.model_dump(mode="json"), *of_trace]
    content, digest, trace_source = share(comm, facts)
    config = RunConfig.model_validate(content)
    alone, size = comm.size == 1, comm.size if comm.size > 1 else ranks or 1
    # Of ranks that serve together, which decide the same, the first stands for all.
    group = config.tensor_parallel
    mine: Iterable[Trace]
    if not isinstance(config.workload, TraceWorkload):
        mine = (sessions_part(config, n) for n in (range(size) if alone else [comm.rank]) if n % group == 0)
    elif trace is not None and alone:
        parts = enumerate(trace_parts(trace, config.workload, size // group))
        mine = (own_part(config, part, number) for number, part in parts)
    else:
        positions = None if trace is None else dealt(trace, config.workload, size, together=group)
        part = deal_trace(comm, agreement, trace, positions)
        mine = (own_part(config, one, comm.rank // group) for one in ([] if comm.rank % group else [part]))
    if capacities is not None or export is not None:
        several = mine
        mine = agreement.run("plan", lambda: list(several), computes=True)
    sizes = tier_capacities(config, capacity)
    sums, tiers, last_ns = agreement.run("plan", lambda: _decided(config, mine, sizes), computes=True)
    if export is not None:
        export(config, operations_of(config, mine, sizes))
    summed = total(comm, *(getattr(sums, field.name) for field in fields(sums)), *tiers.ravel().tolist())
    count = len(fields(sums))
    in_all = Sums(*summed[:count])
    curve = None
    if capacities is not None:
        unlimited = in_all.ideal_hit_blocks
        curve = _curve(comm, agreement, config, mine, sizes[:-1], capacities, policies, unlimited)
    of_tiers: list[list[int]] = np.array(summed[count:]).reshape(tiers.shape).tolist()
    return Planned(
        config=config,
        ranks=size,
        fingerprint=config.fingerprint(size, digest),
        source=trace_source,
        span_s=_span_s(config, highest(comm, last_ns)),
        block_bytes=block_bytes(config) * group,
        sums=in_all,
        tiers=tuple(
            TierSums(name, nbytes, *row)
            for name, nbytes, row in zip(tier_names([tier.kind for tier in config.tiers]), sizes, of_tiers, strict=True)
        ),
        curve=curve,
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


def _decided(
    config: RunConfig, parts: Iterable[Trace], capacities: Sequence[int | None]
) -> tuple[Sums, NDArray[np.int64], int]:
    """The sums over ranks, the rows of their tiers (TierSums without names and capacities), the last arrival (ns)."""
    last_ns = 0
    sums = {field.name: 0 for field in fields(Sums)}
    tiers = np.zeros((len(config.tiers), 5), np.int64)
    for part in parts:
        chains, requests = Chains(config, part), requests_within(config, part)
        real = decide(config, part, chains, capacities, requests)
        ideal = real if _is_unlimited(config, capacities) else _unlimited(config, part, chains, requests)
        tokens = part.context_tokens[:requests].astype(np.int64)
        looked_up = chains.lookups[:requests]
        for name, value in (
            ("requests", requests),
            ("requests_with_hit", np.count_nonzero(real.found_by_request)),
            ("input_tokens", tokens.sum()),
            ("output_tokens", part.output_tokens[:requests].sum(dtype=np.int64)),
            ("full_blocks", chains.full_blocks[:requests].sum()),
            ("blocks", looked_up.sum()),
            ("hit_blocks", real.found_by_request.sum()),
            ("hit_tokens", np.minimum(real.found_by_request * chains.block_tokens, tokens).sum()),
            ("never_seen_blocks", looked_up.sum() - ideal.found_by_request.sum() - ideal.behind_gap),
            ("behind_gap_blocks", real.behind_gap),
            ("ideal_hit_blocks", ideal.found_by_request.sum()),
            ("ideal_hit_tokens", np.minimum(ideal.found_by_request * chains.block_tokens, tokens).sum()),
        ):
            sums[name] += int(value)
        tiers += np.stack([real.found, real.read, real.written, real.deleted, real.held], axis=1)
        last_ns = max(last_ns, int(part.arrival_ns[requests - 1]) if requests else 0)
    return Sums(**sums), tiers, last_ns


def _is_unlimited(config: RunConfig, capacities: Sequence[int | None]) -> bool:
    return list(capacities) == [None] and config.cache.admission == "always" and config.cache.ttl_s is None


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
) -> Curve:
    sums = agreement.run("plan", lambda: curve_sums(config, parts, above, capacities, policies), computes=True)
    summed = np.array(total(comm, *sums.ravel().tolist())).reshape(sums.shape)
    return curve_of(summed, capacities, policies, unlimited, optimum=not above)


def _span_s(config: RunConfig, last_ns: int) -> float | None:
    return None if config.pacing.mode == "asap" else last_ns / 1e9 / config.pacing.speedup or None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
