"""The place under test with placeholders: one for each rank."""

from pathlib import Path

import pytest

from kvbench.cluster.topology import Seat
from kvbench.errors import KvbenchError
from kvbench.run.addresses import address_of, literal, placeholders
from kvbench.run.output.spill_files import SpillOrder, find_place, how_to_go_on
from kvbench.tiers.file.target import DirectoryTarget

SEAT = Seat(rank=13, local_rank=5, node=1)


@pytest.mark.parametrize(
    ("given", "directory"),
    [
        ("/mnt/cache", "/mnt/cache"),
        ("/mnt/nv{local_rank}", "/mnt/nv5"),
        ("/mnt/{node}/{local_rank}-of-{rank}", "/mnt/1/5-of-13"),
        ("/mnt/nv{rank:03}/x", "/mnt/nv013/x"),
        ("/mnt/{{rank}}", "/mnt/{rank}"),
        ("/mnt/{{{rank}}}", "/mnt/{13}"),
    ],
)
def test_placeholders_stand_for_the_numbers_of_the_rank(given: str, directory: str) -> None:
    assert address_of(given, SEAT) == directory


def test_a_directory_without_placeholders_is_that_of_all_ranks() -> None:
    assert placeholders("/mnt/cache") == placeholders("/mnt/{{rank}}") == frozenset()
    assert placeholders("/{node}/{rank:02}") == {"node", "rank"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/mnt/{lokal_rank}", r"no placeholder \{lokal_rank\}, did you mean \{local_rank\}\?"),
        ("/mnt/{}", r"no placeholder \{\}: known are \{rank\}, \{local_rank\}, \{node\}"),
        ("/mnt/{rank.__class__}", r"no placeholder \{rank.__class__\}"),
        ("/mnt/{rank!r}", r"no placeholder \{rank!r\}, did you mean \{rank\}\?"),
        ("/mnt/{rank:>1000000000}", r"no placeholder \{rank:>1000000000\}"),
        ("/mnt/{rank", "a brace without its counterpart"),
        ("/mnt/rank}", "a brace that belongs to the name is doubled"),
    ],
)
def test_anything_else_in_braces_is_an_error_that_says_what_there_is(given: str, said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        address_of(given, SEAT)


def test_a_directory_can_be_given_as_it_is_called_whatever_that_is() -> None:
    odd = "/mnt/{rank}/}{/{{"
    assert address_of(literal(odd), SEAT) == odd


def test_spill_files_lie_on_none_of_the_filesystems_that_ranks_of_the_node_test() -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("needs /dev/shm")
    place = find_place(SpillOrder(True, memory), [DirectoryTarget("/proc")])
    assert place is not None
    assert place.directory == memory
    with pytest.raises(KvbenchError, match="the directory /dev/shm for spill files is on the filesystem under test"):
        find_place(SpillOrder(True, memory), [DirectoryTarget("/proc"), DirectoryTarget(str(memory))])


def test_what_to_clean_after_a_killed_run_is_named_for_every_rank_of_the_node() -> None:
    own = ["/mnt/nv 0", "/mnt/nv1", "/mnt/nv1"]
    assert how_to_go_on(None, "run", Path("out.h5"), own, "") == (
        "`kvbench clean '/mnt/nv 0' /mnt/nv1` deletes the cache files that are left"
    )
    assert how_to_go_on(None, "run", Path("out.h5"), own, "/mnt/nv{rank}").endswith(
        " that are left here; on every node there may be some in /mnt/nv{rank}"
    )
    assert how_to_go_on(None, "run", Path("out.h5"), (), "") == ""
