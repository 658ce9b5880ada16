"""What a copy-path study needs of directories and memory, checked before anything is written or measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from kvbench.cluster.agree import Agreement
from kvbench.cluster.node import Node, describe_node
from kvbench.cluster.places import PlaceGroup, place_group
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.schema import WHOLE_COPIES, Path, label
from kvbench.run.checks.open_files import check_open_files
from kvbench.run.checks.sizes import FREE_SPACE_SHARE, process_bytes, refuse_beyond_limit
from kvbench.studies.equipment import tier_settings
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import StudyStep, record_bytes_per_rank, stored_bytes_per_rank
from kvbench.tiers.arena import usual_arena_bytes, whole_segments
from kvbench.tiers.kinds import target_at
from kvbench.tiers.target import Area, Target, Volume
from kvbench.tiers.trial import try_out
from kvbench.units import GIB, format_bytes

_LARGEST_ARENA_BYTES: Final = GIB
"""Up to here the arena has room for the objects of all threads at once, so that none lands on itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """One directory under test, as this node sees it."""

    target: Target
    filesystem: Volume
    group: PlaceGroup


@dataclass(frozen=True, slots=True)
class StudyPlaces:
    """This rank's node and the directories, found fit for the study."""

    node: Node
    places: tuple[Place, ...]
    arena_bytes: int
    memory_bytes: int
    """What this rank will hold at its peak."""


def look_around(
    topology: Topology, agreement: Agreement, choices: CopyPathChoices, steps: list[StudyStep], run_id: str
) -> StudyPlaces:
    """Check the ranks, the directories, their space and read paths, and memory. Collective.

    Raises KvbenchError on rank 0, naming everything that was found by any rank, and FailedElsewhere on the others.
    """
    agreement.run("check", lambda: check_ranks(topology, choices))
    targets = [target_at(str(directory)) for directory in choices.directories]
    node, filesystems = agreement.run("check", lambda: _look(targets))
    places = []
    for target, filesystem in zip(targets, filesystems, strict=True):
        group = agreement.run("check", partial(place_group, topology, target, run_id))
        places.append(Place(target, filesystem, group))

    def check() -> StudyPlaces:
        check_open_files(topology, max(choices.threads))
        arena = arena_bytes(choices, node.llc_bytes)
        records = record_bytes_per_rank(steps, choices)
        memory = process_bytes() + arena + whole_entry_bytes(choices) + records
        if topology.local_rank == 0:
            check_space(places, choices)
            check_memory(node, places, choices, arena, records)
            for place in places:
                check_paths(place, place.target.area(run_id, topology.rank), choices.read_paths)
        return StudyPlaces(node, tuple(places), arena, memory)

    return agreement.run("check", check)


def check_ranks(topology: Topology, choices: CopyPathChoices) -> None:
    """Raise KvbenchError when this node has fewer ranks than the study wants."""
    if topology.local_rank == 0 and topology.local_size < max(choices.ranks):
        raise KvbenchError(
            f"the study wants {max(choices.ranks)} ranks on each node, and {topology.local_size} were started here: "
            f"start more, or give smaller numbers to --ranks"
        )


def _look(targets: Sequence[Target]) -> tuple[Node, list[Volume]]:
    for target in targets:
        target.check()
    return describe_node(), [target.describe() for target in targets]


def arena_bytes(choices: CopyPathChoices, last_level_cache_bytes: int) -> int:
    """Bytes of a rank's arena: as in a run, and room for the objects of all threads up to 1 GiB."""
    threads = max(choices.threads)
    usual = usual_arena_bytes(last_level_cache_bytes, max(choices.ranks))
    return whole_segments(max(usual, min(threads * max(choices.sizes), _LARGEST_ARENA_BYTES)), threads)


def whole_entry_bytes(choices: CopyPathChoices) -> int:
    """Memory that the read paths of a rank take for whole objects, all its threads at once."""
    copies = max((WHOLE_COPIES.get(path, 0) for path in choices.read_paths), default=0)
    return copies * max(choices.threads) * max(choices.sizes)


def check_space(places: Sequence[Place], choices: CopyPathChoices) -> None:
    """Raise KvbenchError when a filesystem has no room for the objects of all ranks that use it."""
    each = stored_bytes_per_rank(choices)
    for place in places:
        filesystem = place.filesystem
        # Several of the directories may be on one filesystem.
        same = [other for other in places if _mount(other) == _mount(place)]
        needed = len(same) * each * max(choices.ranks) * place.group.nodes
        usable = int(filesystem.free_bytes * FREE_SPACE_SHARE)
        if needed > usable:
            raise KvbenchError(
                f"the study writes {format_bytes(needed)} to {place.target.address} ({filesystem.kind}), where "
                f"{format_bytes(usable)} can be used: free some space, or use fewer ranks, fewer threads or smaller "
                "sizes"
            )


def check_memory(node: Node, places: Sequence[Place], choices: CopyPathChoices, arena: int, record_bytes: int) -> None:
    """Raise KvbenchError when the ranks of a node would need more memory than it has left."""
    ranks = max(choices.ranks)
    whole = whole_entry_bytes(choices)
    files = sum(stored_bytes_per_rank(choices) for place in places if place.filesystem.in_memory)
    parts = {
        "whole entries for the numpy read paths": whole,
        "arena": arena,
        "records at most": record_bytes,
        "files on a filesystem in memory": files,
    }
    advice = "use fewer ranks, fewer threads or smaller sizes, less time, or leave double-copy and numpy out of --paths"
    refuse_beyond_limit(node, ranks, ranks * sum(parts.values()), parts, advice)


def check_paths(place: Place, area: Area, read_paths: Sequence[Path]) -> None:
    """Raise KvbenchError when the place refuses one of the read paths. Writes a little to `area` and removes it."""
    area.create()
    try:
        for path in read_paths:
            tier = area.open_tier(tier_settings(path))
            try:
                trouble = try_out(tier)
            finally:
                tier.close()
            if trouble is not None:
                raise KvbenchError(
                    f"read path {label(path)} does not work on {place.filesystem.kind} at {place.target.address}: "
                    f"{trouble.reason}; leave it out with --paths"
                )
    finally:
        area.remove()


def _mount(place: Place) -> tuple[str, str]:
    return place.filesystem.mount_point, place.filesystem.device
