"""The schedule of a configuration is the same on every run and every machine: its digests are pinned here.

A changed digest means that runs are not comparable with those before: raise `SCHEDULE_VERSION` with it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.workload.build import build_schedule, schedule_digest, trace_parts
from kvbench.workload.draws import stream_generator
from kvbench.workload.request import Schedule
from kvbench.workload.trace_samples import SAMPLES
from kvbench.workload.traces import load_trace

Make = Callable[..., RunConfig]
PERSONA_DIGESTS = {
    ("closed", "entry", "prefill-decode"): "c9cbe5dfa6a8fb19",
    ("closed", "block", "prefill-decode"): "1beb13bba340a3fb",
    ("open", "block", "prefill"): "4bfdb5d1e2a2fa90",
    ("asap", "entry", "decode"): "ed13bde07af9ad77",
}
TRACE_DIGESTS = {
    ("mooncake", "block"): "57af662de3febc0d",
    ("mooncake", "entry"): "700be5b316deadc4",
    ("azure", "block"): "0b26b4a3831469b0",
    ("azure", "entry"): "718f8dd31793c9ba",
}


@pytest.mark.parametrize(("key", "digest"), PERSONA_DIGESTS.items(), ids=str)
def test_persona_schedules_never_change(make_config: Make, key: tuple[str, str, str], digest: str) -> None:
    pacing, layout, mode = key
    rate = {"requests_per_s": 12.5, "speedup": 1.5} if pacing == "open" else {}
    config = make_config(seed=42, workload={"mode": mode}, pacing={"mode": pacing} | rate, cache={"layout": layout})
    assert schedule_digest(build_schedule(config, rank=1, size=2)) == digest


@pytest.mark.parametrize(("key", "digest"), TRACE_DIGESTS.items(), ids=str)
def test_trace_schedules_never_change(make_config: Make, tmp_path: Path, key: tuple[str, str], digest: str) -> None:
    name, layout = key
    path = tmp_path / "sample"
    path.write_bytes(SAMPLES[name][1](stream_generator(7), 60))
    config = make_config(
        workload={"kind": "trace", "path": str(path), "serving": "reference"},
        pacing={"mode": "open", "speedup": 3},
        cache={"layout": layout},
    )
    assert schedule_digest(build_schedule(config, rank=0, size=2)) == digest


ENGINE_DIGESTS = {"mooncake": "22eae5af75b96fc1", "azure": "a59319bc0be45bf3"}


@pytest.mark.parametrize(("name", "digest"), ENGINE_DIGESTS.items())
def test_schedules_of_chains_never_change(make_config: Make, tmp_path: Path, name: str, digest: str) -> None:
    path = tmp_path / "sample"
    path.write_bytes(SAMPLES[name][1](stream_generator(7), 60))
    config = make_config(workload={"kind": "trace", "path": str(path)}, pacing={"mode": "open", "speedup": 3})
    assert schedule_digest(build_schedule(config, rank=0, size=2)) == digest


def test_the_digest_sees_seed_rank_and_the_number_of_requests(make_config: Make) -> None:
    def digest(seed: int, rank: int, requests: int = 100) -> str:
        return schedule_digest(build_schedule(make_config(seed=seed), rank, 4), requests)

    assert digest(1, 0) == digest(1, 0)
    assert len({digest(1, 0), digest(2, 0), digest(1, 1), digest(1, 0, 99)}) == 4


@pytest.mark.parametrize("how", ["round-robin", "prefix"])
def test_a_part_that_was_sent_gives_the_same_schedule_as_reading_the_file(
    make_config: Make, samples: dict[str, Path], how: str
) -> None:
    config = make_config(workload={"kind": "trace", "path": str(samples["mooncake"]), "deal": how, "max_requests": 50})
    assert isinstance(config.workload, TraceWorkload)
    parts = list(trace_parts(load_trace(config.workload), config.workload, 3))
    assert sum(len(part) for part in parts) == 50
    for rank, part in enumerate(parts):
        sent = build_schedule(config, rank, 3, part)
        assert list(sent.stream(0)) == list(build_schedule(config, rank, 3).stream(0))


def test_both_kinds_are_schedules(make_config: Make, samples: dict[str, Path]) -> None:
    trace = make_config(workload={"kind": "trace", "path": str(samples["sharegpt"])}, cache={"layout": "block"})
    schedules: list[Schedule] = [build_schedule(make_config(), 0, 1), build_schedule(trace, 0, 1)]
    assert [schedule.users for schedule in schedules] == [20, 1]
