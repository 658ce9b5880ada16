"""The figures of a plan, and what they come to by request, by second and by day. Decides nothing and prints nothing."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from kvbench.config.run_config import RunConfig
from kvbench.engine.chained import block_shape
from kvbench.engine.prefix_hits import HIT, IN_NO_BLOCK, LOOKED_UP, MISSES
from kvbench.records.endurance import DAY_S, RatedDrives, drive_writes_per_day
from kvbench.run.planning.curve import Curve
from kvbench.run.planning.frontier import Frontier
from kvbench.run.planning.predicted import Predicted


class Found(NamedTuple):
    """Of one kind of what was looked up."""

    requests: int
    """With any such block."""
    blocks: int
    tokens: int
    """Of contexts (prompts)."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of all requests of all ranks; what tiers write is of answers too."""

    output_tokens: int
    full_blocks: int
    """Whole blocks of all contexts, whether the trace names them or not."""
    unlimited_hit_blocks: int
    """Found where no tier is ever full (and all else is the same)."""
    unlimited_hit_tokens: int
    prefix: dict[tuple[str, int], Found]
    """By `engine.prefix_hits.prefix_kinds`: as /prefix of the run file, of all ranks."""

    @property
    def looked_up(self) -> Found:
        """Every request, its blocks, those included that an engine does not ask for behind a gap, and its tokens."""
        return self.prefix[LOOKED_UP, -1]

    @property
    def hit(self) -> Found:
        return self.prefix[HIT, -1]


@dataclass(frozen=True, slots=True)
class TierSums:
    """What was decided of one tier, of all ranks, in blocks of one size."""

    name: str
    capacity_bytes: int | None
    """Per rank; None: never full."""
    storage: bool
    """False: memory, which writing does not wear out."""
    hit: Found
    read_blocks: int
    written_blocks: int
    deleted_blocks: int
    held_blocks: int
    """At the end."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A rate of requests, and what a tier then moves, all ranks together."""

    requests_per_s: float
    read_bytes_per_s: float
    written_bytes_per_s: float
    drive_writes_per_day: float | None
    """How often a drive of the tier's capacity is written full in a day; None where it is never full, and of memory."""

    def as_dict(self) -> dict[str, Any]:
        """As numbers, for JSON."""
        return {
            "requests_per_s": self.requests_per_s,
            "read_bytes_per_s": self.read_bytes_per_s,
            "written_bytes_per_s": self.written_bytes_per_s,
            "written_bytes_per_day": self.written_bytes_per_s * DAY_S,
            "drive_writes_per_day": self.drive_writes_per_day,
        }


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
    frontier: Frontier | None = None
    """Where it was asked for: hits against writes."""
    rated: RatedDrives | None = None
    """What the drives of the last tier are rated for."""
    rate: float | None = None
    """Requests a second, of all ranks together, at which bandwidths are asked for beside the trace's own."""
    bad_lines: int = 0
    """Of the trace, left out with `skip_bad_lines`."""
    first_bad_line: str = ""
    """Where it stands, and what is wrong with it."""
    predicted: Predicted | None = None
    """Where a storage model was given: times, by simulation."""

    @property
    def trace_rate(self) -> float | None:
        """Requests a second of the trace; None where requests do not wait for their time."""
        return self.sums.looked_up.requests / self.span_s if self.span_s else None

    @property
    def asked_rate(self) -> float | None:
        """The rate that was asked for, or else the trace's own."""
        return self.trace_rate if self.rate is None else self.rate

    @property
    def lasting(self) -> dict[str, Any] | None:
        """How long rated drives last under what the last tier is written; None where nobody says what they are rated
        for, or how many requests come."""
        if self.rated is None or self.asked_rate is None or not self.tiers[-1].storage:
            return None
        written = self.pace(self.tiers[-1], self.asked_rate).written_bytes_per_s * DAY_S
        return {"requests_per_s": self.asked_rate, "written_bytes_per_day": written, **self.rated.as_dict(written)}

    def pace(self, tier: TierSums, requests_per_s: float) -> Pace:
        """What `tier` moves where so many requests come a second."""
        share = requests_per_s * self.block_bytes / max(1, self.sums.looked_up.requests)
        written = tier.written_blocks * share
        room = (tier.capacity_bytes or 0) * self.ranks if tier.storage else 0
        full = drive_writes_per_day(written * DAY_S, room)
        return Pace(requests_per_s, tier.read_blocks * share, written, full)

    def as_dict(self) -> dict[str, Any]:
        """Everything as numbers, for JSON."""
        sums = self.sums
        return {
            "name": self.config.name,
            "fingerprint": self.fingerprint,
            "trace": self.source,
            "bad_lines": self.bad_lines,
            "ranks": self.ranks,
            "policy": policy_of(self.config),
            "requests": sums.looked_up.requests,
            "input_tokens": sums.looked_up.tokens,
            "output_tokens": sums.output_tokens,
            "block_tokens": self.config.cache.block_tokens,
            "block_bytes": self.block_bytes,
            "full_blocks": sums.full_blocks,
            "blocks": sums.looked_up.blocks,
            "span_s": self.span_s,
            "requests_per_s": self.trace_rate,
            "prefix": self._prefix(),
            "tiers": [self._tier(tier) for tier in self.tiers],
            **({} if self.curve is None else {"curve": self.curve.as_dict()}),
            **({} if self.frontier is None else {"frontier": self.frontier.as_dict(self.asked_rate, self.rated)}),
            **({} if self.lasting is None else {"endurance": self.lasting}),
            **({} if self.predicted is None else {"predicted": self.predicted.as_dict()}),
        }

    def _prefix(self) -> dict[str, Any]:
        sums, looked_up = self.sums, self.sums.looked_up
        missing = {name.replace("-", "_"): sums.prefix[name, -1] for name in (*MISSES.values(), IN_NO_BLOCK)}
        return {
            "requests_with_hit": sums.hit.requests,
            "hit_blocks": sums.hit.blocks,
            "hit_tokens": sums.hit.tokens,
            "hit_share": _share(sums.hit.tokens, looked_up.tokens),
            "block_hit_share": _share(sums.hit.blocks, looked_up.blocks),
            "request_hit_share": _share(sums.hit.requests, looked_up.requests),
            **{f"{name}_{unit}": number for name, of in missing.items() for unit, number in of._asdict().items()},
            "unlimited_hit_blocks": sums.unlimited_hit_blocks,
            "unlimited_hit_tokens": sums.unlimited_hit_tokens,
            "unlimited_hit_share": _share(sums.unlimited_hit_tokens, looked_up.tokens),
        }

    def _tier(self, tier: TierSums) -> dict[str, Any]:
        size, requests = self.block_bytes, max(1, self.sums.looked_up.requests)
        own = None if self.trace_rate is None else self.pace(tier, self.trace_rate).as_dict()
        rates = ("read_bytes_per_s", "written_bytes_per_s", "written_bytes_per_day", "drive_writes_per_day")
        return {
            "name": tier.name,
            "capacity_bytes_per_rank": tier.capacity_bytes,
            "hit_requests": tier.hit.requests,
            "hit_blocks": tier.hit.blocks,
            "hit_tokens": tier.hit.tokens,
            "hit_share": _share(tier.hit.tokens, self.sums.looked_up.tokens),
            "object_bytes": block_shape(self.config).object_bytes,
            "read_bytes": tier.read_blocks * size,
            "written_bytes": tier.written_blocks * size,
            "deleted_blocks": tier.deleted_blocks,
            "held_bytes": tier.held_blocks * size,
            "read_bytes_per_request": tier.read_blocks * size / requests,
            "written_bytes_per_request": tier.written_blocks * size / requests,
            **{name: None if own is None else own[name] for name in rates},
            **({} if self.rate is None else {"at_rate": self.pace(tier, self.rate).as_dict()}),
        }


def policy_of(config: RunConfig) -> str:
    """The name of the policy that decides chains."""
    return "lru" if config.cache.policy == "waterfall-lru" else config.cache.policy


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
