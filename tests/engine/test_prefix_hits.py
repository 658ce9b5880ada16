"""What was found of contexts, by tier, and why the rest was not."""

import numpy as np
import pytest

from kvbench.cache.chains import BEHIND_GAP, EVICTED, NEVER_SEEN
from kvbench.engine.prefix_hits import PrefixHits
from kvbench.records.tables import PREFIX_DTYPE, as_rows

UNITS = ("requests", "blocks", "tokens")


def rows(hits: PrefixHits) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Those that are not all zeros."""
    table = as_rows(hits.rows(3), PREFIX_DTYPE)
    assert (table["rank"] == 3).all()
    listed = [(row["what"].decode(), *(int(row[name]) for name in ("tier", *UNITS))) for row in table]
    return {(what, tier): (number, blocks, tokens) for what, tier, number, blocks, tokens in listed if number}


def add(hits: PrefixHits, found: list[int], missed: list[int], context_tokens: int) -> None:
    hits.add(np.array(found, np.int8), np.array(missed, np.int8), 16, context_tokens)


def test_blocks_and_tokens_go_to_the_tier_that_they_were_found_on_and_the_rest_to_why_it_was_not() -> None:
    hits = PrefixHits(2)
    add(hits, [0, 0, 1], [EVICTED, BEHIND_GAP], 75)
    add(hits, [1], [], 20)
    add(hits, [], [NEVER_SEEN, NEVER_SEEN], 32)
    assert rows(hits) == {
        ("looked-up", -1): (3, 8, 127),
        ("hit", -1): (2, 4, 64),
        ("hit", 0): (1, 2, 32),
        ("hit", 1): (2, 2, 32),
        ("never-seen", -1): (1, 2, 32),
        ("evicted", -1): (1, 1, 16),
        ("behind-gap", -1): (1, 1, 11),
        ("in-no-block", -1): (1, 0, 4),
    }


@pytest.mark.parametrize(
    ("found", "missed", "of_last"),
    [
        ([0, 0], [], ("hit", 0)),
        ([0, 1], [], ("hit", 1)),
        ([0], [NEVER_SEEN], ("never-seen", -1)),
        ([0], [EVICTED], ("evicted", -1)),
        ([], [NEVER_SEEN, BEHIND_GAP], ("behind-gap", -1)),
    ],
)
def test_a_last_block_that_is_not_full_counts_what_it_holds(
    found: list[int], missed: list[int], of_last: tuple[str, int]
) -> None:
    hits = PrefixHits(2)
    add(hits, found, missed, 21)
    tokens = {key: values[2] for key, values in rows(hits).items()}
    assert tokens[of_last] == (21 if found == [0, 0] else 5)
    assert (
        sum(number for (what, tier), number in tokens.items() if what != "looked-up" and (what, tier) != ("hit", -1))
        == 21
    )


def test_a_context_without_a_block_is_in_none() -> None:
    hits = PrefixHits(1)
    add(hits, [], [], 9)
    assert rows(hits) == {("looked-up", -1): (1, 0, 9), ("in-no-block", -1): (1, 0, 9)}


def test_sums_are_the_same_however_many_requests_there_are() -> None:
    hits = PrefixHits(1)
    for _ in range(3000):
        add(hits, [0], [EVICTED], 32)
    assert rows(hits)["hit", 0] == rows(hits)["evicted", -1] == (3000, 3000, 48_000)
