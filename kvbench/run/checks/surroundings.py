"""The node and the storage that a rank finds itself on, looked at before anything is made there."""

from dataclasses import dataclass

from kvbench.cluster.agree import Agreement
from kvbench.cluster.node import Node, describe_node
from kvbench.cluster.topology import FilesystemGroup, Topology, filesystem_group
from kvbench.run.checks.expectation import check_expectation, settle_seconds
from kvbench.run.order import Order
from kvbench.run.output.spill_files import SpillPlace, find_place
from kvbench.tiers.file.filesystem import filesystem_of
from kvbench.tiers.file.run_directory import check_directory
from kvbench.tiers.target import NO_VOLUME, Volume


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the storage that this rank found."""

    node: Node
    filesystem: Volume
    group: FilesystemGroup
    spill: SpillPlace | None
    """Where records are spilled to, if at all."""


def look_around(topology: Topology, agreement: Agreement, order: Order, run_id: str) -> Surroundings:
    directory, spill, expect = order.directory, order.spill, order.expect
    if directory is None:
        node, place = agreement.run("check", lambda: (describe_node(), find_place(spill, None)))
        group = FilesystemGroup(0, topology.size, topology.nodes, 0, topology.nodes)
        return Surroundings(node, NO_VOLUME, group, place)

    def look() -> tuple[Node, Volume, SpillPlace | None]:
        check_directory(directory)
        return describe_node(), filesystem_of(directory), find_place(spill, directory)

    node, filesystem, place = agreement.run("check", look)
    settle_s = settle_seconds(expect)
    group = agreement.run("check", lambda: filesystem_group(topology, directory, run_id, settle_s))
    check_expectation(topology, agreement, expect, directory, filesystem, group)
    return Surroundings(node, filesystem, group, place)
