"""What was found of contexts, by tier."""

import numpy as np
import pytest

from kvbench.engine.prefix_hits import PrefixHits


def rows(hits: PrefixHits) -> dict[int, tuple[int, int, int]]:
    return {row["tier"]: (row["requests"], row["blocks"], row["tokens"]) for row in hits.rows(3)}


def test_blocks_and_tokens_go_to_the_tier_that_they_were_found_on() -> None:
    hits = PrefixHits(2)
    hits.add(np.array([0, 0, 1], np.int8), blocks=5, block_tokens=16, context_tokens=75)
    hits.add(np.array([1], np.int8), blocks=1, block_tokens=16, context_tokens=20)
    assert rows(hits) == {0: (1, 2, 32), 1: (2, 2, 32), -1: (1, 2, 75 - 48 + 4)}


@pytest.mark.parametrize("tier", [0, 1])
def test_a_last_block_that_is_not_full_counts_what_it_holds(tier: int) -> None:
    hits = PrefixHits(2)
    hits.add(np.array([0, tier], np.int8), blocks=2, block_tokens=16, context_tokens=21)
    tokens = {number: of[2] for number, of in rows(hits).items()}
    assert tokens == ({0: 21, 1: 0, -1: 0} if tier == 0 else {0: 16, 1: 5, -1: 0})


def test_a_request_that_found_nothing_is_one_that_did_not_find() -> None:
    hits = PrefixHits(1)
    hits.add(np.empty(0, np.int8), blocks=4, block_tokens=16, context_tokens=64)
    assert rows(hits) == {0: (0, 0, 0), -1: (1, 4, 64)}
