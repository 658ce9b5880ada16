"""The node and the storage that a rank finds itself on, looked at before anything is made there."""

from dataclasses import dataclass, replace
from functools import partial

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import lowest_of_group
from kvbench.cluster.node import Node, describe_node
from kvbench.cluster.places import PlaceGroup, no_group, place_group, place_group_of_own
from kvbench.cluster.topology import Seat, Topology
from kvbench.run.addresses import address_of
from kvbench.run.checks.expectation import check_expectation, settle_seconds
from kvbench.run.order import Plan
from kvbench.run.output.spill_files import SpillPlace, find_place
from kvbench.tiers.kinds import target_of
from kvbench.tiers.target import Target, Volume


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the storage that this rank found."""

    node: Node
    targets: tuple[Target, ...]
    """Those of the ranks of this node, in their order; empty where there are none."""
    target: Target
    """This rank's."""
    volume: Volume
    group: PlaceGroup
    spill: SpillPlace | None
    """Where records are spilled to, if at all."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of `targets`."""
        return tuple(target.address for target in self.targets)


def look_around(topology: Topology, agreement: Agreement, plan: Plan, addresses: tuple[str, ...]) -> Surroundings:
    """Look at the node and this rank's target, of those at the `addresses` of the node's ranks, and find who has the
    same. Collective.

    Raises KvbenchError on rank 0, naming everything that was found by any rank, and FailedElsewhere on the others.
    """
    given, spill, expect = plan.order.directory, plan.order.spill, plan.order.expect
    targets = tuple(target_of(plan.config, address) for address in addresses)
    target = targets[topology.local_rank] if targets else target_of(plan.config, None)

    def look() -> tuple[Node, Volume, SpillPlace | None]:
        target.consent(plan.order.consent_devices)
        target.check()
        return describe_node(), target.describe(), find_place(spill, targets)

    node, volume, place = agreement.run("check", look)
    if given is None:
        return Surroundings(node, (), target, volume, no_group(topology), place)
    find = partial(place_group, topology, target)
    if plan.own_directories:

        def target_at(seat: Seat) -> Target:
            return target_of(plan.config, address_of(given, seat))

        find = partial(place_group_of_own, topology, targets, target_at)
    group = agreement.run("check", lambda: find(plan.run_id, settle_seconds(expect)))
    check_expectation(topology, agreement, expect, given, volume, group)
    # Each has looked at its own time, and something else may use the place: one figure for all that share it.
    volume = replace(volume, free_bytes=lowest_of_group(topology.comm, volume.free_bytes, group.first_rank))
    return Surroundings(node, targets, target, volume, group, place)
