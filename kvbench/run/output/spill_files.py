"""Where the spill files of a run lie, and what its ranks do about them together: say where, remove them, or advise.

What travels: one sum of two integers before the load and one after it; all else is local, or ends in an agreement.
"""

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kvbench.cluster.agree import Agreement, FailedElsewhere, RanksFailed
from kvbench.cluster.broadcast import total
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.spill.header import SpillHeader, spill_path
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.tables import SAMPLE_DTYPE
from kvbench.tiers.file.filesystem import filesystem_of, on_one_filesystem
from kvbench.tiers.target import Target, Volume
from kvbench.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

_USUAL_PLACES: Final = ("/var/tmp", tempfile.gettempdir, "/dev/shm")


@dataclass(frozen=True, slots=True)
class SpillOrder:
    """What the user asked for; `directory` None: a usual place."""

    wanted: bool = True
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class SpillPlace:
    """The directory that a node's spill files are made in."""

    directory: Path
    filesystem: Volume


def find_place(order: SpillOrder, tested: Sequence[Target]) -> SpillPlace | None:
    """Where this node's spill files go: as ordered, or the first usual place that is not on the filesystem of one of
    `tested` (what is under test of the node's ranks) and can be written. None: nowhere, or not wanted.

    Raises KvbenchError when the ordered directory is no good.
    """
    if not order.wanted:
        return None
    if order.directory is not None:
        return _ordered_place(order.directory, tested)
    for directory in _usual_places():
        if os.access(directory, os.W_OK | os.X_OK) and directory.is_dir():
            place = SpillPlace(directory, filesystem_of(directory))
            if not _is_tested(directory, tested):
                return place
    return None


def _ordered_place(directory: Path, tested: Sequence[Target]) -> SpillPlace:
    if not directory.is_dir():
        raise KvbenchError(
            f"the directory {directory} for spill files does not exist; make it, or give another --spill"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise KvbenchError(f"the directory {directory} for spill files cannot be written; give another with --spill")
    place = SpillPlace(directory, filesystem_of(directory))
    if _is_tested(directory, tested):
        raise KvbenchError(
            f"the directory {directory} for spill files is on the filesystem under test "
            f"({place.filesystem.kind} at {place.filesystem.mount_point}), which writing there would disturb: give one "
            "on another filesystem with --spill"
        )
    return place


def _usual_places() -> Iterable[Path]:
    for place in _USUAL_PLACES:
        yield Path(place if isinstance(place, str) else place())


def _is_tested(directory: Path, tested: Sequence[Target]) -> bool:
    return any(target.is_beside(directory) for target in tested)


def open_spill(place: SpillPlace, header: SpillHeader, pulse: Callable[[], Mapping[str, Any]]) -> SpillWriter:
    """Make this rank's spill file. Raises KvbenchError naming it and what is wrong."""
    path = spill_path(place.directory, header.run_id, header.rank)
    try:
        return SpillWriter(path, json.loads(header.model_dump_json()), SAMPLE_DTYPE, pulse)
    except OSError as error:
        raise KvbenchError(
            f"cannot make the spill file {path}: {error.strerror}; give another directory with --spill, or --no-spill"
        ) from error


def announce(
    console: "Console", topology: Topology, order: SpillOrder, place: SpillPlace | None, spill_bytes: int
) -> None:
    """Say on rank 0 where records go; `spill_bytes` is what this rank's file may need. Collective."""
    nowhere, needed = total(topology.comm, place is None, spill_bytes)
    if topology.rank != 0:
        return
    if not order.wanted:
        text = "no spill files (--no-spill): a rank that is killed takes with it what it has measured"
    elif nowhere:
        text = (
            f"{nowhere} of {topology.size} ranks find no directory for spill files that is not on the "
            "filesystem under test (/var/tmp, TMPDIR, /dev/shm): they keep their records in memory, and if they are "
            "killed they are lost; name one with --spill"
        )
    else:
        assert place is not None, "no rank is without"
        text = f"records are spilled to {place.directory} ({place.filesystem.kind}) on each node"
        if place.filesystem.in_memory:
            text += ", which is memory and does not outlive the node"
        needed = needed * topology.local_size // topology.size
        if place.filesystem.tells_space and needed > place.filesystem.free_bytes:
            text += (
                f"; that may need {format_bytes(needed)}, and {format_bytes(place.filesystem.free_bytes)} are free: "
                "what finds no room stays in memory"
            )
    warning = bool(nowhere) and order.wanted
    console.print(text, style="yellow" if warning else None, soft_wrap=True, highlight=False, markup=False)


def discard(agreement: Agreement, spill: SpillWriter | None) -> None:
    """Remove the spill files of all ranks, whose rows are safe in the run file. Collective."""

    def remove() -> None:
        if spill is not None:
            try:
                spill.remove()
            except OSError as error:
                raise KvbenchError(
                    f"cannot remove the spill file {spill.path}: {error.strerror}; its records are in the run file"
                ) from error

    agreement.run("clean up", remove)


def recovering(spill: SpillWriter, run_id: str, out: Path) -> str:
    """The command that makes a run file of this node's spill files."""
    folder = shlex.quote(str(spill.path.parent))
    return f"kvbench recover {folder}/{spill_path(Path(), run_id, '*')} -o {shlex.quote(str(out))}"


def another_place(out: Path, folders: Iterable[Path]) -> Path:
    """Where the run file can go that could not be written to `out`: into the first of `folders` that can be written and
    is on another filesystem; ELSEWHERE stands for a folder where there is none."""
    for folder in folders:
        with suppress(OSError):
            if os.access(folder, os.W_OK | os.X_OK) and not on_one_filesystem(folder, out.parent):
                return folder / out.name
    return Path("ELSEWHERE") / out.name


def how_to_go_on(spill: SpillWriter | None, run_id: str, out: Path, addresses: Iterable[str], given: str) -> str:
    """What can be done after a run whose ranks were ended without leaving in good order. `addresses` are those under
    test of this node's ranks; where other nodes have others, `given` says which, and else nothing."""
    advice = [] if spill is None else [f"`{recovering(spill, run_id, out)}` makes a run file of what was measured"]
    places = " ".join(shlex.quote(address) for address in dict.fromkeys(addresses))
    if places:
        elsewhere = f" here; on every node there may be some in {given}" if given else ""
        advice.append(f"`kvbench clean {places}` deletes the cache files that are left{elsewhere}")
    return ", ".join(advice)


@contextmanager
def saying_what_is_left(
    topology: Topology, spill: SpillWriter | None, run_id: str, out: Path, writes: bool = False
) -> Iterator[None]:
    """A context after which, if it fails, the message says how to make a run file from the spill files, as far as they
    are there: at `out`, or at another place if it is the context that `writes` there. Collective.
    """
    try:
        yield
    except (RanksFailed, FailedElsewhere) as error:
        if spill is not None:
            spill.keep_name()
        gone = spill is None or not spill.is_there
        incomplete, lost = total(topology.comm, spill is None or not spill.keeping, gone)
        if isinstance(error, FailedElsewhere):
            raise
        if writes and spill is not None:
            out = another_place(out, (spill.path.parent, Path.cwd(), Path(tempfile.gettempdir())))
        raise type(error)(f"{error}{_what_is_left(topology.size, spill, run_id, out, incomplete, lost)}") from error


def _what_is_left(ranks: int, spill: SpillWriter | None, run_id: str, out: Path, incomplete: int, lost: int) -> str:
    """What follows a message of a run file that could not be written. `incomplete`: ranks whose spill file does not
    hold all of their records, `lost`: those that have none."""
    if spill is None:
        return ""
    if lost == ranks:
        return "\n  the spill files were deleted while the run went on, and the records with them"
    but = f" (but on {lost} ranks they are gone)" if lost else ""
    but = but or (f" (but on {incomplete} ranks not all of them)" if incomplete else "")
    return (
        f"\n  the records of each rank are still in {spill_path(spill.path.parent, run_id, '*')} on its node{but}: "
        f"'{recovering(spill, run_id, out)}' makes a run file of them"
    )
