"""Whether the nodes see the directory under test as the user expects: one that all share, or each one of its own.

A filesystem that was forgotten to be mounted on one node leaves an empty directory on the node's own disk: a run over
it works, and measures something else. `--expect` makes that an error before anything is measured.

What travels, where something is expected: one sum of one integer over all ranks; and where that is not so, one row of
half a KB for each filesystem of each node to rank 0.
"""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import total
from kvbench.cluster.gather import gather_table
from kvbench.cluster.places import PlaceGroup
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.tables import as_rows
from kvbench.tiers.target import Volume

Expect = Literal["shared", "local", ""]
"""What the user expects of the directory under test; "" for nothing."""

_SETTLE_S: Final[Mapping[Expect, float]] = {"shared": 5.0, "local": 1.0, "": 0.3}
"""How long to look for other nodes' files: where somebody is sure that they are there, longer."""

_ROW: Final = np.dtype(
    [
        ("node", "<i8"),
        ("group", "<i8"),
        ("host", "S64"),
        ("kind", "S32"),
        ("device", "S160"),
        ("mount_point", "S256"),
        ("reach", "S8"),
    ]
)
_MOST_PLACES: Final = 8
_MOST_HOSTS: Final = 8


def settle_seconds(expect: Expect) -> float:
    """How long a node looks for the files of the others before it believes that they are not there."""
    return _SETTLE_S[expect]


def check_expectation(
    topology: Topology,
    agreement: Agreement,
    expect: Expect,
    given: str,
    volume: Volume,
    group: PlaceGroup,
) -> None:
    """Raise KvbenchError on rank 0 (FailedElsewhere on the others) where the directory that was `given` is not as
    expected. Collective.

    With one node the kind of its filesystem has to tell: a local one is not shared, and a network one not local. Of any
    other kind nothing can be told, and the expectation is taken to hold; the run file says `single-node` then.
    """
    if not expect or not total(topology.comm, _disappoints(expect, volume, group))[0]:
        return
    mine = {
        "node": topology.node,
        "group": group.group,
        "host": topology.host,
        "kind": volume.kind,
        "device": volume.device,
        "mount_point": volume.mount_point,
        "reach": volume.reach,
    }
    table = gather_table(topology.comm, as_rows([mine] if group.leads else [], _ROW))

    def complain() -> None:
        if table is not None:
            raise KvbenchError(disappointment(expect, given, table))

    agreement.run("check", complain)


def _disappoints(expect: Expect, volume: Volume, group: PlaceGroup) -> bool:
    if group.sharing == "single-node":
        return volume.reach == ("local" if expect == "shared" else "network")
    return group.sharing != expect


def disappointment(expect: Expect, given: str, table: npt.NDArray[np.void]) -> str:
    """What is wrong, on which nodes, and what may have caused it; `table` has a row of what each node sees."""
    places: dict[tuple[int, str, str, str], list[str]] = {}
    for row in table:
        kind, device, mount_point = (row[name].decode(errors="replace") for name in ("kind", "device", "mount_point"))
        places.setdefault((int(row["group"]), kind, device, mount_point), []).append(row["host"].decode())
    lines = [
        f"  {_names(hosts)}: {kind} from {device} at {mount_point}"
        for (_, kind, device, mount_point), hosts in list(places.items())[:_MOST_PLACES]
    ]
    if len(places) > _MOST_PLACES:
        lines.append(f"  and {len(places) - _MOST_PLACES} more")
    alone = len(np.unique(table["node"])) == 1
    if expect == "local":
        wrong = "is a network filesystem" if alone else "is the same place on several nodes"
        advice = "give a directory on a disk of the node itself, or leave out --expect"
    else:
        wrong = "is on a filesystem of this node alone" if alone else "is not the same place on all nodes"
        advice = _forgotten(table)
    return "\n".join([f"--expect {expect}, but {given} {wrong}:", *lines, f"  {advice}"])


def _forgotten(table: npt.NDArray[np.void]) -> str:
    """What a directory that should be shared, and is not, is likely to lack."""
    without = [row["host"].decode() for row in table if row["reach"] == b"local"]
    if len(without) == len(table):
        return "it seems to be mounted nowhere: mount the shared filesystem on every node, or give the right directory"
    if without:
        return f"it seems not to be mounted on {_names(without)}: mount it there, and run again"
    return (
        "every node has a network filesystem there: mount the same one on all nodes; "
        "if it is, it shows new files to other nodes only after seconds, which kvbench cannot work with"
    )


def _names(hosts: list[str]) -> str:
    more = len(hosts) - _MOST_HOSTS
    return ", ".join(hosts[:_MOST_HOSTS]) + (f" and {more} more" if more > 0 else "")
