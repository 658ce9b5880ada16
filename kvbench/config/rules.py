"""What the sections of a configuration must have in common: rules, which raise ValueError with key and remedy."""

import math
from collections.abc import Sequence
from typing import Final, Protocol

from kvbench.config.compute import Compute, shipped_gpus
from kvbench.config.models import ModelGeometry
from kvbench.config.names import CACHE_POLICIES, CHAIN_POLICIES
from kvbench.config.roles import Roles
from kvbench.config.sections import Arrivals, CachePolicy, Io, Nixl, Pacing, TierSection
from kvbench.config.sessions import SessionsWorkload
from kvbench.config.workload import PersonaWorkload, ReferenceWorkload, TraceWorkload

_ENGINE: Final = "only requests that are served as an engine does heed it (a trace, with workload.serving=engine)"
ENGINE_ALONE: Final = (
    "write",
    "admission",
    "min_prefix_tokens",
    "partial_blocks",
    "lookup",
    "store_answers",
    "ttl_s",
    "split",
    "prefetch",
)
"""What of the cache is for requests that are served as an engine does."""


class Chosen(Protocol):
    """What the rules are about: a `RunConfig`."""

    @property
    def workload(self) -> PersonaWorkload | ReferenceWorkload | TraceWorkload | SessionsWorkload: ...
    @property
    def pacing(self) -> Pacing: ...
    @property
    def arrivals(self) -> Arrivals: ...
    @property
    def compute(self) -> Compute | None: ...
    @property
    def filled_compute(self) -> Compute | None: ...
    @property
    def tensor_parallel(self) -> int: ...
    @property
    def geometry(self) -> ModelGeometry: ...
    @property
    def cache(self) -> CachePolicy: ...
    @property
    def tiers(self) -> Sequence[TierSection]: ...
    @property
    def io(self) -> Io: ...
    @property
    def namespace(self) -> str: ...
    @property
    def roles(self) -> str | None: ...
    @property
    def duration_s(self) -> float | None: ...
    @property
    def serves_as_engine(self) -> bool: ...


def check(config: Chosen) -> None:
    """Raise ValueError for the first rule that `config` breaks."""
    tiers_fit(config)
    pacing_fits(config)
    if isinstance(config.workload, ReferenceWorkload):
        reference_fits(config)
    serving_fits(config)
    layouts_fit(config)
    io_engine_fits(config)
    look_ups_fit(config)
    arrivals_fit(config)
    compute_fits(config)
    split_fits(config)
    modelled_fits(config)
    sharing_fits(config)


def tiers_fit(config: Chosen) -> None:
    if not config.tiers:
        raise ValueError("tiers: at least one tier is needed")
    if any(tier.facts.storage for tier in config.tiers[:-1]):
        raise ValueError("tiers: storage must be the last tier, below the memory tiers")
    last = config.tiers[-1]
    for name in ("read_path", "write_path"):
        if last.facts.requests and getattr(config.io, name) != getattr(Io(), name):
            raise ValueError(f"io.{name}: what a server is asked for has no path; leave it out for an object tier")
    if config.io.sync != Io().sync and not last.facts.layouts:
        raise ValueError(f"io.sync: only what is written to a file tier is synced; leave it out for a {last.kind} tier")


def pacing_fits(config: Chosen) -> None:
    """When requests come, for workloads that say it themselves and those that do not."""
    pacing, trace = config.pacing, isinstance(config.workload, TraceWorkload | SessionsWorkload)
    if trace and pacing.mode == "closed" and not config.serves_as_engine:
        raise ValueError(
            "pacing.mode: a trace that is served as the reference does is replayed `open` (at its arrival times) or "
            "`asap`, not `closed`"
        )
    if isinstance(config.workload, TraceWorkload) and config.workload.deal != "session":
        for key, follows in (
            ("pacing.mode", pacing.mode == "closed"),
            ("arrivals.process", config.arrivals.process != "trace"),
            ("cache.prefetch", config.cache.prefetch != "none"),
        ):
            if follows:
                raise ValueError(
                    f"{key}: it follows sessions, which a rank has whole only with workload.deal=session (without them "
                    "a trace is replayed with pacing.mode `open`, at its own times, or `asap`)"
                )
    if trace and pacing.requests_per_s is not None:
        raise ValueError("pacing.requests_per_s: a trace has its own arrival times; use pacing.speedup or arrivals")
    if pacing.mode != "open" and pacing.requests_per_s is not None:
        raise ValueError("pacing.requests_per_s: only open loop has an arrival rate; set pacing.mode to open")
    if isinstance(config.workload, PersonaWorkload) and pacing.mode == "open" and pacing.requests_per_s is None:
        raise ValueError("pacing.requests_per_s: open loop with personas needs the arrival rate per rank")
    if pacing.admission == "priority" and pacing.mode != "open":
        raise ValueError("pacing.admission: only in open loop do requests wait by priority; set pacing.mode to open")
    if isinstance(config.workload, SessionsWorkload) and config.duration_s is None and config.workload.span_s is None:
        raise ValueError("workload.span_s: sessions have no end where duration_s is null; give one of them")
    if config.duration_s is None and not trace:
        raise ValueError("duration_s: personas never end; give the seconds to measure")


def reference_fits(config: Chosen) -> None:
    """The reference's users are not asked for something that they do not do."""
    pacing = config.pacing
    if pacing.mode != "open" or pacing.requests_per_s is not None or pacing.speedup != 1:
        raise ValueError(
            "pacing: users of the reference workload send requests at their own times, whether or not they are "
            "answered: set pacing.mode to open, without requests_per_s and speedup"
        )
    if config.cache.layout != "entry":
        raise ValueError("cache.layout: the reference workload keeps one object per entry; set it to entry")
    if config.namespace != "private" or config.roles is not None:
        raise ValueError("namespace: users of the reference workload share nothing between ranks; use private")


def serving_fits(config: Chosen) -> None:
    """The cache is told nothing that its requests know nothing of."""
    policy, defaults = config.cache.policy, CachePolicy()
    if not config.serves_as_engine:
        if policy not in CACHE_POLICIES:
            raise ValueError(
                f"cache.policy: {policy} is for requests that are served as an engine does (a trace, with "
                "workload.serving=engine)"
            )
        for name in ENGINE_ALONE:
            if getattr(config.cache, name) != getattr(defaults, name):
                raise ValueError(f"cache.{name}: {_ENGINE}")
        return
    if policy not in CHAIN_POLICIES and policy != defaults.policy:
        raise ValueError(
            f"cache.policy: {policy} does not know chains of blocks: use one of {', '.join(CHAIN_POLICIES)}, or "
            "workload.serving=reference"
        )
    if config.namespace != "private" or config.roles is not None:
        raise ValueError(
            "namespace: ranks do not share blocks of an engine yet: use private, or workload.serving=reference"
        )
    if isinstance(config.workload, TraceWorkload) and config.workload.mode != "prefill-decode":
        raise ValueError(
            f"workload.mode: an engine does prefill and decode; {config.workload.mode} needs workload.serving=reference"
        )
    if isinstance(config.workload, TraceWorkload):
        usual = TraceWorkload(kind="trace", path="-")
        for name in ("prefill_only_tokens", "decode_interval_tokens"):
            if getattr(config.workload, name) != getattr(usual, name):
                raise ValueError(
                    f"workload.{name}: an engine reads nothing to decode; it needs workload.serving=reference"
                )
    if config.cache.prefetch == "none" and config.cache.prefetch_lead_s != defaults.prefetch_lead_s:
        raise ValueError("cache.prefetch_lead_s: nothing is prefetched: set cache.prefetch to expected")


_RATED: Final = ("constant", "poisson", "gamma", "bursts")
_STEPPED: Final = ("steps", "ramp")


def layouts_fit(config: Chosen) -> None:
    """Slots are all of one size; what lies in a file with others is read as it lies, and is its own rank's. What moves
    by requests is an engine's."""
    layout = config.tiers[-1].layout
    if config.io.request_threads != Io().request_threads and not config.serves_as_engine:
        raise ValueError(f"io.request_threads: {_ENGINE}")
    if layout.kind == "file":
        return
    if layout.kind == "slab" and not config.serves_as_engine:
        raise ValueError(
            f"layout: a {layout.kind} holds objects of one size, which only requests have that are served as an engine "
            "does (a trace, with workload.serving=engine); use kind=file"
        )
    if config.io.read_path in ("double-copy", "numpy"):
        raise ValueError(f"io.read_path: {config.io.read_path} reads .npy files; a {layout.kind} has none")


def io_engine_fits(config: Chosen) -> None:
    """What overlaps is read and written by requests of its own to the kernel."""
    io, last = config.io, config.tiers[-1]
    if io.engine != "nixl" and io.nixl != Nixl():
        raise ValueError(f"io.nixl: says how NIXL moves bytes, and io.engine is {io.engine}; set io.engine to nixl")
    if io.engine == "sync":
        return
    if not last.facts.layouts:
        raise ValueError(f"io.engine: {io.engine} moves what lies in files, and the last tier is a {last.kind} tier")
    if io.engine == "nixl" and last.layout.kind == "bucket":
        raise ValueError("io.engine: nixl does not move what lies in buckets; use uring or sync, or another layout")
    for key, path in (("read_path", io.read_path), ("write_path", io.write_path)):
        if path not in ("buffered", "direct"):
            raise ValueError(f"io.{key}: with io.engine={io.engine} use buffered or direct")


def look_ups_fit(config: Chosen) -> None:
    """The storage is asked only where it knows each object by a name."""
    last = config.tiers[-1]
    if config.cache.lookup == "stat" and not (last.facts.layouts or last.facts.requests):
        raise ValueError(f"cache.lookup: stat asks for files, and the last tier is a {last.kind} tier; use memory")
    if config.cache.lookup == "stat" and last.layout.kind != "file":
        raise ValueError(
            f"cache.lookup: stat asks for files, and objects of a {last.layout.kind} have none; use memory"
        )


def arrivals_fit(config: Chosen) -> None:
    """A process of arrivals has what it needs, and nothing besides."""
    arrivals, process = config.arrivals, config.arrivals.process
    if process != "trace" and not config.serves_as_engine:
        raise ValueError(f"arrivals.process: {process} {_ENGINE}; personas have pacing.requests_per_s")
    if process != "trace" and config.pacing.mode == "asap":
        raise ValueError("arrivals.process: as fast as possible nobody arrives; set pacing.mode to open or closed")
    for name, wanted in (
        ("rate", process in _RATED),
        ("cv", process == "gamma"),
        ("steps", process in _STEPPED),
        ("burst", process == "bursts"),
    ):
        given = getattr(arrivals, name) is not None
        if wanted and not given:
            raise ValueError(f"arrivals.{name}: arrivals of process {process} need it")
        if given and not wanted:
            raise ValueError(f"arrivals.{name}: arrivals of process {process} do not heed it; leave it out")
    steps = arrivals.steps
    if steps is None:
        return
    times, rates = [at for at, _ in steps], [rate for _, rate in steps]
    if not steps or times[0] != 0 or sorted(set(times)) != times:
        raise ValueError("arrivals.steps: expected times that rise from 0")
    if min(rates) < 0 or max(rates) > 1e6 or rates[-1] <= 0:
        raise ValueError("arrivals.steps: expected rates of 0 to 1e6, the last above 0, so that all sessions begin")


def compute_fits(config: Chosen) -> None:
    """Compute is modelled where the engine has it, and from known numbers."""
    if config.compute is None:
        return
    if config.pacing.most_requests is not None:
        raise ValueError("pacing.most_requests: where compute is modelled, it is compute.max_batch; make it null")
    if not config.serves_as_engine:
        raise ValueError(f"compute: {_ENGINE}; others have workload.generation_ms_per_token")
    if config.workload.generation_ms_per_token:
        raise ValueError("compute: it says how long generation takes; leave workload.generation_ms_per_token out")
    # Raises ValueError where a number is missing.
    compute = config.filled_compute
    assert compute is not None
    room_gb = shipped_gpus()[compute.gpu].memory_gb
    if compute.weights_gb > room_gb * compute.gpus:
        raise ValueError(
            f"compute.gpus: {compute.weights_gb:g} GB of weights need {math.ceil(compute.weights_gb / room_gb)} or "
            f"more {compute.gpu} of {room_gb:g} GB"
        )


def split_fits(config: Chosen) -> None:
    """A block can be cut as it is to be, into objects of whole layers and ranks."""
    split, model = config.cache.split, config.geometry
    if split.layers is not None and model.layers % split.layers:
        raise ValueError(f"cache.split.layers: {split.layers} does not divide the {model.layers} layers of the model")
    if split.keys_values == "apart" and model.kv_heads is None:
        raise ValueError("cache.split.keys_values: latent attention has no keys and values to keep apart")
    together = config.tensor_parallel
    if together == 1:
        return
    if not config.serves_as_engine:
        raise ValueError(f"tensor_parallel: {_ENGINE}")
    if model.kv_heads is not None and model.kv_heads % together:
        raise ValueError(f"tensor_parallel: {together} ranks cannot share {model.kv_heads} heads of keys and values")
    if config.pacing.mode == "closed":
        raise ValueError("tensor_parallel: ranks that serve together decide alike only with pacing.mode open or asap")


def modelled_fits(config: Chosen) -> None:
    """A modelled tier stands only where it can."""
    modelled = [number for number, tier in enumerate(config.tiers) if tier.facts.modelled]
    if not modelled:
        return
    kind = config.tiers[modelled[0]].kind
    if not config.serves_as_engine:
        raise ValueError(
            f"tiers: a {kind} tier is for requests that are served as an engine does (a trace, with "
            "workload.serving=engine)"
        )
    if modelled != [0] or len(config.tiers) == 1:
        raise ValueError(f"tiers: a {kind} tier is modelled: it is the first, above one that is really there")
    if config.tiers[0].fill != 1:
        raise ValueError(f"fill is for memory tiers; set capacity_bytes of the {kind} tier")


def sharing_fits(config: Chosen) -> None:
    """Ranks share only what they can reach."""
    if config.namespace == "shared" and not config.tiers[-1].facts.shared:
        raise ValueError("namespace: ranks share objects in files; shared needs a file tier")
    layout = config.tiers[-1].layout
    if config.namespace == "shared" and layout.kind != "file":
        raise ValueError(f"namespace: ranks share objects in files of their own; a {layout.kind} is its own rank's")
    if config.namespace == "shared" and config.io.sync != "object":
        raise ValueError(
            "io.sync: other ranks are told of an object once it is durable; with namespace=shared use object"
        )
    if config.namespace == "shared" and config.cache.promote_on_hit:
        raise ValueError(
            "cache.promote_on_hit: a promotion takes the object away from the other ranks; leave it out where "
            "namespace is shared"
        )
    if config.roles is None:
        return
    try:
        Roles.parse(config.roles)
    except ValueError as error:
        raise ValueError(f"roles: {error}") from error
    if config.namespace != "shared":
        raise ValueError("roles: decode ranks read what others wrote; set namespace to shared")
    if len(config.tiers) > 1:
        raise ValueError("roles: what lies in a rank's memory cannot be handed over; use the file tier alone")
    if config.workload.mode != "prefill-decode":
        raise ValueError("roles: workload.mode must be prefill-decode, which the roles divide")
