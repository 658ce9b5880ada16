"""Chains of blocks: which blocks of two requests are the same, for blocks of any size that fits the trace's ids."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.workload import chains as chains_module
from kvbench.workload.chains import Chains
from kvbench.workload.traces import Trace, read_trace

Make = Callable[..., RunConfig]

SHARED = [1, 2, 3, 4, 5, 6, 7, 8]
"""Ids of the first 8 blocks of 512 tokens of two requests."""


def trace_of(folder: Path, *requests: tuple[int, list[int]]) -> Trace:
    path = folder / "trace.jsonl"
    lines = [
        json.dumps({"timestamp": 10 * i, "input_length": tokens, "output_length": 40, "hash_ids": ids})
        for i, (tokens, ids) in enumerate(requests)
    ]
    path.write_text("\n".join(lines))
    return read_trace(path)


def chains_of(make_config: Make, trace: Trace, **cache: object) -> Chains:
    return Chains(make_config(workload={"kind": "trace", "path": trace.source}, cache=cache), trace)


def common(chains: Chains) -> int:
    """How many blocks the first two requests begin with alike."""
    first, second = (chains.chain(position).keys.tolist() for position in (0, 1))
    return next(i for i, (a, b) in enumerate(zip([*first, -1], [*second, -2], strict=False)) if a != b)


@pytest.fixture
def two(tmp_path: Path) -> Trace:
    """Two requests of 11 and 10 blocks, the last one not full, that share 8."""
    return trace_of(tmp_path, (11 * 512 - 100, [*SHARED, 20, 21, 22]), (10 * 512 - 200, [*SHARED, 30, 31]))


@pytest.mark.parametrize(
    ("block_tokens", "blocks", "shared"),
    [
        *[(512, [11, 10], 8), (1024, [6, 5], 4), (1536, [4, 4], 2), (4096, [2, 2], 1), (8192, [1, 1], 0)],
        *[(256, [22, 20], 16), (64, [87, 77], 64), (16, [346, 308], 256), (1, [5532, 4920], 4096)],
    ],
)
def test_blocks_of_any_size_that_fits_share_what_is_whole_in_them(
    make_config: Make, two: Trace, block_tokens: int, blocks: list[int], shared: int
) -> None:
    chains = chains_of(make_config, two, block_tokens=block_tokens)
    assert chains.counts.tolist() == blocks
    assert common(chains) == shared
    assert all(len(set(chains.chain(position).keys.tolist())) == blocks[position] for position in (0, 1))


@pytest.mark.parametrize("block_tokens", [384, 700, 513])
def test_a_size_that_does_not_fit_is_refused(make_config: Make, two: Trace, block_tokens: int) -> None:
    with pytest.raises(
        KvbenchError, match=rf"cache.block_tokens: {block_tokens} does not fit .*a multiple or a divisor"
    ):
        chains_of(make_config, two, block_tokens=block_tokens)


def test_a_last_block_that_is_not_full_is_kept_or_dropped(make_config: Make, two: Trace) -> None:
    kept, dropped = (chains_of(make_config, two, partial_blocks=what) for what in ("keep", "drop"))
    assert kept.counts.tolist() == [11, 10]
    assert dropped.counts.tolist() == kept.full_blocks.tolist() == [10, 9]
    assert dropped.chain(0).keys.tolist() == kept.chain(0).keys.tolist()[:10]


def test_the_end_of_a_context_is_no_whole_block_of_a_longer_one(make_config: Make, tmp_path: Path) -> None:
    """Two ids in a block of four: the shorter context ends in the middle of the longer one's first block."""
    trace = trace_of(tmp_path, (1024, [1, 2]), (2048, [1, 2, 3, 4]))
    assert common(chains_of(make_config, trace, block_tokens=2048)) == 0


def test_without_ids_no_block_is_that_of_another_request(make_config: Make, samples: dict[str, Path]) -> None:
    trace = read_trace(samples["azure"])
    chains = chains_of(make_config, trace, block_tokens=16)
    keys = chains.keys(0, len(chains))
    assert len(np.unique(keys)) == len(keys) == int((-(-trace.context_tokens.astype(np.int64) // 16)).sum())


def test_short_contexts_leave_nothing_where_they_are_not_wanted(make_config: Make, two: Trace) -> None:
    assert chains_of(make_config, two, min_prefix_tokens=5000).stored.tolist() == [11, 0]


@pytest.mark.parametrize("most", [1, 7, 50, 10**6])
def test_pieces_are_all_requests_in_order(
    make_config: Make, samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(chains_module, "PIECE_BLOCKS", most)
    chains = chains_of(make_config, read_trace(samples["mooncake"]))
    pieces = chains.pieces(np.arange(50))
    assert [request for first, end in pieces for request in range(first, end)] == list(range(50))
    assert all(chains.counts[first:end].sum() <= most or end == first + 1 for first, end in pieces)
    one_by_one = [chains.chain(position).keys for position in range(50)]
    assert np.concatenate([chains.keys(*piece) for piece in pieces]).tolist() == np.concatenate(one_by_one).tolist()
