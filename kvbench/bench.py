"""What a rank has built and checked before the load, and gives back after it: directory, memory, tiers, engine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import Agreement, FailedElsewhere, RanksFailed
from kvbench.cluster.comm import quiet_barrier
from kvbench.cluster.share import total
from kvbench.cluster.topology import FilesystemGroup, Topology, filesystem_group
from kvbench.config import RunConfig
from kvbench.engine import calibrate
from kvbench.engine.engine import Engine, Home
from kvbench.engine.sampler import Sampler
from kvbench.engine.sharing import Sharing
from kvbench.engine.visibility import Looker
from kvbench.errors import KvbenchError
from kvbench.expectation import Expect, check_expectation, settle_seconds
from kvbench.forecast import Demand, MemoryNeed, arena_bytes, forecast_demand, memory_need
from kvbench.machine import NO_FILESYSTEM, Filesystem, Node, describe_node, filesystem_of
from kvbench.preparation import (
    UNTOLD_BYTES,
    Storage,
    block_device,
    build_tiers,
    check_memory,
    file_tier_capacity,
    make_arena,
    make_payload,
    memory_limit,
    planned_bytes,
    probe_paths,
    process_bytes,
    run_number,
)
from kvbench.records.digest import Digest
from kvbench.records.stream import RowStream
from kvbench.records.tally import Tally
from kvbench.results import CALIBRATION_DTYPE
from kvbench.rundir import Nowhere, RunDirectory, check_directory
from kvbench.shared_space import check_shared, make_looker, payloads
from kvbench.tiers.arena import SECTOR_BYTES, Arena
from kvbench.tiers.base import Tier
from kvbench.tiers.payload import Payload
from kvbench.workload.request import QOS_CLASSES, Schedule

_LONGEST_ALONE_S = 10.0
"""Calibrating the ranks of a node one after the other takes no longer than this in all, for each figure."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the storage that this rank found."""

    node: Node
    filesystem: Filesystem
    group: FilesystemGroup


@dataclass(frozen=True, slots=True)
class Sizes:
    """The memory and capacities that this rank takes."""

    arena_bytes: int
    capacities: tuple[int, ...]
    """Of the tiers, fastest first."""
    need: MemoryNeed


@dataclass(frozen=True, slots=True)
class Bench:
    """One rank, ready to run its load."""

    config: RunConfig
    around: Surroundings
    sizes: Sizes
    rundir: RunDirectory
    tiers: list[Tier]
    arena: Arena
    payload: Payload
    engine: Engine
    tally: Tally
    digest: Digest | None
    """What is kept of the rows where they are not all kept."""
    stream: RowStream

    @classmethod
    @contextmanager
    def build(
        cls,
        topology: Topology,
        agreement: Agreement,
        config: RunConfig,
        schedule: Schedule,
        directory: Path | None,
        run_id: str,
        sharing: Sharing | None = None,
        expect: Expect = "",
    ) -> Iterator[Self]:
        """Check and build on every rank, then clean up on every rank, however the load ended. Collective, but for the
        cleaning up after an error that was not agreed on. `directory` may be None where no tier keeps files; `sharing`
        is this rank's part in a shared key space."""
        rundir = Nowhere(run_id, topology.rank) if directory is None else RunDirectory(directory, run_id, topology.rank)
        around = _look_around(topology, agreement, directory, run_id, expect)
        if sharing is not None:
            group = around.group
            agreement.run("check", lambda: check_shared(group.group, group.nodes, topology, rundir.directory))
        sizes = _sizes(topology, agreement, config, schedule, around, rundir.directory)
        with cleaned_up(agreement, rundir), ExitStack() as stack:
            yield agreement.run("check", lambda: cls._assemble(stack, topology, config, around, sizes, rundir, sharing))

    @classmethod
    def _assemble(
        cls,
        stack: ExitStack,
        topology: Topology,
        config: RunConfig,
        around: Surroundings,
        sizes: Sizes,
        rundir: RunDirectory,
        sharing: Sharing | None,
    ) -> Self:
        rundir.create()
        payload = make_payload(config, run_number(rundir.run_id, topology.rank))
        arena = make_arena(sizes.arena_bytes, config.io.threads, payload)
        tiers = build_tiers(config, sizes.capacities, rundir.objects)
        for tier in tiers:
            stack.callback(tier.close)
        if tiers[-1].storage and tiers[-1].holds_bytes:
            probe_paths(config, tiers[-1], arena, payload, around.filesystem)
        home, payload_of = Home(topology.rank, topology.host), payloads(payload, rundir.run_id)
        engine = Engine(config, home, tiers, sizes.capacities, arena, payload, sharing, payload_of)
        tally = Tally()
        digest: Digest | None = None
        if config.records != "full":
            digest = Digest(config.records, topology.rank, topology.size, len(tiers), len(QOS_CLASSES))
        stream = RowStream(engine.stores, engine.requests, [tally], digest, engine.failures.append)
        stack.callback(stream.stop)
        return cls(config, around, sizes, rundir, tiers, arena, payload, engine, tally, digest, stream)

    @property
    def tier_names(self) -> list[str]:
        """Names of the tiers, fastest first: their kind, numbered where there are several of one kind."""
        kinds = [tier.kind for tier in self.tiers]
        return [f"{k}-{kinds[:i].count(k)}" if kinds.count(k) > 1 else k for i, k in enumerate(kinds)]

    def looker(self, topology: Topology) -> Looker | None:
        """Looks for what other ranks wrote, where ranks share a key space."""
        sharing, violations = self.engine.sharing, self.engine.violations
        if sharing is None or violations is None or topology.size == 1:
            return None
        return make_looker(topology, sharing, self.tiers[-1], payloads(self.payload, self.rundir.run_id), violations)

    def sampler(self, topology: Topology) -> Sampler:
        """The node's sampler, for the disk that the filesystem under test is on."""
        return Sampler(topology.node, block_device(self.around.filesystem))

    def calibrate(self, topology: Topology) -> npt.NDArray[np.void]:
        """Memory copy and storage read bandwidth, each rank of the node alone and then all at once (CALIBRATION_DTYPE).

        The ranks of a node take turns, so run it in an agreement: an error is raised when all turns are over.
        """
        settings = self.config.calibration
        turns = _Turns(topology, settings.seconds)
        if settings.seconds == 0:
            return turns.rows()
        turns.measure("memcpy", lambda s: calibrate.memory_copy_gib_per_s(self.arena, s, self.config.io.io_bytes))
        storage = self.tiers[-1]
        if storage.storage and storage.holds_bytes:
            nbytes = settings.bytes
            turns.attempt(lambda: calibrate.write_calibration_object(storage, self.arena, self.payload, nbytes))
            turns.measure("storage-read", lambda s: calibrate.storage_read_gib_per_s(storage, self.arena, nbytes, s))
            turns.attempt(lambda: calibrate.delete_calibration_object(storage))
        return turns.rows()


class _Turns:
    """Measurements that the ranks of a node take one after the other and then together."""

    def __init__(self, topology: Topology, seconds: float) -> None:
        self._topology = topology
        self._seconds = seconds
        self._rows: list[tuple[int, int, str, str, float]] = []
        self._error: Exception | None = None

    def measure(self, kind: str, figure: Callable[[float], float]) -> None:
        """Record `figure(seconds)`, in GiB/s, of this rank alone and of all ranks of the node at once."""
        alone_s = min(self._seconds, _LONGEST_ALONE_S / self._topology.local_size)
        for turn in range(self._topology.local_size):
            if turn == self._topology.local_rank:
                self.attempt(lambda: self._record(kind, "alone", figure(alone_s)))
            quiet_barrier(self._topology.node_comm)
        self.attempt(lambda: self._record(kind, "together", figure(self._seconds)))
        quiet_barrier(self._topology.node_comm)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do `action` unless something failed before: a rank that failed still takes part in the turns."""
        if self._error is None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the other ranks wait for this one's turns
                self._error = error

    def rows(self) -> npt.NDArray[np.void]:
        """What was recorded (CALIBRATION_DTYPE). Raises the error that ended it."""
        if self._error is not None:
            raise self._error
        return np.array(self._rows, dtype=CALIBRATION_DTYPE)

    def _record(self, kind: str, mode: str, gib_per_s: float) -> None:
        self._rows.append((self._topology.rank, self._topology.node, kind, mode, gib_per_s))


def _look_around(
    topology: Topology, agreement: Agreement, directory: Path | None, run_id: str, expect: Expect
) -> Surroundings:
    if directory is None:
        node = agreement.run("check", describe_node)
        return Surroundings(node, NO_FILESYSTEM, FilesystemGroup(0, topology.size, topology.nodes, 0, topology.nodes))

    def look() -> tuple[Node, Filesystem]:
        check_directory(directory)
        return describe_node(), filesystem_of(directory)

    node, filesystem = agreement.run("check", look)
    settle_s = settle_seconds(expect)
    group = agreement.run("check", lambda: filesystem_group(topology, directory, run_id, settle_s))
    check_expectation(topology, agreement, expect, directory, filesystem, group)
    return Surroundings(node, filesystem, group)


def _sizes(
    topology: Topology,
    agreement: Agreement,
    config: RunConfig,
    schedule: Schedule,
    around: Surroundings,
    directory: Path,
) -> Sizes:
    """Arena, capacities and memory of this rank, in agreement with the other ranks of its node."""
    free_bytes = around.filesystem.free_bytes if around.filesystem.tells_space else UNTOLD_BYTES
    roles = config.role_ranks
    # Decode ranks write nothing; that all nodes share the filesystem was checked.
    writers = around.group.ranks if roles is None else len(roles.prefill)
    storage = Storage(directory, around.filesystem, free_bytes, writers)

    gathered = topology.size if topology.rank == 0 else 0

    def plan() -> tuple[Demand, int, MemoryNeed]:
        demand = forecast_demand(config, schedule, _capacities(config, storage.free_bytes // storage.sharing_ranks))
        arena = arena_bytes(config, around.node.llc_bytes, topology.local_size)
        return demand, arena, memory_need(config, demand, arena, process_bytes(), gathered)

    demand, arena, need = agreement.run("check", plan)
    in_memory = around.filesystem.in_memory and config.keeps_files
    planned = total(topology.node_comm, planned_bytes(need))[0]
    left = memory_limit(around.node) - planned

    def size() -> Sizes:
        check_memory(around.node, topology.local_size, planned, 0, need)
        if not config.keeps_files:
            return Sizes(arena, _capacities(config, 0), need)
        largest = max(demand.largest_object_bytes, SECTOR_BYTES)
        return Sizes(arena, _capacities(config, file_tier_capacity(config, storage, largest, left)), need)

    sizes = agreement.run("check", size)
    files = min(sizes.capacities[-1], demand.peak_storage_bytes) if in_memory else 0
    files = total(topology.node_comm, files)[0]
    agreement.run("check", lambda: check_memory(around.node, topology.local_size, planned, files, need))
    return sizes


def _capacities(config: RunConfig, storage_bytes: int) -> tuple[int, ...]:
    sizes = [storage_bytes if tier.capacity_bytes == "auto" else tier.capacity_bytes for tier in config.tiers]
    if config.keeps_files:
        sizes[-1] = min(sizes[-1], storage_bytes)
    return tuple(size // SECTOR_BYTES * SECTOR_BYTES for size in sizes)


@contextmanager
def cleaned_up(agreement: Agreement, rundir: RunDirectory) -> Iterator[None]:
    """A context after which the ranks' directories are removed; an error in it is told first, with one in removing."""
    try:
        yield
    except (RanksFailed, FailedElsewhere) as first:
        try:
            _clean_up(agreement, rundir)
        except RanksFailed as second:
            raise RanksFailed(f"{first}\n{second}") from first
        raise
    except BaseException:
        # Not agreed on: the other ranks are not here to agree on this either.
        rundir.remove()
        raise
    else:
        _clean_up(agreement, rundir)


def _clean_up(agreement: Agreement, rundir: RunDirectory) -> None:
    def remove() -> None:
        try:
            strangers = rundir.remove()
        except OSError as error:
            raise KvbenchError(
                f"cannot remove all of {rundir.objects}: {error.strerror}; `kvbench clean {rundir.directory}` does, once "
                "the storage works"
            ) from error
        if strangers:
            raise KvbenchError(
                f"left {rundir.objects}, as it holds files that kvbench did not make: "
                + ", ".join(str(path.name) for path in strangers[:5])
            )

    agreement.run("clean up", remove)
