"""What `--expect` makes of what the nodes see."""

import numpy as np
import pytest

from kvbench.cluster.agree import Agreement, RanksFailed
from kvbench.cluster.comm import SerialComm
from kvbench.cluster.places import PlaceGroup, PlaceSharing
from kvbench.cluster.topology import discover
from kvbench.run.checks.expectation import _ROW, Expect, check_expectation, disappointment
from kvbench.tiers.file.filesystem import reach_of
from kvbench.tiers.target import Volume

DIRECTORY = "/data/cache"


def group_of(fewest_nodes: int, most_nodes: int, of_nodes: int) -> PlaceGroup:
    """A group in a run whose groups have from `fewest_nodes` to `most_nodes` nodes."""
    return PlaceGroup(0, 0, 1, most_nodes, fewest_nodes, most_nodes, of_nodes)


ALONE = group_of(1, 1, 1)


def check(expect: Expect, kind: str, group: PlaceGroup = ALONE) -> None:
    comm = SerialComm()
    filesystem = Volume(kind, "/data", "rw", "server:/data", 1, 1, reach=reach_of(kind))
    check_expectation(discover(comm), Agreement(comm), expect, DIRECTORY, filesystem, group)


@pytest.mark.parametrize(
    ("fewest", "most", "of_nodes", "sharing"),
    [
        (0, 0, 1, "none"),
        (1, 1, 1, "single-node"),
        (4, 4, 4, "shared"),
        (1, 1, 4, "local"),
        (2, 2, 4, "mixed"),
        (1, 3, 4, "mixed"),
        (1, 4, 4, "mixed"),
    ],
)
def test_directories_are_shared_local_or_something_between(
    fewest: int, most: int, of_nodes: int, sharing: PlaceSharing
) -> None:
    assert group_of(fewest, most, of_nodes).sharing == sharing


@pytest.mark.parametrize(
    ("expect", "kind"),
    [("", "ext4"), ("", "nfs4"), ("shared", "nfs4"), ("local", "ext4"), ("shared", "fuse"), ("local", "fuse")],
)
def test_one_node_has_what_is_expected_unless_its_filesystem_says_otherwise(expect: Expect, kind: str) -> None:
    check(expect, kind)


@pytest.mark.parametrize(
    ("expect", "kind", "said"),
    [
        ("shared", "ext4", "is on a filesystem of this node alone"),
        ("shared", "tmpfs", "it seems to be mounted nowhere"),
        ("local", "fuse.glusterfs", "is a network filesystem"),
        ("local", "nfs4", "fuse.* at /data|nfs4 from server:/data at /data"),
    ],
)
def test_one_node_with_the_other_sort_of_filesystem_is_an_error(expect: Expect, kind: str, said: str) -> None:
    with pytest.raises(RanksFailed, match=said) as raised:
        check(expect, kind)
    assert f"--expect {expect}, but /data/cache is " in str(raised.value)


@pytest.mark.parametrize(("fewest", "most", "sharing"), [(3, 3, "shared"), (1, 2, "mixed"), (1, 1, "local")])
@pytest.mark.parametrize("expect", ["shared", "local"])
def test_with_several_nodes_only_what_they_see_counts(
    expect: Expect, fewest: int, most: int, sharing: PlaceSharing
) -> None:
    group = group_of(fewest, most, 3)
    if expect == sharing:
        check(expect, "ext4", group)
    else:
        with pytest.raises(RanksFailed, match=f"--expect {expect}"):
            check(expect, "ext4", group)


def table(*rows: tuple[int, str, str]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """(group, host, kind) of each node."""
    return np.array(
        [
            (node, group, host, kind, "server:/x", "/mnt", reach_of(kind))
            for node, (group, host, kind) in enumerate(rows)
        ],
        dtype=_ROW,
    )


def test_the_node_without_the_mount_is_named() -> None:
    said = disappointment("shared", DIRECTORY, table((0, "a", "nfs4"), (0, "b", "nfs4"), (2, "c", "ext4")))
    assert said.splitlines() == [
        "--expect shared, but /data/cache is not the same place on all nodes:",
        "  a, b: nfs4 from server:/x at /mnt",
        "  c: ext4 from server:/x at /mnt",
        "  it seems not to be mounted on c: mount it there, and run again",
    ]


def test_different_network_filesystems_have_another_cause() -> None:
    said = disappointment("shared", DIRECTORY, table((0, "a", "nfs4"), (1, "b", "nfs4")))
    assert "mount the same one on all nodes" in said


def test_a_shared_directory_that_should_be_local_is_told_with_what_to_do() -> None:
    said = disappointment("local", DIRECTORY, table((0, "a", "nfs4"), (0, "b", "nfs4")))
    assert "is the same place on several nodes:\n  a, b: nfs4" in said
    assert "give a directory on a disk of the node itself" in said


def test_the_message_stays_short_with_thousands_of_nodes() -> None:
    rows = [(node, f"node{node:04}", "ext4") for node in range(5000)]
    said = disappointment("shared", DIRECTORY, table(*rows))
    assert len(said) < 1500
    assert "and 4992 more" in said
