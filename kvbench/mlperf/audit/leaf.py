"""The facts of one published run (a leaf) that an audit looks at, as plain values; None is what the tree does not say.

How they are read stands in `gather`; what they mean in `questions`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What a rank's result says of one trial."""

    number: int
    path: str
    elapsed_s: float | None = None
    longest_request_s: float | None = None
    """The longest of its requests, from arrival to end; at least that long, where only a percentile is known."""
    longest_key: str = ""
    """Where that stands."""
    read_gib: float | None = None
    """From storage in the trial; likewise what was written, demotions with it."""
    written_gib: float | None = None
    reads: int | None = None
    """Reads from storage; None where a memory tier served some, and nothing tells them apart."""
    writes: int | None = None
    """Entries that reached storage, demotions with them."""
    timed_writes: int | None = None
    """Those of them that the percentiles are of: entries written to storage directly."""
    read_device_ms: Mapping[str, float] = field(default_factory=dict)
    """Percentiles by name (`p50`, `p95`, `p99`, `p999`, `p9999`) of the span of the load; below, of the fsync, and of
    the whole write."""
    write_device_ms: Mapping[str, float] = field(default_factory=dict)
    write_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """A trial, with the ranks whose results can be read."""

    number: int
    path: str
    began: datetime | None
    """By the stamp in the names of its results, local time."""
    ranks: tuple[RankFacts, ...]
    repeated: tuple[str, ...] = ()
    """Ranks with more than one result, as paths."""


@dataclass(frozen=True, slots=True)
class OptionFacts:
    """An option: what was asked for, what the summary says, and its trials."""

    number: int
    duration_s: float | None
    """Of a trial, as asked for."""
    duration_from: str
    """Where that stands."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the summary, by their keys there."""
    partial_failure: bool | None = False
    """None where the summary does not say."""
    missing: tuple[str, ...] = ()
    """Directories of ranks that the summary misses."""
    trial_count: int | None = None
    trials: tuple[TrialFacts, ...] = ()

    def ranks(self) -> Iterator[tuple[TrialFacts, RankFacts]]:
        """All ranks of all trials."""
        for trial in self.trials:
            for rank in trial.ranks:
                yield trial, rank


@dataclass(frozen=True, slots=True)
class Preload:
    """A library that one place in the tree preloads."""

    library: str
    """As it is named there, with its folder."""
    path: str
    key: str
    """Where in the file it stands."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the tool saw of a client host."""

    name: str
    memory_bytes: float | None = None
    cores: float | None = None
    cpu: str | None = None
    kernel: str | None = None


@dataclass(frozen=True, slots=True)
class NodesFacts:
    """Nodes of one kind in the system description."""

    count: int
    """Of these nodes; what follows is of one of them."""
    memory_gib: float | None = None
    network_gbit_per_s: float | None = None
    """Of interfaces that are up and carry data; None where none is described."""
    drives_gb_per_s: float | None = None
    """The most that the interfaces of its drives carry; None where none is described, or one of a kind that is not
    known."""


@dataclass(frozen=True, slots=True)
class DescriptionFacts:
    """systems/SYSTEM.yaml."""

    path: str
    clients: tuple[NodesFacts, ...] = ()
    servers: tuple[NodesFacts, ...] = ()
    location: str = ""
    """Where the storage is: `remote`, `local`, `remote_and_local`; "" where it does not say."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image of code in a pool of the tree."""

    path: str
    hash: str
    git_sha: str | None


@dataclass(frozen=True, slots=True)
class LeafFacts:
    """One run."""

    tree: str
    """The tree as it was given, for the report."""
    division: str
    submitter: str
    system: str
    stamp: str
    path: str
    """All paths are relative to the tree."""
    summary_path: str = ""
    metadata_path: str = ""
    has_figures: bool = True
    """Whether it has a summary or a rank's result; one that has none is a twin or a remainder."""
    pointer: str | None = None
    """The hash that .mlps-code-image names."""
    validated_hash: str | None = None
    """`args._validated_pool_hash` of the metadata."""
    images: tuple[ImageFacts, ...] = ()
    """Of the pools that the pointer may mean."""
    total_ranks: int | None = None
    host_count: int | None = None
    trials_per_option: int | None = None
    trial_failures: tuple[str, ...] = ()
    delay_s: float | None = None
    """Between options, as declared."""
    ours: bool = False
    """Whether kvbench made the run: it starts all trials as one job."""
    rehearsal: bool = False
    map_by_node: bool = False
    """Whether ranks were dealt out to hosts in turn."""
    options: tuple[OptionFacts, ...] = ()
    commands: int = 0
    """How many command lines of trials are recorded."""
    launches: int = 0
    """How many places tell what was preloaded, with those."""
    preloads: tuple[Preload, ...] = ()
    listed_hosts: tuple[str, ...] = ()
    """Of the command lines or arguments."""
    hosts: tuple[HostFacts, ...] = ()
    """As the tool saw them."""
    hosts_seen: int | None = None
    """How many the tool says it saw."""
    memory_bytes: tuple[float, float, float] | None = None
    """Least, most and total memory of the hosts as the tool saw them."""
    memory_key: str = "system_info.total_memory_bytes"
    """Where in the metadata that stands."""
    description: DescriptionFacts | None = None
    description_problem: str = ""
    """Why there is none."""

    @property
    def name(self) -> str:
        """Division, submitter, system and stamp."""
        return f"{self.division}/{self.submitter}/{self.system}/{self.stamp}"

    @property
    def has_ranks(self) -> bool:
        """Whether any rank's result can be read."""
        return any(trial.ranks for option in self.options for trial in option.trials)
