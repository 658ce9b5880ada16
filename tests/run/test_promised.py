"""A run whose objectives cannot be told is refused before it starts."""

import pytest

from kvbench.config.load import parse_config
from kvbench.errors import KvbenchError
from kvbench.records.objectives import Objective
from kvbench.run.checks.promised import check_objectives

TRACE = {"workload": {"kind": "sessions"}}


def test_objectives_of_a_configuration_are_read() -> None:
    config = parse_config({**TRACE, "objectives": ["load_p99<500ms", "batch.latency_p50<1min"]}, "mine.yaml")
    assert check_objectives(config, "mine.yaml") == (
        Objective("load", 99, 0.5),
        Objective("latency", 50, 60, "batch"),
    )


def test_objectives_are_no_part_of_the_fingerprint() -> None:
    with_one = parse_config({**TRACE, "objectives": ["load_p99<500ms"]}, "mine.yaml")
    assert with_one.fingerprint(2) == parse_config(TRACE, "mine.yaml").fingerprint(2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("load_p99", "mine.yaml: objectives: 'load_p99' is no objective"),
        ("vip.load_p99<1s", "unknown QoS class 'vip' (known: interactive, responsive, batch)"),
        ("ttft_p95<2s", "ttft has a modelled part, and the configuration has no compute: set compute.gpu"),
    ],
)
def test_an_objective_that_cannot_be_told_is_refused(text: str, says: str) -> None:
    with pytest.raises(KvbenchError) as raised:
        check_objectives(parse_config({**TRACE, "objectives": [text]}, "mine.yaml"), "mine.yaml")
    assert says in str(raised.value)
