"""One typed description of a run: its sections with every default, once, and the run's fingerprint.

The directory under test, the output file and the hosts are not part of it: they say where a run happened, not what it
did. Reading files and overrides is in `source`, wording what is wrong with them in `errors`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from kvbench.config.errors import explain
from kvbench.config.models import ModelGeometry, shipped_model
from kvbench.config.names import CACHE_POLICIES, CHAIN_POLICIES, TIER_KINDS, TierKind
from kvbench.config.roles import Roles
from kvbench.config.sessions import SessionsWorkload
from kvbench.config.source import apply_override, read_mapping, shipped_configs
from kvbench.config.types import Bytes, BytesOrAuto, Count, Factor, Model, Number, PolicyName, Seconds, TierKindName
from kvbench.config.workload import PersonaWorkload, ReferenceWorkload, Section, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.units import MIB, SECTOR_BYTES, SEGMENT_BYTES, format_bytes

__all__ = [
    "CachePolicy",
    "Calibration",
    "Io",
    "Pacing",
    "PayloadSection",
    "PersonaWorkload",
    "ReferenceWorkload",
    "RunConfig",
    "SessionsWorkload",
    "TierSection",
    "TraceWorkload",
    "load_config",
    "parse_config",
    "shipped_configs",
]

SCHEDULE_VERSION: Final = 1
"""Raised whenever the same configuration would give other requests than before; part of the fingerprint."""

_CHOICES: Final = ("workload", "tiers")
"""Keys of which a configuration has one at least."""

ReadPath = Literal["double-copy", "numpy", "buffered", "mmap-touch", "mmap-copy", "direct"]
WritePath = Literal["buffered", "direct"]


class Pacing(Section):
    """When requests start: after think times, at arrival times, or as fast as possible."""

    mode: Literal["closed", "open", "asap"] = "closed"
    speedup: Factor = Field(default=1.0, gt=0)
    """Open loop: the trace's time runs this many times faster."""
    requests_per_s: Factor | None = Field(default=None, gt=0)
    """Open loop with personas: Poisson arrivals per second and rank."""
    admission: Literal["arrival", "priority"] = "arrival"
    """Open loop: of the requests that wait for a place, the first to come goes first, or the higher QoS class."""


class CachePolicy(Section):
    """Where blocks are placed and in what pieces they are stored."""

    policy: PolicyName = "waterfall-lru"
    """What leaves a tier that is full. For requests that are served as an engine does one of CHAIN_POLICIES, of which
    `waterfall-lru` is `lru`."""
    promote_on_hit: bool = False
    """Move an entry to the fastest tier when it is read from a slower one."""
    layout: Literal["entry", "block"] = "entry"
    """One object per entry, or one per block of `block_tokens` tokens with prefix sharing. Requests that are served as
    an engine does it have blocks, whatever stands here."""
    block_tokens: Count = Field(default=512, ge=1)
    write: Literal["write-back", "write-through"] = "write-back"
    """Engine: a new block goes to the last tier when it is pushed out of those above, or at once."""
    admission: Literal["always", "second-use"] = "always"
    """Engine: what the last tier takes: every block, or one from the second request on that asks for it."""
    min_prefix_tokens: Count = Field(default=0, ge=0)
    """Engine: nothing is kept of a request with a shorter context."""
    partial_blocks: Literal["keep", "drop"] = "keep"
    """Engine: whether the last block of a context is kept where it is not full (and the trace has a name for it). It
    takes the room of a whole one."""
    store_answers: bool = True
    """Engine: whether the blocks of answers are kept, where the trace has names for them."""
    ttl_s: Seconds | None = Field(default=None, gt=0)
    """Engine: a block that no request has asked for so long is gone (in the time of the trace); null: never."""


_ENGINE_ALONE: Final = ("write", "admission", "min_prefix_tokens", "partial_blocks", "store_answers", "ttl_s")
"""What of the cache is for requests that are served as an engine does."""


class TierSection(Section):
    """One level of the cache, listed from the fastest to the slowest."""

    kind: TierKindName
    capacity_bytes: BytesOrAuto = "auto"
    """Per rank. `auto` (file): 95 % of the free space, divided among the ranks that share the filesystem."""
    fill: Number = Field(default=1.0, gt=0, le=1)
    """Share of a memory tier's capacity that is filled (the reference fills 0.8)."""

    @field_validator("kind", mode="before")
    @classmethod
    def _null_is_a_name_here(cls, value: object) -> object:
        # Without quotes, null is YAML's word for no value.
        return "null" if value is None else value

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if not self.facts.has_target and self.capacity_bytes == "auto":
            raise ValueError(f"a {self.kind} tier needs capacity_bytes, per rank, such as 4GiB")
        if self.facts.storage and self.fill != 1:
            raise ValueError(f"fill is for memory tiers; set capacity_bytes of the {self.kind} tier")
        return self

    @property
    def facts(self) -> TierKind:
        """What is true of every tier of its kind."""
        return TIER_KINDS[self.kind]

    @property
    def usable_bytes(self) -> int | Literal["auto"]:
        """What is filled of `capacity_bytes`."""
        return self.capacity_bytes if self.capacity_bytes == "auto" else int(self.capacity_bytes * self.fill)


class Io(Section):
    """How bytes move."""

    read_path: ReadPath = "buffered"
    write_path: WritePath = "buffered"
    io_bytes: Bytes = MIB
    """Most bytes that one system call moves: a power of two from 4 KiB to 4 MiB."""
    threads: Count = Field(default=16, ge=1, le=1024)
    """Operations that a rank has in flight at most."""
    max_concurrent_allocs: Count = Field(default=16, ge=0)
    """Writes of new entries that a rank has in flight at most; 0 for no limit."""
    arena_bytes: BytesOrAuto = "auto"
    """Memory that reads land in and writes stream from, per rank. `auto`: four times the node's last-level cache,
    shared among its ranks, at least 256 MiB, and at least 4 MiB for each thread."""
    drop_page_cache: bool = True
    """Drop an object from the page cache before it is read, outside the timed span."""

    @field_validator("io_bytes")
    @classmethod
    def _divides_a_segment(cls, value: int) -> int:
        if value < SECTOR_BYTES or SEGMENT_BYTES % value:
            raise ValueError("expected a power of two from 4KiB to 4MiB")
        return value

    @model_validator(mode="after")
    def _every_thread_has_a_segment(self) -> Self:
        needed = self.threads * SEGMENT_BYTES
        if self.arena_bytes != "auto" and self.arena_bytes < needed:
            raise ValueError(
                f"io.arena_bytes: {self.threads} threads need an arena of at least {format_bytes(needed)}"
                f" ({format_bytes(SEGMENT_BYTES)} each); it is {format_bytes(self.arena_bytes)}"
            )
        return self


class PayloadSection(Section):
    """What is written, and how much of what is read back is checked."""

    kind: Literal["stamped", "unique"] = "stamped"
    verify: Literal["sampled", "full"] = "sampled"


class Calibration(Section):
    """Bandwidth of memory copies and of the storage, measured before the run."""

    seconds: Seconds = Field(default=0.2, ge=0, le=60)
    """For each measurement, per rank; 0 leaves calibration out."""
    bytes: Bytes = Field(default=64 * MIB, ge=MIB, multiple_of=SECTOR_BYTES)
    """Size of the file that is read."""


class RunConfig(Section):
    """Everything that decides what a run does."""

    name: str = "run"
    """A label, not part of the fingerprint."""
    seed: Count = Field(default=42, ge=0, lt=2**32)
    """Rank r uses seed + r."""
    model: Model = "llama3.1-8b"
    workload: Annotated[
        PersonaWorkload | ReferenceWorkload | TraceWorkload | SessionsWorkload, Field(discriminator="kind")
    ] = PersonaWorkload()
    pacing: Pacing = Pacing()
    cache: CachePolicy = CachePolicy()
    tiers: tuple[TierSection, ...] = (TierSection(kind="file"),)
    io: Io = Io()
    payload: PayloadSection = PayloadSection()
    calibration: Calibration = Calibration()
    namespace: Literal["private", "shared"] = "private"
    """`shared`: a rank reads from the shared storage what any other rank wrote there."""
    roles: str | None = None
    """`prefill=0-3,decode=4-7`: prefill ranks write, decode ranks read what they wrote (disaggregated serving)."""
    duration_s: Seconds | None = Field(default=60.0, gt=0)
    """Seconds of the measured phase; null (traces only): until the trace ends."""
    warmup_s: Seconds = 0.0
    """Seconds of the same load before the measured phase."""
    records: Literal["full", "sampled", "histogram"] = "full"
    """What the run file holds: every row; a uniform sample of them and exact sums; the same and histograms of all rows.
    Not part of the fingerprint."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        if not self.tiers:
            raise ValueError("tiers: at least one tier is needed")
        if any(tier.facts.storage for tier in self.tiers[:-1]):
            raise ValueError("tiers: storage must be the last tier, below the memory tiers")
        trace = isinstance(self.workload, TraceWorkload | SessionsWorkload)
        requests = "a trace is" if isinstance(self.workload, TraceWorkload) else "what sessions ask for is"
        if trace and self.pacing.mode == "closed":
            raise ValueError(f"pacing.mode: {requests} replayed `open` (at its arrival times) or `asap`, not `closed`")
        if trace and self.pacing.requests_per_s is not None:
            raise ValueError("pacing.requests_per_s: a trace has its own arrival times; use pacing.speedup")
        if self.pacing.mode != "open" and self.pacing.requests_per_s is not None:
            raise ValueError("pacing.requests_per_s: only open loop has an arrival rate; set pacing.mode to open")
        if isinstance(self.workload, ReferenceWorkload):
            self._reference_fits()
        elif not trace and self.pacing.mode == "open" and self.pacing.requests_per_s is None:
            raise ValueError("pacing.requests_per_s: open loop with personas needs the arrival rate per rank")
        self._serving_fits()
        self._modelled_fits()
        if self.pacing.admission == "priority" and self.pacing.mode != "open":
            raise ValueError(
                "pacing.admission: only in open loop do requests wait by priority; set pacing.mode to open"
            )
        if isinstance(self.workload, SessionsWorkload):
            if self.duration_s is None and self.workload.span_s is None:
                raise ValueError("workload.span_s: sessions have no end where duration_s is null; give one of them")
        elif self.duration_s is None and not trace:
            raise ValueError("duration_s: personas never end; give the seconds to measure")
        return self

    @property
    def serves_as_engine(self) -> bool:
        """Whether requests do what those of a serving engine do, and not what the reference's do."""
        if isinstance(self.workload, SessionsWorkload):
            return True
        return isinstance(self.workload, TraceWorkload) and self.workload.serving == "engine"

    def _serving_fits(self) -> None:
        """Raises ValueError where the cache is told what its requests know nothing of."""
        policy, defaults = self.cache.policy, CachePolicy()
        if not self.serves_as_engine:
            if policy not in CACHE_POLICIES:
                raise ValueError(
                    f"cache.policy: {policy} is for requests that are served as an engine does (a trace, with "
                    "workload.serving=engine)"
                )
            for name in _ENGINE_ALONE:
                if getattr(self.cache, name) != getattr(defaults, name):
                    raise ValueError(
                        f"cache.{name}: only requests that are served as an engine does heed it (a trace, with "
                        "workload.serving=engine)"
                    )
            return
        if policy not in CHAIN_POLICIES and policy != defaults.policy:
            raise ValueError(
                f"cache.policy: {policy} does not know chains of blocks: use one of {', '.join(CHAIN_POLICIES)}, or "
                "workload.serving=reference"
            )
        if self.namespace != "private" or self.roles is not None:
            raise ValueError(
                "namespace: ranks do not share blocks of an engine yet: use private, or workload.serving=reference"
            )
        if self.workload.mode != "prefill-decode":
            raise ValueError(
                f"workload.mode: an engine does prefill and decode; {self.workload.mode} needs "
                "workload.serving=reference"
            )

    def _modelled_fits(self) -> None:
        """Raises ValueError where a modelled tier stands where it cannot."""
        modelled = [number for number, tier in enumerate(self.tiers) if tier.facts.modelled]
        if not modelled:
            return
        kind = self.tiers[modelled[0]].kind
        if not self.serves_as_engine:
            raise ValueError(
                f"tiers: a {kind} tier is for requests that are served as an engine does (a trace, with "
                "workload.serving=engine)"
            )
        if modelled != [0] or len(self.tiers) == 1:
            raise ValueError(f"tiers: a {kind} tier is modelled: it is the first, above one that is really there")
        if self.tiers[0].fill != 1:
            raise ValueError(f"fill is for memory tiers; set capacity_bytes of the {kind} tier")

    def _reference_fits(self) -> None:
        """Raises ValueError where the reference's users are asked for something that they do not do."""
        if self.pacing.mode != "open" or self.pacing.requests_per_s is not None or self.pacing.speedup != 1:
            raise ValueError(
                "pacing: users of the reference workload send requests at their own times, whether or not they are "
                "answered: set pacing.mode to open, without requests_per_s and speedup"
            )
        if self.cache.layout != "entry":
            raise ValueError("cache.layout: the reference workload keeps one object per entry; set it to entry")
        if self.namespace != "private" or self.roles is not None:
            raise ValueError("namespace: users of the reference workload share nothing between ranks; use private")

    @model_validator(mode="after")
    def _sharing_is_possible(self) -> Self:
        if self.namespace == "shared" and not self.tiers[-1].facts.shared:
            raise ValueError("namespace: ranks share objects in files; shared needs a file tier")
        if self.namespace == "shared" and self.cache.promote_on_hit:
            raise ValueError(
                "cache.promote_on_hit: a promotion takes the object away from the other ranks; leave it out where "
                "namespace is shared"
            )
        if self.roles is None:
            return self
        try:
            Roles.parse(self.roles)
        except ValueError as error:
            raise ValueError(f"roles: {error}") from error
        if self.namespace != "shared":
            raise ValueError("roles: decode ranks read what others wrote; set namespace to shared")
        if len(self.tiers) > 1:
            raise ValueError("roles: what lies in a rank's memory cannot be handed over; use the file tier alone")
        if self.workload.mode != "prefill-decode":
            raise ValueError("roles: workload.mode must be prefill-decode, which the roles divide")
        return self

    @property
    def role_ranks(self) -> Roles | None:
        """The ranks of each role; None where ranks have none."""
        return None if self.roles is None else Roles.parse(self.roles)

    @property
    def geometry(self) -> ModelGeometry:
        """The model's geometry, looked up where it was given by name."""
        return shipped_model(self.model) if isinstance(self.model, str) else self.model

    @property
    def has_target(self) -> bool:
        """Whether objects are kept at a place under test, which must be given."""
        return self.tiers[-1].facts.has_target

    @property
    def keeps_bytes(self) -> bool:
        """Whether what is read can be compared with what was written."""
        return self.tiers[-1].facts.keeps_bytes

    def fingerprint(self, ranks: int, trace_digest: str = "") -> str:
        """16 hex digits over everything that decides what work is done; equal on every machine.

        `ranks` is the number of ranks, `trace_digest` the digest of the trace's content (its path does not count).
        """
        content = self.model_dump(mode="json", exclude={"name", "records"})
        content["model"] = self.geometry.model_dump(mode="json")
        if "path" in content["workload"]:
            content["workload"]["path"] = trace_digest
        if self.namespace == "private":
            # Runs in which ranks share nothing are the same work as before there was a choice.
            del content["namespace"], content["roles"]
        if self.pacing.admission == "arrival":
            del content["pacing"]["admission"]
        if not self.serves_as_engine:
            # Neither is what was the only way to serve a request.
            content["workload"].pop("serving", None)
            for name in _ENGINE_ALONE:
                del content["cache"][name]
        elif self.cache.store_answers:
            # What is asked for without answers is the same as before there were any.
            del content["cache"]["store_answers"]
        for tier, described in zip(self.tiers, content["tiers"], strict=True):
            if tier.fill == 1:
                del described["fill"]
        content["ranks"] = ranks
        content["schedule_version"] = SCHEDULE_VERSION
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_config(source: str, overrides: Iterable[str] = ()) -> RunConfig:
    """Read `source`, the path of a YAML file or the name of a shipped configuration, and apply `KEY=VALUE` overrides.

    A key is dotted (`workload.users=4`; `tiers.0.capacity_bytes=1GiB`) and a value is YAML. A relative trace path in a
    file starts at the file's directory, one in an override at the working directory; the result holds it absolute.
    Raises KvbenchError naming every wrong key, the nearest valid one and what was expected; or where neither a workload
    nor tiers are chosen.
    """
    overrides = tuple(overrides)
    content, folder = read_mapping(source)
    _make_path_absolute(content, folder)
    for override in overrides:
        apply_override(content, override, RunConfig().model_dump(mode="json"))
    _make_path_absolute(content, Path.cwd())
    name = " --set ".join((source, *overrides))
    config = parse_config(content, name)
    _refuse_nothing_chosen(content, name)
    _refuse_entries_of_engine(config, content, name)
    return config


def parse_config(content: Mapping[str, Any], source: str) -> RunConfig:
    """Check `content` (a YAML mapping) and make it a RunConfig. Raises KvbenchError; `source` names it in messages."""
    workload = content.get("workload")
    if isinstance(workload, dict) and "kind" not in workload:
        content = {**content, "workload": {"kind": "personas", **workload}}
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise KvbenchError(f"{source}: {explain(error, RunConfig)}") from error


def _refuse_nothing_chosen(content: Mapping[str, Any], source: str) -> None:
    """Raise KvbenchError where neither the load nor what it goes to was chosen: nobody means to fill a disk with a file
    that is empty, or that has a name and nothing else."""
    if not any(content.get(key) for key in _CHOICES):
        raise KvbenchError(
            f"{source}: nothing is chosen: give at least a workload, such as `workload: {{users: 4}}`, or tiers, such "
            "as `tiers: [{kind: file, capacity_bytes: 10GiB}]` (docs/workloads.md has every key; `kvbench configs` "
            "lists configurations to start from)"
        )


def _refuse_entries_of_engine(config: RunConfig, content: Mapping[str, Any], source: str) -> None:
    """Raise KvbenchError where entries were asked for, and not only not mentioned, of what keeps blocks."""
    cache = content.get("cache")
    if config.serves_as_engine and isinstance(cache, dict) and cache.get("layout") == "entry":
        raise KvbenchError(
            f"{source}: cache.layout: an engine keeps blocks: leave it out, or set workload.serving=reference"
        )


def _make_path_absolute(content: dict[str, Any], folder: Path) -> None:
    workload = content.get("workload")
    if isinstance(workload, dict) and isinstance(workload.get("path"), str) and workload["path"]:
        workload["path"] = str(folder / Path(workload["path"]).expanduser())
