"""What a request of a serving engine does to its blocks is decided, handed out and carried out many at a time: the same
operations as one after the other, with the same rows."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_harness import TINY_MODEL, Rank, Script, finish

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.engine.bundle import Share
from kvbench.engine.dispatcher import Dispatcher
from kvbench.engine.operation import ActiveRequest, Bundle
from kvbench.engine.order import KeyOrder
from kvbench.engine.ready import ReadyUnits
from kvbench.engine.row import describe, describe_share
from kvbench.engine.serving import Serving
from kvbench.records.schema import RECORD_DTYPE, Locality, Op, Path, Phase, RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES
from kvbench.workload.request import Chain, Request

MakeServing = Callable[..., Rank]
BLOCK_TOKENS = 4


def config_of(
    tiers: Sequence[str] = ("file",), threads: int = 2, cache: dict[str, Any] | None = None, **io: Any
) -> RunConfig:
    verify = io.pop("verify", "sampled")
    return parse_config(
        {
            "model": TINY_MODEL | {"layers": 2, "head_dim": 512},
            "workload": {"kind": "trace", "path": "none"},
            "pacing": {"mode": "asap"},
            "tiers": [{"kind": kind, "capacity_bytes": 4096} for kind in tiers],
            "cache": {"block_tokens": BLOCK_TOKENS} | (cache or {}),
            "io": {"threads": threads, "io_bytes": 4096} | io,
            "payload": {"verify": verify},
        },
        "test",
    )


@pytest.fixture
def wide(payload: Payload) -> Arena:
    return Arena(32 * SEGMENT_BYTES, 4, payload.body)


@pytest.fixture
def make_serving(folder: FilePath, wide: Arena, payload: Payload) -> Iterator[MakeServing]:
    made: list[Rank] = []

    def make(blocks: Sequence[int] = (64,), **settings: Any) -> Rank:
        place = folder / f"{len(made)}"
        place.mkdir()
        made.append(Rank(config_of(**settings), place, [n * BLOCK_TOKENS for n in blocks], wide, payload))
        return made[-1]

    yield make
    for rank in made:
        rank.close()


def asked(number: int, *keys: int) -> Request:
    """A request for blocks with these keys."""
    chain = Chain(np.array(keys, np.uint64), BLOCK_TOKENS, len(keys), len(keys), number)
    return Request(number, 0, 0, 0, len(keys) * BLOCK_TOKENS, 1, (), (), True, 0, 0, chain=chain)


def conversations(requests: int, longest: int, seed: int = 4) -> Script:
    """Requests for the first blocks of one of some chains, which begin alike."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(requests):
        chain, common = int(rng.integers(1, 5)) * 1000, int(rng.integers(0, 4))
        end = chain + int(rng.integers(common + 1, longest))
        made.append(asked(number, *range(common), *range(chain + common, end)))
    return Script([made])


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Serving, "_line_up_bundles", lambda *_: None)


def done_by(rank: Rank) -> list[tuple[int, ...]]:
    columns = ("request", "op", "tier", "layer", "tokens", "nbytes", "path", "timed_by", "errno")
    return sorted(zip(*(rank.rows[name].tolist() for name in columns), strict=True))


@pytest.mark.parametrize(
    ("tiers", "blocks"), [(["file"], [24]), (["file"], [400]), (["memory", "file"], [12, 40]), (["null"], [24])]
)
@pytest.mark.parametrize(
    "cache",
    [
        {},
        {"write": "write-through"},
        {"promote_on_hit": True},
        {"split": {"layers": 1, "keys_values": "apart"}},
        {"split": {"layers": 1}, "admission": "second-use"},
    ],
    ids=["plain", "write-through", "promote", "four parts", "two parts"],
)
def test_a_load_of_chains_does_the_same_in_bundles_and_one_by_one(
    make_serving: MakeServing,
    monkeypatch: pytest.MonkeyPatch,
    tiers: Sequence[str],
    blocks: Sequence[int],
    cache: dict[str, Any],
) -> None:
    script = conversations(60, 20)
    bundled = make_serving(blocks, tiers=tiers, cache=cache)
    bundled.run(script)
    one_by_one(monkeypatch)
    plain = make_serving(blocks, tiers=tiers, cache=cache)
    plain.run(script)
    assert done_by(bundled) == done_by(plain)
    columns = ["request", "operations", "hit_objects", "miss_objects", "hit_tokens", "state", "phase"]
    assert bundled.log[columns].tolist() == plain.log[columns].tolist()
    assert (bundled.log["state"] == RequestState.DONE).all()
    assert [room.free_bytes for room in bundled.engine.books.rooms] == [
        room.free_bytes for room in plain.engine.books.rooms
    ]
    assert sorted(path.name for path in bundled.folder.iterdir()) == sorted(p.name for p in plain.folder.iterdir())
    assert tiers == ["null"] or bundled.engine.verified_sectors > 0
    for rank in (bundled, plain):
        rows = rank.rows
        assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()
        assert (rows["queue_ns"] >= 0).all()


@pytest.mark.parametrize("settings", [{"verify": "full"}, {"read_path": "numpy"}, {"read_path": "mmap-copy"}])
def test_what_is_not_usual_is_carried_out_one_by_one(make_serving: MakeServing, settings: dict[str, Any]) -> None:
    rank = make_serving((40,), **settings)
    rank.run(conversations(40, 20))
    assert (rank.rows["errno"] == 0).all()
    assert rank.engine.verified_sectors > 0


def test_rows_of_a_share_say_what_rows_of_its_operations_would() -> None:
    active = ActiveRequest(asked(7, 1, 2, 3), Phase.MEASURE, 0, 0)
    layers = np.array([1, 2, 3], np.uint8)
    bundle = Bundle(Op.READ, [1, 2**64 - 1, 3], SECTOR_BYTES, BLOCK_TOKENS, (0, None), active, 0, layers)
    bundle.ready_ns = 123_456_789
    share = Share(bundle, 1, 2)
    share.inflight = 5
    both = np.zeros((2, 4), RECORD_DTYPE)
    describe_share(both[0].view(np.uint8), 1, share, 0, Path.BUFFERED, 9, 3, 77)
    describe(both[1].view(np.uint8), 1, share.operations(), 0, Path.BUFFERED, 9, 3, 77)
    assert both[0].tolist() == both[1].tolist()
    assert both[0]["batch"].tolist() == [0, 77, 77, 0]
    assert both[0]["layer"].tolist() == [0, 2, 3, 0]
    assert both[0]["locality"][1] == Locality.OWN


def test_rows_of_a_batch_have_its_number_and_the_table_adds_them_up(make_serving: MakeServing) -> None:
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(100)), asked(1, *range(100))]]))
    log = rank.engine.batches
    log.close()
    table, rows = log.rows(), rank.rows
    assert len(np.unique(table["batch"])) == len(table)
    assert table["operations"].sum() == len(rows) == 200
    for batch in table:
        own = rows[rows["batch"] == batch["batch"]]
        assert len(own) == batch["operations"]
        for name in ("wall_ns", "device_ns", "host_ns", "runq_ns", "copy_ns", "nbytes"):
            assert own[name].sum() == batch[name]
        assert own["t_start_ns"].min() == batch["t_start_ns"]
        assert {(row["op"], row["tier"]) for row in own} == {(batch["op"], batch["tier"])}


def test_every_worker_has_its_part_of_a_stage_and_the_last_parts_are_small(
    make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    really_take = Dispatcher.take

    def take(dispatcher: Dispatcher, done: Any = (), room: int = 1) -> Any:
        batch = really_take(dispatcher, done, room)
        taken.append(len(batch))
        return batch

    monkeypatch.setattr(Dispatcher, "take", take)
    rank = make_serving((400,), threads=4)
    rank.run(Script([[asked(0, *range(40))]]))
    sizes = [size for size in taken if size]
    assert sizes == [10, 8, 6, 4, 3, 3, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("engine", "allowed"), [("sync", 1), ("sync", 3), ("uring", 1), ("uring", 6)])
def test_no_more_writes_are_in_flight_than_may_be(
    make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch, engine: str, allowed: int
) -> None:
    """Of a batch one after the other, or as many as overlap."""
    most: list[int] = []
    really_share = ReadyUnits._share_of

    def share_of(ready: ReadyUnits, bundle: Bundle, room: int) -> Any:
        share = really_share(ready, bundle, room)
        most.append(ready._writes)
        if share is not None and bundle.op == Op.WRITE and engine == "uring":
            assert len(share) <= allowed
        return share

    monkeypatch.setattr(ReadyUnits, "_share_of", share_of)
    rank = make_serving((400,), threads=4, max_concurrent_allocs=allowed, engine=engine, depth=4)
    rank.run(conversations(30, 20))
    assert 1 <= max(most) <= allowed
    assert (rank.rows["errno"] == 0).all()


# What goes wrong


def again(rank: Rank, keys: Sequence[int]) -> NDArray[Any]:
    before = len(rank.rows)
    load, _ = rank.start(Script([[asked(100, *keys)]]))
    finish(load)
    return rank.rows[before:]


@pytest.mark.parametrize("missing", [0, 3, 9])
def test_a_block_that_is_gone_ends_the_load_and_those_before_it_count(make_serving: MakeServing, missing: int) -> None:
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(10))]]))
    os.unlink(rank.files.where(missing))
    rows = again(rank, range(10))
    at = 9 - missing  # read from the last to the first
    assert rank.engine.failures == [f"read of {rank.files.where(missing)} failed: {os.strerror(errno.ENOENT)}"]
    assert rows["errno"].tolist() == [0] * at + [errno.ENOENT]
    assert (rank.log["state"][-1], rank.log["operations"][-1]) == (RequestState.FAILED, at)
    assert rank.log["storage_ns"][-1] == rows["wall_ns"][:at].sum()


def test_a_block_that_is_not_what_was_written_is_found_and_the_others_are_read(make_serving: MakeServing) -> None:
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(10))]]))
    content = FilePath(rank.files.where(4)).read_bytes()
    FilePath(rank.files.where(4)).write_bytes(content[:-SECTOR_BYTES] + bytes(SECTOR_BYTES))
    rows = again(rank, range(10))
    # As many at a time as a thread's part of the arena holds.
    assert rows["errno"].tolist() == [0] * 5 + [errno.EBADMSG] + [0] * 2
    (failure,) = rank.engine.failures
    assert rank.files.where(4) in failure
    assert f"offset {len(content) - SECTOR_BYTES}" in failure
    assert rank.log["operations"][-1] == 7


def test_a_canceled_bundle_is_cut_short(make_serving: MakeServing) -> None:
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(10))]]))
    rank.engine.cancel()
    rows = again(rank, range(10))
    assert rank.engine.failures == []
    assert rows["errno"].tolist() == [errno.ECANCELED]
    assert rank.log["state"][-1] == RequestState.CUT_SHORT


def test_what_was_written_beside_the_stamps_is_what_was_made(make_serving: MakeServing, payload: Payload) -> None:
    """What a bundle writes, every byte of it, is what an operation would."""
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(10))]]))
    with rank.engine._workers[0]._equipment.arena.lease(SECTOR_BYTES) as lease:
        for key in range(10):
            nbytes = BLOCK_TOKENS * SECTOR_BYTES
            memory = lease.memory(key, nbytes, 0, nbytes)
            rank.files.inspect(key, 0, memory)
            assert payload.check_full(memory, key, nbytes, 0) == (BLOCK_TOKENS, None)


def test_orders_of_a_key_hold_between_bundles_and_operations() -> None:
    active = ActiveRequest(asked(0, 1), Phase.MEASURE, 0, 0)
    order = KeyOrder()
    bundle = Bundle(Op.WRITE, [1, 2], 1, 1, (None, 0), active, 0)
    order.add_bundle(bundle)
    (read,) = Share(Bundle(Op.READ, [2], 1, 1, (0, None), active, 0), 0, 1).operations()
    order.add(read)
    assert read.waits_for == 1
    assert list(order.finish(bundle)) == [read]


@pytest.mark.parametrize("bundled", [True, False])
def test_when_the_load_is_over_nothing_more_of_a_batch_is_begun(
    make_serving: MakeServing, monkeypatch: pytest.MonkeyPatch, bundled: bool
) -> None:
    if not bundled:
        one_by_one(monkeypatch)
    rank = make_serving((400,), threads=1)
    rank.run(Script([[asked(0, *range(10))]]))
    really_run = rank.files.run

    def run(batch: Any) -> None:
        """It is over while the first is carried out."""
        rank.engine._until_ns[0] = batch.until_ns = 1
        really_run(batch)

    monkeypatch.setattr(rank.files, "run", run)
    rows = again(rank, range(10))
    assert rank.engine.failures == []
    assert rows["errno"].tolist() == [0]
    assert (rank.log["state"][-1], rank.log["operations"][-1]) == (RequestState.CUT_SHORT, 1)
    assert rank.log["storage_ns"][-1] == rows["wall_ns"].sum()


@pytest.mark.parametrize("bundled", [True, False], ids=["bundled", "one by one"])
@pytest.mark.parametrize(
    ("split", "layers"),
    [
        ({"layers": 1}, [1, 2]),
        ({"layers": 1, "keys_values": "apart"}, [1, 1, 2, 2]),
        ({"layers": 2}, [0]),
        ({"keys_values": "apart"}, [0, 0]),
        ({}, [0]),
    ],
    ids=["layers", "keys and values of layers", "all layers", "keys and values", "whole"],
)
def test_rows_say_which_layers_their_objects_are_of(
    make_serving: MakeServing,
    monkeypatch: pytest.MonkeyPatch,
    bundled: bool,
    split: dict[str, Any],
    layers: list[int],
) -> None:
    if not bundled:
        one_by_one(monkeypatch)
    rank = make_serving((64,), threads=1, cache={"split": split})
    rank.run(Script([[asked(0, 1, 2, 3), asked(1, 1, 2, 3)]]))
    reads = rank.rows[rank.rows["op"] == Op.READ]
    in_order = reads[np.argsort(reads["t_start_ns"])]
    assert in_order["layer"].tolist() == np.repeat(layers, 3).tolist()
