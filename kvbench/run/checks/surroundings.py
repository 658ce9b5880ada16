"""The node and the storage that a rank finds itself on, looked at before anything is made there."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kvbench.cluster.agree import Agreement
from kvbench.cluster.filesystems import FilesystemGroup, filesystem_group, filesystem_group_of_own, no_group
from kvbench.cluster.node import Node, describe_node
from kvbench.cluster.topology import Topology
from kvbench.run.checks.expectation import check_expectation, settle_seconds
from kvbench.run.directories import directory_of
from kvbench.run.order import Plan
from kvbench.run.output.spill_files import SpillPlace, find_place
from kvbench.tiers.file.filesystem import filesystem_of, on_one_filesystem
from kvbench.tiers.file.run_directory import check_directory
from kvbench.tiers.target import NO_VOLUME, Volume


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The node and the storage that this rank found."""

    node: Node
    directories: tuple[Path, ...]
    """Under test: of each rank of this node, in their order; empty where there are none."""
    directory: Path
    """This rank's."""
    filesystem: Volume
    group: FilesystemGroup
    spill: SpillPlace | None
    """Where records are spilled to, if at all."""


def look_around(topology: Topology, agreement: Agreement, plan: Plan, directories: tuple[Path, ...]) -> Surroundings:
    """Look at the node and this rank's directory, of those of the node's ranks, and find who shares its filesystem.
    Collective.

    Raises KvbenchError on rank 0, naming everything that was found by any rank, and FailedElsewhere on the others.
    """
    given, spill, expect = plan.order.directory, plan.order.spill, plan.order.expect
    if given is None:
        node, place = agreement.run("check", lambda: (describe_node(), find_place(spill, ())))
        return Surroundings(node, (), Path("none"), NO_VOLUME, no_group(topology), place)
    directory = directories[topology.local_rank]

    def look() -> tuple[Node, Volume, SpillPlace | None]:
        check_directory(directory)
        # What another rank's directory lacks, that rank says.
        there = [path for path in dict.fromkeys(directories) if path.is_dir()]
        return describe_node(), filesystem_of(directory), find_place(spill, there)

    node, filesystem, place = agreement.run("check", look)
    find = partial(filesystem_group, topology, directory, on_one_filesystem)
    if plan.own_directories:
        find = partial(filesystem_group_of_own, topology, directories, partial(directory_of, given), on_one_filesystem)
    group = agreement.run("check", lambda: find(plan.run_id, settle_seconds(expect)))
    check_expectation(topology, agreement, expect, given, filesystem, group)
    return Surroundings(node, directories, directory, filesystem, group, place)
