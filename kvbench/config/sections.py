"""The sections of a configuration but for the workload's, with every default, once."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from kvbench.config.names import TIER_KINDS, TierKind
from kvbench.config.types import Bytes, BytesOrAuto, Count, Factor, Number, PolicyName, Seconds, TierKindName
from kvbench.config.workload import Section
from kvbench.units import GIB, MIB, SECTOR_BYTES, SEGMENT_BYTES, format_bytes

ReadPath = Literal["double-copy", "numpy", "buffered", "mmap-touch", "mmap-copy", "direct"]
WritePath = Literal["buffered", "direct"]


class Pacing(Section):
    """When requests start: after think times, at arrival times, or as fast as possible."""

    mode: Literal["closed", "open", "asap"] = "closed"
    """With a trace `closed` is closed within each session: the next turn comes its gap after the answer."""
    speedup: Factor = Field(default=1.0, gt=0)
    """The trace's time runs this many times faster."""
    requests_per_s: Factor | None = Field(default=None, gt=0)
    """Open loop with personas: Poisson arrivals per second and rank."""
    admission: Literal["arrival", "priority"] = "arrival"
    """Open loop: of the requests that wait for a place, the first to come goes first, or the higher QoS class."""
    most_requests: Count | None = Field(default=None, ge=1)
    """Requests that a rank has under way at most; null: `io.threads`, or `compute.max_batch` where compute is
    modelled."""


class Arrivals(Section):
    """When sessions begin, for traces and synthetic sessions; a request of no session is one by itself. The later turns
    of a session keep their distance in time."""

    process: Literal["trace", "constant", "poisson", "gamma", "steps", "ramp", "bursts"] = "trace"
    """`trace`: as recorded. All others put sessions at times of their own, in the order of the trace."""
    rate: Factor | None = Field(default=None, gt=0)
    """Sessions per second and rank, on average (`constant`, `poisson`, `gamma`, `bursts`)."""
    cv: Factor | None = Field(default=None, gt=0)
    """`gamma`: coefficient of variation of the times between sessions; 1 is `poisson`, more comes in clusters."""
    steps: tuple[tuple[Seconds, Number], ...] | None = None
    """`steps` and `ramp`: pairs of a time (s) and the rate from then on, or at that moment; random in between."""
    burst: Count | None = Field(default=None, ge=1)
    """`bursts`: sessions that begin at the same moment."""


class Split(Section):
    """In how many objects a block is stored."""

    layers: Count | None = Field(default=None, ge=1)
    """Layers in an object; null: all."""
    keys_values: Literal["together", "apart"] = "together"
    """Whether keys and values are in one object."""


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
    lookup: Literal["memory", "stat"] = "memory"
    """Engine: whether it knows by itself what is on the file tier, or asks the filesystem for each block that it looks
    up there, up to and including the first that is missing."""
    store_answers: bool = True
    """Engine: whether the blocks of answers are kept, where the trace has names for them."""
    split: Split = Split()
    """Engine: the objects of a block."""
    prefetch: Literal["none", "expected"] = "none"
    """Engine: `expected` brings a session's blocks up to the fastest tier before its next turn is expected, which is as
    long after the turn before as that came after its own."""
    prefetch_lead_s: Seconds = Field(default=1.0, ge=0)
    """Engine: how long before."""
    ttl_s: Seconds | None = Field(default=None, gt=0)
    """Engine: a block that no request has asked for so long is gone (in the time of the trace); null: never."""


class Layout(Section):
    """How a file tier lays its objects out."""

    kind: Literal["file", "slab", "bucket"] = "file"
    """`file`: a file for each object. `slab`: one file, made before the load, with a slot for each. `bucket`: files
    that objects are appended to."""
    levels: Count = Field(default=0, ge=0, le=4)
    """Folders that a file lies in, one in the other, named after the first digits of its key; 0: none."""
    width: Count = Field(default=2, ge=1, le=4)
    """Hexadecimal digits of a folder's name."""
    rename: bool = False
    """A file is written under a temporary name, and renamed when it is whole."""
    ask_first: bool = False
    """A write asks the filesystem first whether the file is there already, as engines do that share a folder."""
    bucket_bytes: Bytes = Field(default=256 * MIB, ge=SECTOR_BYTES, multiple_of=SECTOR_BYTES)
    """What a bucket holds at most, and so the largest object. (256 MiB is what Mooncake's bucket files have.)"""
    garbage: Number = Field(default=0.5, ge=0, le=0.9)
    """A bucket that is full is compacted once more than this share of its bytes are of deleted objects."""

    @model_validator(mode="after")
    def _buckets_alone_hold_garbage(self) -> Self:
        usual = Layout.model_fields
        if self.kind != "bucket" and (
            self.bucket_bytes != usual["bucket_bytes"].default or self.garbage != usual["garbage"].default
        ):
            raise ValueError(f"bucket_bytes and garbage are for buckets; leave them out for a {self.kind}")
        return self

    @model_validator(mode="after")
    def _only_files_have_names(self) -> Self:
        if self.kind != "file" and (self.levels or self.rename or self.ask_first):
            raise ValueError(
                f"levels, rename and ask_first are for files of single objects; leave them out for a {self.kind}"
            )
        return self

    @property
    def text(self) -> str:
        """In words."""
        parts: list[str] = [self.kind]
        if self.kind == "bucket":
            parts = [
                f"buckets of {format_bytes(self.bucket_bytes)}",
                f"compacted from {self.garbage * 100:g} % garbage on",
            ]
        if self.levels:
            parts.append(f"in {self.levels} level{'s' if self.levels > 1 else ''} of {16**self.width} folders")
        if self.rename:
            parts.append("renamed")
        if self.ask_first:
            parts.append("asked for first")
        return ", ".join(parts)


class TierSection(Section):
    """One level of the cache, listed from the fastest to the slowest."""

    kind: TierKindName
    capacity_bytes: BytesOrAuto = "auto"
    """Per rank. `auto` (file): 95 % of the free space, divided among the ranks that share the filesystem."""
    fill: Number = Field(default=1.0, gt=0, le=1)
    """Share of a memory tier's capacity that is filled (the reference fills 0.8)."""
    layout: Layout = Layout()
    """How objects lie on a file tier."""
    part_bytes: Bytes = Field(default=8 * MIB, ge=5 * MIB, le=4 * GIB)
    """Of an object tier: a longer object is sent to the store in parts of this size, several at once."""
    retries: Count = Field(default=5, ge=0, le=20)
    """Of an object tier: how often a request that fails for a reason that may pass (the server is busy, a connection
    breaks) is sent again, after 0.1 s, 0.2 s, 0.4 s and so on. Each is counted."""
    bandwidth_bytes_per_s: Bytes | None = Field(default=None, ge=1)
    """Of a gpu tier, modelled: what is found there takes its bytes at this rate; null: no time."""

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
        if not self.facts.layouts and self.layout != Layout():
            raise ValueError(f"layout is for file tiers; leave it out for the {self.kind} tier")
        usual = TierSection.model_fields
        for name in ("part_bytes", "retries"):
            if not self.facts.requests and getattr(self, name) != usual[name].default:
                raise ValueError(f"{name} is for object tiers; leave it out for the {self.kind} tier")
        if not self.facts.modelled and self.bandwidth_bytes_per_s is not None:
            raise ValueError(
                f"bandwidth_bytes_per_s is for gpu tiers, which are modelled: a {self.kind} tier is measured"
            )
        return self

    @property
    def facts(self) -> TierKind:
        """What is true of every tier of its kind."""
        return TIER_KINDS[self.kind]

    @property
    def usable_bytes(self) -> int | Literal["auto"]:
        """What is filled of `capacity_bytes`."""
        return self.capacity_bytes if self.capacity_bytes == "auto" else int(self.capacity_bytes * self.fill)


class Nixl(Section):
    """How the transfer library NIXL moves bytes."""

    backend: str = Field(default="POSIX", pattern=r"^[A-Z0-9_]{1,32}$")
    """One that the installed package has, and that moves bytes between memory and files."""
    options: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")], bool | int | str] = Field(
        default_factory=dict
    )
    """What the backend is made with, by the backend's own names."""


class Io(Section):
    """How bytes move."""

    read_path: ReadPath = "buffered"
    write_path: WritePath = "buffered"
    engine: Literal["sync", "uring", "nixl"] = "sync"
    """How a batch is carried out: `sync`, one operation after the other; `uring`, all of it in flight together on a
    ring of the kernel (io_uring), one ring for each thread; `nixl`, as one transfer of NIXL, one agent for each
    thread."""
    depth: Count = Field(default=32, ge=1, le=4096)
    """Requests of a thread that are in flight at once, where the engine overlaps them, or the tier lies in an object
    store; with `nixl` the operations of a transfer, at most."""
    nixl: Nixl = Nixl()
    io_bytes: Bytes = MIB
    """Most bytes that one system call moves: a power of two from 4 KiB to 4 MiB."""
    threads: Count = Field(default=16, ge=1, le=1024)
    """Operations that a rank has in flight at most."""
    request_threads: Literal["all", "one"] = "all"
    """Engine: who moves the blocks that a stage of a request loads or stores: all threads that are free, or one, one
    block after the other."""
    max_concurrent_allocs: Count = Field(default=16, ge=0)
    """Writes of new entries that a rank has in flight at most; 0 for no limit."""
    arena_bytes: BytesOrAuto = "auto"
    """Memory that reads land in and writes stream from, per rank. `auto`: four times the node's last-level cache,
    shared among its ranks, at least 256 MiB, and at least 4 MiB for each thread."""
    sync: Literal["none", "object", "batch", "end"] = "object"
    """When what was written is made durable: never; each object before its write ends (fdatasync); what a batch wrote
    at the end of that; or all at once (syncfs), at the end of the measured phase."""
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
