"""What a rank has built and checked before the load, and gives back after it: directory, memory, tiers, engine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from kvbench import timed_io
from kvbench.cluster.agree import Agreement, FailedElsewhere, RanksFailed
from kvbench.cluster.node import peak_resident_bytes
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import RunConfig
from kvbench.engine.engine import Engine, RankSeat
from kvbench.engine.final_sync import sync_at_end
from kvbench.engine.sharing import Sharing
from kvbench.engine.visibility import Looker
from kvbench.errors import KvbenchError
from kvbench.records.clock import CommonClock
from kvbench.records.condensed.digest import Digest
from kvbench.records.spill.header import SpillHeader
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.stream import RowStream, Taker
from kvbench.records.tally import Tally
from kvbench.run.build import check_paths, make_arena, make_payload, run_number
from kvbench.run.calibration import (
    CalibrationObject,
    Turns,
    memory_copy_gib_per_s,
    turns_s,
)
from kvbench.run.checks.open_files import check_open_files
from kvbench.run.checks.sizes import Sizes, plan_sizes
from kvbench.run.checks.surroundings import Surroundings, look_around
from kvbench.run.order import Plan, known_attributes, tier_names
from kvbench.run.output.run_file import node_facts, node_row, place_row
from kvbench.run.output.spill_files import open_spill
from kvbench.run.shared_space import check_shared, make_looker, payloads
from kvbench.tiers.arena import Arena
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.engines import check_engine
from kvbench.tiers.kinds import open_tiers
from kvbench.tiers.payload import Payload
from kvbench.tiers.target import Area
from kvbench.workload.request import QOS_CLASSES, Schedule


@dataclass(frozen=True, slots=True)
class Bench:
    """One rank, ready to run its load."""

    config: RunConfig
    around: Surroundings
    sizes: Sizes
    run_id: str
    area: Area
    tiers: list[Tier]
    arena: Arena
    payload: Payload
    engine: Engine
    tally: Tally
    digest: Digest | None
    """What is kept of the rows where they are not all kept."""
    spill: SpillWriter | None
    stream: RowStream

    @classmethod
    @contextmanager
    def build(
        cls,
        topology: Topology,
        agreement: Agreement,
        plan: Plan,
        addresses: tuple[str, ...],
        schedule: Schedule,
        sharing: Sharing | None = None,
    ) -> Iterator[Self]:
        """Check and build on every rank, then clean up on every rank, however the load ended. Collective, but for the
        cleaning up after an error that was not agreed on. `addresses` are those under test of this node's ranks;
        `sharing` is this rank's part in a shared key space."""
        around = look_around(topology, agreement, plan, addresses)
        area = around.target.area(plan.run_id, topology.rank)
        if sharing is not None:
            group = around.group
            agreement.run("check", lambda: check_shared(group.group, group.nodes, topology, area.address))
        fills = plan.order.precondition is not None
        sizes = plan_sizes(topology, agreement, plan.config, schedule, around, fills)
        with cleaned_up(agreement, area), ExitStack() as stack:
            interrupt = agreement.interrupt
            yield agreement.run(
                "check", lambda: cls._assemble(stack, topology, plan, around, sizes, area, sharing, interrupt)
            )

    @classmethod
    def _assemble(
        cls,
        stack: ExitStack,
        topology: Topology,
        plan: Plan,
        around: Surroundings,
        sizes: Sizes,
        area: Area,
        sharing: Sharing | None,
        interrupt: Interrupt,
    ) -> Self:
        config = plan.config
        depth = 0 if config.io.engine == "sync" else config.io.depth
        if config.tiers[-1].facts.requests:
            # A request in flight has a connection.
            depth = config.io.depth
        check_open_files(topology, config.io.threads, depth)
        check_engine(config.io)
        area.create()
        with interrupt.raising():
            payload = make_payload(config, run_number(plan.run_id, topology.rank))
            arena = make_arena(sizes.arena_bytes, config.io.threads, payload)
        stack.callback(arena.close)
        tiers = open_tiers(config, sizes.capacities, area)
        for tier in tiers:
            stack.callback(tier.close)
        if tiers[-1].storage and tiers[-1].holds_bytes:
            check_paths(config, tiers[-1], around.volume)
        home, payload_of = RankSeat(topology.rank, topology.host, topology.size), payloads(payload, plan.run_id)
        engine = Engine(config, home, tiers, sizes.capacities, arena, payload, sharing, payload_of, plan.order.speed)
        stack.callback(engine.close)
        tally, spill, digest = Tally(), None, None
        if around.spill is not None:
            header = SpillHeader(
                run_id=plan.run_id,
                rank=topology.rank,
                ranks=topology.size,
                node=topology.node,
                host=topology.host,
                started_at=plan.started_at,
                attributes=known_attributes(
                    plan, topology, around.group.sharing, tiers, sizes.capacities, arena.nbytes
                ),
                node_row=node_facts(around.node, _place_row(topology, around)),
                rank_row=_known_rank_row(topology, arena, sizes, tiers),
                directory_row=_directory_row(topology, around) if plan.own_directories else {},
            )
            spill = open_spill(around.spill, header, lambda: _pulse(engine, tiers))
        if config.records != "full":
            digest = Digest(config.records, topology.rank, topology.size, len(tiers), len(QOS_CLASSES))
        # Where a digest is what is wanted of the rows, the spill file is there only for what may be killed.
        takers: list[Taker] = [tally] if digest is None or spill is None else [tally, spill]
        stream = RowStream(engine.stores, engine.requests, takers, digest or spill, engine.failures.append)
        stack.callback(_leave, stream, spill)
        return cls(
            config, around, sizes, plan.run_id, area, tiers, arena, payload, engine, tally, digest, spill, stream
        )

    @property
    def tier_names(self) -> list[str]:
        """Names of the tiers, fastest first."""
        return tier_names([tier.kind for tier in self.tiers])

    def node_row(self, topology: Topology, clock: CommonClock) -> dict[str, str | int | float]:
        """This node's row of /nodes."""
        return node_row(self.around.node, _place_row(topology, self.around), clock)

    def directory_row(self, topology: Topology) -> dict[str, str | int]:
        """This rank's row of /directories."""
        return _directory_row(topology, self.around)

    def known_rank_row(self, topology: Topology) -> dict[str, str | int]:
        """The columns of this rank's row of /ranks that do not depend on the load."""
        return _known_rank_row(topology, self.arena, self.sizes, self.tiers)

    def begin_stream(self) -> None:
        """Hand on rows from now on; once."""
        if not self.stream.started:
            self.stream.start()

    def sync_at_end(self, rank: int) -> None:
        """Make durable what the load wrote, where that was put off until it is over; workers are no more."""
        if self.config.io.sync == "end":
            failure = sync_at_end(self.tiers, self.engine.stores[0], rank, self.engine.cancel_flag)
            if failure:
                self.engine.failures.append(failure)

    def farewell(self, within_s: float) -> None:
        """What is left to do in a rank that is ended without leaving in good order: keep the rows that it holds."""
        if self.stream.started:
            self.stream.hand_on(within_s)
        elif self.spill is not None:
            self.spill.remove()

    def note(self, **facts: object) -> None:
        """Have `facts` (`header.SpillFacts`) in the spill file with the next round."""
        if self.spill is not None:
            self.spill.add_facts(facts)

    def looker(self, topology: Topology) -> Looker | None:
        """Looks for what other ranks wrote, where ranks share a key space."""
        sharing, violations = self.engine.sharing, self.engine.violations
        if sharing is None or violations is None or topology.size == 1:
            return None
        return make_looker(topology, sharing, self.tiers[-1], payloads(self.payload, self.run_id), violations)

    def calibration_s(self, topology: Topology) -> float:
        """How long `calibrate` takes on this rank's node, on a storage that is not slow."""
        seconds = self.config.calibration.seconds
        return (2 if self._calibrates_storage else 1) * (turns_s(seconds, topology.local_size) + seconds)

    def calibrate(self, topology: Topology, interrupt: Interrupt) -> npt.NDArray[np.void]:
        """Memory copy and storage read bandwidth, each rank of the node alone and then all at once (CALIBRATION_DTYPE).

        The ranks of a node take turns, so run it in an agreement: an error is raised when all turns are over, or
        Interrupted when one of them is asked to end.
        """
        settings = self.config.calibration
        turns = Turns(topology, settings.seconds, interrupt)
        if settings.seconds == 0:
            return turns.rows()
        stop = turns.stop
        turns.measure("memcpy", lambda s: memory_copy_gib_per_s(self.arena, s, self.config.io.io_bytes, stop))
        storage = self.tiers[-1]
        if self._calibrates_storage:
            full = self.config.payload.verify == "full"
            nbytes = settings.bytes if storage.most_bytes is None else min(settings.bytes, storage.most_bytes)
            tried = CalibrationObject(storage, self.arena, self.payload, nbytes, full, stop)
            turns.attempt(tried.told("write")(tried.write))
            turns.measure("storage-read", tried.told("read")(tried.read_gib_per_s))
            turns.attempt(tried.told("delete")(tried.delete))
            # Not all that was read was compared, and what objects are made of lies there.
            self.arena.renew()
        return turns.rows()

    @property
    def _calibrates_storage(self) -> bool:
        return self.tiers[-1].storage and self.tiers[-1].holds_bytes


def _place_row(topology: Topology, around: Surroundings) -> dict[str, str | int]:
    return place_row(topology.node, around.target.address, around.volume, around.group.group)


def _directory_row(topology: Topology, around: Surroundings) -> dict[str, str | int]:
    return _place_row(topology, around) | {
        "rank": topology.rank,
        "filesystem_group": around.group.first_rank,
        "sharing_ranks": around.group.ranks,
        "free_bytes": around.volume.free_bytes,
    }


def _known_rank_row(topology: Topology, arena: Arena, sizes: Sizes, tiers: Sequence[Tier]) -> dict[str, str | int]:
    return {
        "rank": topology.rank,
        "node": topology.node,
        "host": topology.host,
        "pid": os.getpid(),
        "arena_bytes": arena.nbytes,
        "predicted_peak_bytes": sizes.need.total,
        "storage_capacity_bytes": sizes.capacities[-1] if tiers[-1].storage else 0,
    }


def _pulse(engine: Engine, tiers: Sequence[Tier]) -> dict[str, int]:
    """What a spill file says of a rank in each round."""
    return {
        "t_ns": timed_io.now_ns(),
        "verified_sectors": engine.verified_sectors,
        "too_large_objects": engine.books.cache.too_large,
        "retried_requests": sum(tier.retried_requests for tier in tiers),
        "peak_rss_bytes": peak_resident_bytes(),
    }


def _leave(stream: RowStream, spill: SpillWriter | None) -> None:
    """End the stream. The spill file stays where it is if it may hold rows: only who knows that they are safe elsewhere
    removes it."""
    began = stream.started
    stream.stop()
    if spill is not None and began:
        spill.close()
    elif spill is not None:
        spill.remove()


@contextmanager
def cleaned_up(agreement: Agreement, area: Area) -> Iterator[None]:
    """A context after which the ranks' directories are removed; an error in it is told first, with one in removing."""
    try:
        yield
    except (RanksFailed, FailedElsewhere) as first:
        try:
            _clean_up(agreement, area)
        except RanksFailed as second:
            raise RanksFailed(f"{first}\n{second}") from first
        raise
    except BaseException:
        # Not agreed on: the other ranks are not here to agree on this either.
        area.remove()
        raise
    else:
        _clean_up(agreement, area)


def _clean_up(agreement: Agreement, area: Area) -> None:
    def remove() -> None:
        try:
            strangers = area.remove()
        except OSError as error:
            raise KvbenchError(
                f"cannot remove all of {area.where}: {error.strerror}; 'kvbench clean {area.address}' does, "
                "once the storage works"
            ) from error
        if strangers:
            raise KvbenchError(
                f"left {area.where}, as it holds files that kvbench did not make: " + ", ".join(strangers[:5])
            )

    agreement.interrupt.waits_for = f"removing the cache files in {area.address}"
    agreement.run("clean up", remove)
