"""Agreement, gathering, progress, clocks and places, with real MPI ranks."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Start = Callable[..., Any]


def test_ranks_that_all_succeed_agree(run_ranks: Run) -> None:
    outcome = run_ranks("agreeing", ranks=3)
    assert outcome.code == 0
    assert outcome.lines == ["rank 0 agreed", "rank 1 agreed", "rank 2 agreed"]


def test_one_failing_rank_ends_the_phase_for_the_ranks_that_wait(run_ranks: Run) -> None:
    outcome = run_ranks("agreeing", "2:disk", ranks=3)
    assert outcome.code == 1
    assert outcome.lines == ["rank 1 left quietly", "rank 2 left quietly"]
    assert "check failed: rank 2 on " in outcome.err
    assert "No space left on device: /mnt/x" in outcome.err
    assert "Traceback" not in outcome.err


def test_equal_problems_of_several_ranks_are_one_line(run_ranks: Run) -> None:
    outcome = run_ranks("agreeing", "0:user", "1:user", "3:bug", ranks=4)
    assert outcome.code == 1
    assert "check failed on 3 of 4 ranks:" in outcome.err
    assert "ranks 0-1 on " in outcome.err
    assert outcome.err.count("the directory is missing") == 1
    assert "ZeroDivisionError: a bug" in outcome.err


def test_abort_ends_ranks_that_wait_for_the_one_that_fails(run_ranks: Run) -> None:
    outcome = run_ranks("agreeing", "1:abort", ranks=3)
    assert outcome.code != 0
    assert "kvbench: rank 1 on " in outcome.err
    assert "the disk is gone" in outcome.err


def test_gathered_rows_equal_what_each_rank_sent_in_order(run_ranks: Run) -> None:
    outcome = run_ranks("gathering", "good", ranks=4)
    assert outcome.code == 0, outcome.err
    # Of chunks of 100 rows: two from rank 1, one that says "none" from rank 2, thirteen from rank 3.
    assert outcome.out == "equal, by ranks, rank 0 asked for 16 messages\n"


@pytest.mark.slow
def test_rows_by_way_of_the_nodes_are_the_same_in_fewer_messages(run_ranks: Run) -> None:
    """Ranks 0 to 3 are one node and 4 to 6 another, whose rows come from rank 4 alone."""
    straight = run_ranks("gathering", "good", ranks=7)
    by_nodes = run_ranks("gathering", "good", 4, ranks=7)
    assert by_nodes.code == 0, by_nodes.err
    # From ranks 4 to 6 straight: 6, 2 and 1 messages. Together they have 755 rows, which are 8.
    assert straight.out == "equal, by ranks, rank 0 asked for 25 messages\n"
    assert by_nodes.out == "equal, by nodes, rank 0 asked for 24 messages\n"


def test_on_two_hosts_rows_come_by_nodes_by_themselves(start_launcher: Start, two_hosts: dict[str, str]) -> None:
    outcome = start_launcher(4, "east:2,west:2", "gathering", "good", 0, timeout_s=90, **two_hosts).outcome()
    assert outcome.code == 0, outcome.err
    # Of its node's other rank 2 messages, of the other node's 1234 rows 13.
    assert outcome.out == "equal, by nodes, rank 0 asked for 15 messages\n"


def test_ranks_dealt_out_to_the_nodes_in_turn_come_straight_or_are_refused(run_ranks: Run) -> None:
    outcome = run_ranks("gathering", "good", -2, ranks=4)
    assert outcome.code == 0, outcome.err
    assert outcome.out == "equal, by ranks, rank 0 asked for 16 messages\nrefused: --gather nodes needs ranks\n"


@pytest.mark.slow
@pytest.mark.parametrize("node_ranks", [1, 2, 3])
def test_a_full_disk_on_rank_0_ends_the_gathering_for_all(run_ranks: Run, node_ranks: int) -> None:
    for rank in (0, 1, 3):
        outcome = run_ranks("gathering", f"sink:{rank}", node_ranks, ranks=5)
        assert outcome.code == 1
        assert "gather failed: rank 0 on " in outcome.err
        assert "No space left on device: run.h5" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(("node_ranks", "rank"), [(1, 1), (2, 0), (2, 1), (2, 2), (2, 3), (3, 4)])
def test_a_sender_that_fails_half_way_is_reported_by_rank_0(run_ranks: Run, node_ranks: int, rank: int) -> None:
    """Whether it is rank 0, the first rank of a node, or another."""
    outcome = run_ranks("gathering", f"source:{rank}", node_ranks, ranks=5)
    assert outcome.code == 1
    assert f"gather failed: rank {rank} on " in outcome.err
    assert "the rows of this rank cannot be read" in outcome.err


def test_one_ranks_stop_reaches_all_and_they_leave_at_the_same_exchange(run_ranks: Run) -> None:
    outcome = run_ranks("progressing", ranks=3)
    assert outcome.code == 0, outcome.err
    assert len(outcome.lines) == 3
    assert len(set(outcome.lines)) == 1
    assert outcome.lines[0].endswith("total 3, heard True")


def test_every_rank_hears_every_announcement_in_the_same_rounds(run_ranks: Run) -> None:
    outcome = run_ranks("announcing", 10, ranks=4)
    assert outcome.code == 0, outcome.err
    keys = [1000 * rank + number for rank in range(4) for number in range(10 * rank)]
    assert len(outcome.lines) == 4
    assert len(set(outcome.lines)) == 1, "the same rounds for all"
    assert outcome.lines[0].endswith(f"{len(keys)} announcements, sum {sum(keys)}, in order True")


@pytest.mark.parametrize(
    ("most_direct", "nodes"),
    [(64, 2), pytest.param(2, 3, marks=pytest.mark.slow), (1, 4)],
    ids=["asked by rank 0", "3", "4"],
)
def test_clock_offsets_are_within_their_uncertainty(run_ranks: Run, most_direct: int, nodes: int) -> None:
    """With more than `most_direct` nodes, heads of groups ask theirs."""
    outcome = run_ranks("clocks", most_direct, ranks=2 * nodes, timeout_s=60)
    assert outcome.code == 0, outcome.err
    assert len(outcome.lines) == 2 * nodes


def test_ranks_of_one_machine_are_one_node(run_ranks: Run) -> None:
    outcome = run_ranks("places", ranks=2)
    assert outcome.lines[0].startswith("rank 0 of 2: node 0 of 1, local 0 of 2, hosts ")
    assert outcome.lines[1] == "rank 1 of 2: node 0 of 1, local 1 of 2"


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (("a",), ["group 0 of 2 ranks on 1 nodes, single-node"] * 2),
        (("a", "a"), ["group 0 of 4 ranks on 2 nodes, shared"] * 4),
        (("a", "b"), ["group 0 of 2 ranks on 1 nodes, local"] * 2 + ["group 1 of 2 ranks on 1 nodes, local"] * 2),
        pytest.param(
            ("a", "b", "b"),
            ["group 0 of 2 ranks on 1 nodes, mixed"] * 2 + ["group 1 of 4 ranks on 2 nodes, mixed"] * 4,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_nodes_that_see_each_others_probes_share_a_filesystem(
    run_ranks: Run, tmp_path: Path, folders: tuple[str, ...], groups: list[str]
) -> None:
    for name in set(folders):
        (tmp_path / name).mkdir()
    outcome = run_ranks("places", tmp_path, *folders, ranks=2 * len(folders))
    assert outcome.code == 0, outcome.err
    assert [line.partition("; ")[2] for line in outcome.lines] == groups
    assert not [*tmp_path.glob("*/*")], "the probes are removed"


SHM = Path("/dev/shm")


@pytest.mark.parametrize(
    ("given", "in_memory", "groups"),
    [
        # One filesystem, whatever the directories are called.
        ("{rank}", (), ["group 0 of 4 ranks on 2 nodes, shared, from rank 0"] * 4),
        # Each node has the same two filesystems.
        (
            "{local_rank}",
            ("1",),
            [f"group 0 of 2 ranks on 2 nodes, shared, from rank {rank % 2}" for rank in range(4)],
        ),
        # The first node has two, the second one of them.
        (
            "{rank}",
            ("1",),
            [
                "group 0 of 3 ranks on 2 nodes, mixed, from rank 0",
                "group 0 of 1 ranks on 1 nodes, mixed, from rank 1",
                *["group 0 of 3 ranks on 2 nodes, mixed, from rank 0"] * 2,
            ],
        ),
    ],
)
def test_ranks_with_directories_of_their_own_are_together_where_the_filesystem_is_the_same(
    run_ranks: Run, tmp_path: Path, given: str, in_memory: tuple[str, ...], groups: list[str]
) -> None:
    if not SHM.is_dir() or SHM.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm, as a second filesystem")
    with tempfile.TemporaryDirectory(dir=SHM) as memory:
        for name in map(str, range(4)):
            if name in in_memory:
                (Path(memory) / name).mkdir()
                (tmp_path / name).symlink_to(Path(memory) / name)
            else:
                (tmp_path / name).mkdir()
        outcome = run_ranks("places", tmp_path, "own", given, ranks=4)
        assert outcome.code == 0, outcome.err
        found = [line.partition("; ")[2] for line in outcome.lines]
        assert [line.removesuffix(", leads") for line in found] == groups
        assert found[0].endswith(", leads")
        assert not [*tmp_path.glob("*/*")], "the probes are removed"


def test_a_directory_missing_on_one_node_is_reported_and_leaves_no_probe(run_ranks: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    outcome = run_ranks("places", tmp_path, "a", "nowhere", ranks=4)
    assert outcome.code == 1
    assert "check failed: rank 2 on " in outcome.err
    assert f"{tmp_path}/nowhere: No such file or directory" in outcome.err
    assert not [*tmp_path.glob("*/*")], "the probes are removed"


def test_sums_of_many_numbers_are_right_on_every_rank(run_ranks: Run) -> None:
    outcome = run_ranks("summing", ranks=3)
    assert outcome.code == 0, outcome.err
    assert outcome.lines == [f"rank {rank}: 0 wrong" for rank in range(3)]


def test_digests_of_unequal_ranks_are_merged_as_if_one_rank_had_all_rows(run_ranks: Run) -> None:
    outcome = run_ranks("merging", ranks=4, timeout_s=60)
    assert outcome.code == 0, outcome.err
    # 20 000 rows and 300 places: 1 in 64 would be about 312.
    assert outcome.out.startswith("level 7, kept [")
    assert outcome.out.rstrip().endswith("of [20000, 3000, 100, 0]")


def test_every_rank_gets_its_own_part_of_a_trace_piece_by_piece(run_ranks: Run) -> None:
    outcome = run_ranks("dealing", ranks=4)
    assert outcome.code == 0, outcome.err
    assert outcome.lines == [f"rank {rank} has its part" for rank in range(4)]


def test_a_rank_that_cannot_keep_its_part_ends_the_job_and_nobody_waits(run_ranks: Run) -> None:
    outcome = run_ranks("dealing", 2, ranks=4)
    assert outcome.code == 1
    assert "plan failed: rank 2 on " in outcome.err
    assert "cannot keep the trace made up in a temporary file in None: No space left on device" in outcome.err
    assert "Traceback" not in outcome.err
