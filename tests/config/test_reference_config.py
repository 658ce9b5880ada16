"""The configuration of the reference workload: what it needs, what it refuses, and the presets that use it."""

import pytest

from kvbench.config.load import load_config, parse_config
from kvbench.config.run_config import ReferenceWorkload, RunConfig
from kvbench.errors import KvbenchError
from kvbench.mlperf.option_table import OPTIONS
from kvbench.units import GIB


def parse(**changes: object) -> RunConfig:
    content = {"workload": {"kind": "reference"}, "pacing": {"mode": "open", "admission": "priority"}} | changes
    return parse_config(content, "test")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pacing": {"mode": "closed"}}, "set pacing.mode to open"),
        ({"pacing": {"mode": "open", "requests_per_s": 3}}, "without requests_per_s"),
        ({"pacing": {"mode": "open", "speedup": 2}}, "and speedup"),
        (
            {"workload": {"kind": "reference", "mode": "decode"}},
            "workload.mode: the reference workload is prefill-decode",
        ),
        ({"cache": {"layout": "block"}}, "cache.layout"),
        ({"namespace": "shared"}, "use private"),
        ({"duration_s": None}, "give the seconds to measure"),
        ({"workload": {"kind": "reference", "mix": {}}}, "unknown key workload.mix"),
        ({"tiers": [{"kind": "file", "fill": 0.5}]}, "fill is for memory tiers"),
    ],
)
def test_what_the_reference_does_not_do_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        parse(**changes)


def test_admission_by_priority_is_for_open_loop() -> None:
    with pytest.raises(KvbenchError, match=r"pacing\.admission: .* set pacing\.mode to open"):
        parse_config({"pacing": {"admission": "priority"}}, "test")


def test_a_memory_tier_is_filled_to_its_share() -> None:
    config = parse(tiers=[{"kind": "memory", "capacity_bytes": "4GiB", "fill": 0.8}, {"kind": "file"}])
    assert config.tiers[0].usable_bytes == int(4 * GIB * 0.8)
    assert config.tiers[1].usable_bytes == "auto"


def test_who_goes_first_and_how_full_memory_gets_are_part_of_the_fingerprint() -> None:
    by_arrival = parse(pacing={"mode": "open"})
    memory = {"kind": "memory", "capacity_bytes": "4GiB"}
    configs = [parse(), by_arrival, *(parse(tiers=[memory | {"fill": fill}, {"kind": "file"}]) for fill in (1, 0.8))]
    assert len({config.fingerprint(1) for config in configs}) == 4


@pytest.mark.parametrize("option", OPTIONS)
def test_a_preset_gives_every_user_a_worker_and_decides_as_the_reference_does(option: int) -> None:
    config = load_config(f"mlperf/option-{option}")
    assert isinstance(config.workload, ReferenceWorkload)
    assert config.io.threads == min(config.workload.users, 500)
    assert config.pacing.admission == "priority"
    assert config.io.drop_page_cache
