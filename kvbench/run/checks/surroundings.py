"""The node and the storage that a rank finds itself on, looked at before anything is made there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from kvbench.cluster.agree import Agreement
from kvbench.cluster.node import Node, describe_node
from kvbench.cluster.topology import Seat, Topology
from kvbench.errors import KvbenchError
from kvbench.run.checks.expectation import check_expectation, settle_seconds
from kvbench.run.checks.volumes import VolumeGroup, no_group, volume_group, volume_group_of_own
from kvbench.run.directories import directory_of
from kvbench.run.order import Plan
from kvbench.run.output.spill_files import SpillPlace, find_place
from kvbench.tiers.kinds import target_of
from kvbench.tiers.target import NO_VOLUME, NoTarget, Target, Volume


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the storage that this rank found."""

    node: Node
    targets: Sequence[Target]
    """Of each rank of this node, in their order; empty where nothing is under test."""
    target: Target
    """This rank's."""
    filesystem: Volume
    group: VolumeGroup
    spill: SpillPlace | None
    """Where records are spilled to, if at all."""

    def disks(self) -> tuple[str, ...]:
        """The block devices that this node's targets are on, as far as they are on any, each once. Raises OSError."""
        found = (target.describe().disk for target in self.targets)
        return tuple(dict.fromkeys(disk for disk in found if disk is not None))


def look_around(topology: Topology, agreement: Agreement, plan: Plan, targets: Sequence[Target]) -> Surroundings:
    """Look at the node and at this rank's target, of `targets` of the node's ranks, and find who shares its volume.
    Collective.

    Raises KvbenchError on rank 0, naming everything that was found by any rank, and FailedElsewhere on the others.
    """
    given, spill, expect = plan.order.directory, plan.order.spill, plan.order.expect
    if given is None:
        node, place = agreement.run("check", lambda: (describe_node(), find_place(spill, ())))
        return Surroundings(node, (), NoTarget(), NO_VOLUME, no_group(topology), place)
    target = targets[topology.local_rank]

    def look() -> tuple[Node, Volume, SpillPlace | None]:
        target.check()
        # What another rank's target lacks, that rank says.
        return describe_node(), target.describe(), find_place(spill, [one for one in targets if _can_be_used(one)])

    node, filesystem, place = agreement.run("check", look)
    find = partial(volume_group, topology, target)
    if plan.own_directories:
        find = partial(volume_group_of_own, topology, targets, partial(_target_of, plan, given))
    group = agreement.run("check", lambda: find(plan.run_id, settle_seconds(expect)))
    check_expectation(topology, agreement, expect, given, filesystem, group)
    return Surroundings(node, targets, target, filesystem, group, place)


def _target_of(plan: Plan, given: str, seat: Seat) -> Target:
    return target_of(plan.config, directory_of(given, seat))


def _can_be_used(target: Target) -> bool:
    try:
        target.check()
    except KvbenchError:
        return False
    return True
