"""The key space that ranks share, as the main thread of a rank sees it: joined, kept up in rounds, and reported.

What travels before the load: each rank's node, and the offset of its clock (8 bytes a rank, to every rank, each); after
it four numbers of each rank's clock (32 bytes a rank, to every rank), and to rank 0 one row of each rank and the
samples of what was found. During the load: `kvbench.cluster.exchange`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import Communicator, quiet_barrier
from kvbench.cluster.exchange import DirectoryExchange, Saying
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import RunConfig
from kvbench.engine.engine import Load
from kvbench.engine.sharing import Sharing
from kvbench.engine.violations import Violation, Violations
from kvbench.engine.visibility import Looker
from kvbench.errors import KvbenchError
from kvbench.records.clock import ClockReading, CommonClock
from kvbench.records.tables import VIOLATION_DTYPE, VISIBILITY_DTYPE, as_rows
from kvbench.run.build import run_number
from kvbench.tiers.contract import Tier
from kvbench.tiers.payload import Payload
from kvbench.workload.build import build_handover, decoder_of
from kvbench.workload.traces import Trace

SHARING_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("role", "S8"),
        ("written_objects", "<i8"),
        ("retired_objects", "<i8"),
        ("handed_over_requests", "<i8"),
        ("evicted_reads", "<i8"),
        ("longest_grace_ns", "<i8"),
        ("looked_for_objects", "<i8"),
        *((f"{kind.value}_violations", "<i8") for kind in Violation),
    ]
)
"""One row a rank. The last columns count violations of the filesystem's promise, by kind."""

_VISIBILITY_ROWS: Final = 262_144
"""Of all ranks together, at most; each rank keeps its share, and 16 at least."""


def join(topology: Topology, config: RunConfig, part: Trace | None) -> Sharing | None:
    """This rank's part in the shared key space; None where each rank has its own. Collective where it is shared.

    `part` is this rank's part of the trace, None for personas.
    """
    if config.namespace == "private":
        return None
    nodes = _from_all(topology.comm, np.array([topology.node], np.int64))[:, 0]
    sharing = Sharing(topology.rank, nodes, len(config.tiers) - 1)
    roles = config.role_ranks
    if roles is not None:
        sharing.role = roles.of(topology.rank)
        sharing.prefill_ranks = roles.prefill
        if sharing.role == "prefill":
            sharing.decoder_of = decoder_of(config, roles, topology.rank)
        else:
            sharing.handover = build_handover(config, roles, part)
    return sharing


def exchange_offsets(topology: Topology, sharing: Sharing, reading: ClockReading) -> None:
    """Let every rank know how far every other rank's clock is from its own. Collective."""
    offsets = _from_all(topology.comm, np.array([reading.offset_ns], np.int64))[:, 0]
    sharing.offsets_ns = offsets - reading.offset_ns


def payloads(payload: Payload, run_id: str) -> Callable[[int], Payload]:
    """What each rank of the run writes, from this rank's own `payload`."""
    known: dict[int, Payload] = {}

    def payload_of(rank: int) -> Payload:
        return known.get(rank) or known.setdefault(rank, payload.written_by(run_number(run_id, rank)))

    return payload_of


def make_looker(
    topology: Topology, sharing: Sharing, tier: Tier, payload_of: Callable[[int], Payload], violations: Violations
) -> Looker:
    """Looks for objects of other ranks while the load runs; `tier` holds this rank's own."""
    return Looker(sharing, tier, payload_of, violations, max(16, _VISIBILITY_ROWS // topology.size))


class Rounds:
    """The rounds of one load, moved on from the main thread. Making one is collective."""

    def __init__(self, comm: Communicator, sharing: Sharing, load: Load, looker: Looker | None) -> None:
        self._exchange = DirectoryExchange(comm, sharing.taken_in + 1)
        self._load = load
        self._looker = looker

    @property
    def over(self) -> bool:
        """No rank has anything to say any more."""
        return self._exchange.over

    def poll(self) -> None:
        """Move the round on, without waiting, and take it in when it is complete."""
        done = self._exchange.poll(self._say)
        if done is None:
            return
        self._load.dispatcher.take_in(done.number, done.news, done.settled, done.finished)
        if self._looker is not None:
            self._looker.offer(done.news)

    def _say(self, number: int) -> Saying:
        # Asked first: once it is finished, nothing is added to what there is to say.
        finished = self._load.finished
        news, settled = self._load.dispatcher.say(number)
        return Saying(news, settled, finished)


def check_shared(group: int, nodes: int, topology: Topology, directory: object) -> None:
    """Raise KvbenchError where the nodes do not all see `directory` as one place; `group` and `nodes` are of the
    group of nodes that this node shares it with."""
    if nodes != topology.nodes:
        where = "does not share" if group == topology.node else "shares only with some nodes"
        raise KvbenchError(
            f"namespace is shared, but {topology.host} {where} {directory} ({nodes} of {topology.nodes} nodes see the "
            "same place there): mount the same filesystem on all nodes, or set namespace=private"
        )


def report(
    topology: Topology,
    sharing: Sharing | None,
    violations: Violations | None,
    looker: Looker | None,
    found: npt.NDArray[np.void] | None,
    clock: CommonClock,
) -> dict[str, npt.NDArray[np.void]]:
    """This rank's rows of the tables that a shared key space adds, times on rank 0's clock. Collective where it is
    shared; empty where it is not."""
    if sharing is None or violations is None:
        return {}
    counts = sharing.counts
    row: dict[str, int | str] = {
        "rank": topology.rank,
        "role": sharing.role or "",
        "written_objects": counts.written,
        "retired_objects": counts.retired,
        "handed_over_requests": counts.handed_over,
        "evicted_reads": counts.evicted_reads,
        "longest_grace_ns": counts.longest_grace_ns,
        "looked_for_objects": 0 if looker is None else looker.looked_for,
    }
    row |= {f"{kind.value}_violations": number for kind, number in violations.counts.items()}
    broken = violations.rows()
    broken["t_ns"] = clock.to_common(np.ascontiguousarray(broken["t_ns"]))
    rows = np.empty(0, VISIBILITY_DTYPE) if found is None else found
    return {
        "sharing": as_rows([row], SHARING_DTYPE),
        "violations": broken.astype(VIOLATION_DTYPE),
        "visibility": _on_one_clock(topology.comm, rows, clock),
    }


def _on_one_clock(comm: Communicator, rows: npt.NDArray[np.void], clock: CommonClock) -> npt.NDArray[np.void]:
    """`rows` of VISIBILITY_DTYPE with the writers' times and this rank's on rank 0's clock. Collective."""
    before, after = clock.before, clock.after
    mine = np.array([before.local_ns, before.offset_ns, after.local_ns, after.offset_ns], np.int64)
    clocks = _from_all(comm, mine)
    rows = rows.copy()
    seen = rows["readable_ns"] != 0
    for column in ("heard_ns", "readable_ns"):
        rows[column] = clock.to_common(np.ascontiguousarray(rows[column]))
    rows["readable_ns"][~seen] = 0
    for writer in np.unique(rows["writer"]):
        local_before, offset_before, local_after, offset_after = (int(value) for value in clocks[writer])
        theirs = CommonClock(
            ClockReading(local_before, offset_before, 0, 0), ClockReading(local_after, offset_after, 0, 0)
        )
        of_writer = rows["writer"] == writer
        rows["written_ns"][of_writer] = theirs.to_common(np.ascontiguousarray(rows["written_ns"][of_writer]))
    return rows


def _from_all(comm: Communicator, mine: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(ranks, len(mine)) what every rank has, on every rank. Collective."""
    every = np.zeros((comm.size, len(mine)), np.int64)
    quiet_barrier(comm)
    comm.Allgather(mine, every)
    return every
