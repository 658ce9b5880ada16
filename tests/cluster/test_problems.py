"""Problems of many ranks become one short message."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from kvbench.cluster.problems import MAX_PROBLEMS, Report

Ranks = list[tuple[str, str]]
"""For each rank, its host and its problem (empty for none)."""


def merged(ranks: Ranks) -> Report:
    """The reports of all ranks merged in order."""
    return reduce(Report.merged_with, (Report.of(rank, *place) for rank, place in enumerate(ranks)))


def merged_as_a_tree(ranks: Ranks, first: int = 0) -> Report:
    """The same, half by half."""
    if len(ranks) == 1:
        return Report.of(first, *ranks[0])
    half = len(ranks) // 2
    return merged_as_a_tree(ranks[:half], first).merged_with(merged_as_a_tree(ranks[half:], first + half))


def test_equal_problems_are_merged_into_ranges_and_hosts() -> None:
    message = merged([("a", "full"), ("a", "full"), ("b", ""), ("b", "full")]).message("check", 4)
    assert message == "check failed: ranks 0-1, 3 on a, b: full"


def test_different_problems_stand_on_lines_of_their_own() -> None:
    message = merged([("a", "full"), ("a", ""), ("b", "missing")]).message("check", 3)
    assert message == "check failed on 2 of 3 ranks:\n  rank 0 on a: full\n  rank 2 on b: missing"


def test_ten_thousand_ranks_with_the_same_problem_are_one_short_line() -> None:
    message = merged_as_a_tree([(f"node{rank // 8}", "full") for rank in range(10_000)]).message("check", 10_000)
    assert message == "check failed on all 10000 ranks: full"


def test_a_rank_alone_need_not_say_which_it_is() -> None:
    assert merged([("a", "full")]).message("check", 1) == "full"


def test_ten_thousand_different_problems_are_counted_not_listed() -> None:
    report = merged_as_a_tree([("a", f"problem {rank}") for rank in range(10_000)])
    assert len(report.problems) == MAX_PROBLEMS
    assert "9984 more ranks with other problems" in report.message("check", 10_000)


def test_scattered_ranks_are_counted_after_the_first_ranges() -> None:
    ranks = [("a", "full" if rank % 2 else "") for rank in range(100)]
    assert "ranks 1, 3, 5, 7, 9, 11, 13, 15, 42 more on a: full" in merged_as_a_tree(ranks).message("check", 100)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x", "y"])), min_size=1, max_size=60))
def test_no_rank_is_lost_or_counted_twice_however_the_reports_are_merged(ranks: Ranks) -> None:
    for report in (merged(ranks), merged_as_a_tree(ranks)):
        counts = {text: where.ranks for text, where in report.problems.items()}
        assert counts == {text: sum(t == text for _, t in ranks) for text in counts}
        assert sum(counts.values()) == sum(bool(text) for _, text in ranks)
