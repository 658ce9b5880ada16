"""The forecast of a schedule that ends is what a load of it then does, to the row and to the byte."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from rank_harness import Rank, Script, ref, request

from kvbench.records.schema import Op
from kvbench.run.checks.forecast import forecast_demand
from kvbench.units import SECTOR_BYTES
from kvbench.workload.preconditioning import PreconditionSchedule

MakeRank = Callable[..., Rank]


def script(mode: str) -> Script:
    rng = np.random.default_rng(9)
    objects = [ref(key, 1 + key % 4) for key in range(25)]

    def some(most: int) -> list[int]:
        return [int(key) for key in rng.integers(0, len(objects), rng.integers(0, most + 1))]

    asked = [
        request(
            number,
            *(objects[key] for key in [*some(3), int(rng.integers(25))]),
            arrival_ns=number * 10_000,
            history=[objects[key] for key in some(2)],
            prefill=mode != "decode",
            decode_passes=0 if mode == "prefill" else int(rng.integers(0, 3)),
        )
        for number in range(60)
    ]
    return Script([asked], before=objects if mode == "decode" else [])


@pytest.mark.parametrize("mode", ["prefill-decode", "prefill", "decode"])
@pytest.mark.parametrize("promote", [False, True])
@pytest.mark.parametrize(
    ("kinds", "sectors"),
    [
        (["file"], [20]),
        (["memory", "file"], [6, 20]),
        (["memory", "memory", "file"], [3, 6, 20]),
        (["memory", "memory"], [6, 20]),
    ],
)
def test_a_forecast_is_exact_for_open_loop(
    make_rank: MakeRank, kinds: Sequence[str], sectors: Sequence[int], promote: bool, mode: str
) -> None:
    rank = make_rank(sectors, tiers=kinds, pacing="open", promote=promote, threads=8)
    schedule = script(mode)
    demand = forecast_demand(rank.config, schedule, rank.capacities)
    rank.run(PreconditionSchedule(schedule))
    before = rank.engine.requests.count
    rank.run(schedule)
    rows = rank.rows
    assert demand.requests == rank.engine.requests.count - before
    assert demand.operations == len(rows)
    on_storage = rows[rows["tier"] == (len(kinds) - 1 if kinds[-1] == "file" else 99)]
    assert demand.written_bytes == on_storage["nbytes"][np.isin(on_storage["op"], (Op.WRITE, Op.DEMOTE))].sum()
    assert demand.read_bytes == on_storage["nbytes"][np.isin(on_storage["op"], (Op.READ, Op.PROMOTE))].sum()
    assert demand.peak_storage_bytes <= (rank.capacities[-1] if kinds[-1] == "file" else 0)
    assert demand.largest_object_bytes == 4 * SECTOR_BYTES
    assert not demand.at_most
