"""One typed description of a run: its sections with every default, once, and the run's fingerprint.

The directory under test, the output file and the hosts are not part of it: they say where a run happened, not what it
did. What its sections must have in common is in `rules`, reading it in `load`, wording what is wrong in `errors`.
"""

import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from kvbench.config import rules
from kvbench.config.compute import Compute, ComputeOrNone
from kvbench.config.drive import Drive
from kvbench.config.engines import Twin
from kvbench.config.models import ModelGeometry, shipped_compute, shipped_model
from kvbench.config.prices import PricesOrNone
from kvbench.config.roles import Roles
from kvbench.config.sections import Arrivals, CachePolicy, Calibration, Io, Layout, Pacing, PayloadSection, TierSection
from kvbench.config.sessions import SessionsWorkload
from kvbench.config.types import Count, Model, Seconds
from kvbench.config.workload import PersonaWorkload, ReferenceWorkload, Section, TraceWorkload

__all__ = [
    "Arrivals",
    "CachePolicy",
    "Calibration",
    "Io",
    "Layout",
    "Pacing",
    "PayloadSection",
    "PersonaWorkload",
    "ReferenceWorkload",
    "RunConfig",
    "SessionsWorkload",
    "TierSection",
    "TraceWorkload",
]

_LATER: Final = ("split", "prefetch", "store_answers", "lookup")
"""Of the cache."""

SCHEDULE_VERSION: Final = 1
"""Raised whenever the same configuration would give other requests than before; part of the fingerprint."""


class RunConfig(Section):
    """Everything that decides what a run does."""

    name: str = "run"
    """A label, not part of the fingerprint."""
    twin: Twin | None = None
    """Of which engine the way of moving bytes is a twin (`--engine`); a label, not part of the fingerprint."""
    seed: Count = Field(default=42, ge=0, lt=2**32)
    """Rank r uses seed + r."""
    model: Model = "llama3.1-8b"
    workload: Annotated[
        PersonaWorkload | ReferenceWorkload | TraceWorkload | SessionsWorkload, Field(discriminator="kind")
    ] = PersonaWorkload()
    pacing: Pacing = Pacing()
    arrivals: Arrivals = Arrivals()
    compute: ComputeOrNone = None
    """Modelled time on a GPU, for requests that are served as an engine does; none: they take no time there."""
    tensor_parallel: Count = Field(default=1, ge=1)
    """Ranks that serve requests together: each keeps this part of every block, and a request waits for the slowest."""
    cache: CachePolicy = CachePolicy()
    tiers: tuple[TierSection, ...] = (TierSection(kind="file"),)
    io: Io = Io()
    payload: PayloadSection = PayloadSection()
    drive: Drive | None = None
    """Rated endurance of the drives under test; of figures alone, and not part of the fingerprint."""
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
    objectives: tuple[str, ...] = ()
    """What the service promises of its requests, as `ttft_p95<2s` (`kvbench.records.objectives`). Not part of the
    fingerprint."""
    prices: PricesOrNone = None
    """For what storage is worth, as in configs/prices.yaml. Not part of the fingerprint."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        rules.check(self)
        return self

    @property
    def serves_as_engine(self) -> bool:
        """Whether requests do what those of a serving engine do, and not what the reference's do."""
        if isinstance(self.workload, SessionsWorkload):
            return True
        return isinstance(self.workload, TraceWorkload) and self.workload.serving == "engine"

    @property
    def most_requests(self) -> int:
        """That a rank has under way."""
        if self.compute is not None:
            return self.compute.max_batch
        return self.io.threads if self.pacing.most_requests is None else self.pacing.most_requests

    @property
    def role_ranks(self) -> Roles | None:
        """The ranks of each role; None where ranks have none."""
        return None if self.roles is None else Roles.parse(self.roles)

    @property
    def geometry(self) -> ModelGeometry:
        """The model's geometry, looked up where it was given by name."""
        return shipped_model(self.model) if isinstance(self.model, str) else self.model

    @property
    def filled_compute(self) -> Compute | None:
        """What compute is modelled from, with nothing left open; None: it takes no time."""
        if self.compute is None:
            return None
        known = shipped_compute(self.model) if isinstance(self.model, str) else {}
        return self.compute.filled(known, self.geometry.head_dim)

    @property
    def has_target(self) -> bool:
        """Whether objects are kept at a place under test, which must be given."""
        return self.tiers[-1].facts.has_target

    @property
    def depth(self) -> int:
        """Operations of a batch that are in flight at once on the storage; 1: one comes after the other."""
        overlaps = self.io.engine != "sync" or self.tiers[-1].facts.requests
        return self.io.depth if overlaps else 1

    @property
    def keeps_bytes(self) -> bool:
        """Whether what is read can be compared with what was written."""
        return self.tiers[-1].facts.keeps_bytes

    def fingerprint(self, ranks: int, trace_digest: str = "") -> str:
        """16 hex digits over everything that decides what work is done; equal on every machine.

        `ranks` is the number of ranks, `trace_digest` the digest of the trace's content (its path does not count).
        """
        labels = {"name", "objectives", "prices", "drive", "records", "twin"}
        content = self.model_dump(mode="json", exclude=labels)
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
            for name in rules.ENGINE_ALONE:
                del content["cache"][name]
        self._leave_out_the_usual(content)
        for tier, described in zip(self.tiers, content["tiers"], strict=True):
            if tier.bandwidth_bytes_per_s is None:
                del described["bandwidth_bytes_per_s"]
            if tier.fill == 1:
                del described["fill"]
            if tier.layout == Layout():
                del described["layout"]
            elif tier.layout.kind != "bucket":
                del described["layout"]["bucket_bytes"], described["layout"]["garbage"]
            if not tier.facts.requests:
                del described["part_bytes"], described["retries"]
        content["ranks"] = ranks
        content["schedule_version"] = SCHEDULE_VERSION
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _leave_out_the_usual(self, content: dict[str, Any]) -> None:
        """What came later than fingerprints, where it changes nothing."""
        for name, value in (("arrivals", Arrivals()), ("compute", None), ("tensor_parallel", 1)):
            if getattr(self, name) == value:
                del content[name]
        for name in ("sync", "engine", "depth", "nixl", "request_threads"):
            if getattr(self.io, name) == getattr(Io(), name):
                del content["io"][name]
        if self.pacing.most_requests is None:
            del content["pacing"]["most_requests"]
        if content["workload"].get("replay_cycles") == 1:
            del content["workload"]["replay_cycles"]
        defaults, cache = CachePolicy(), content["cache"]
        for name in _LATER:
            if name in cache and getattr(self.cache, name) == getattr(defaults, name):
                del cache[name]
        if self.cache.prefetch == "none":
            cache.pop("prefetch_lead_s", None)
