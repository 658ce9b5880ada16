"""The common clock of two nodes, whose true difference is known: each has a time namespace of its own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_bed import NodeBed

pytestmark = pytest.mark.slow


PROGRAM = Path(__file__).parent / "programs" / "stamped.py"

LINE_UP_NS = 100_000
"""Times of different nodes are to agree to better than this."""


@pytest.fixture(scope="module")
def measured(bed: NodeBed, on_nodes: Callable[..., Any]) -> dict[str, list[dict[str, int]]]:
    """What programs/stamped.py found on four ranks of two nodes."""
    outcome = on_nodes(sys.executable, PROGRAM)
    assert outcome.code == 0, outcome.err
    found: dict[str, list[dict[str, int]]] = json.loads(outcome.out)
    return found


def test_messages_between_nodes_take_equally_long_both_ways_on_the_common_clock(
    measured: dict[str, list[dict[str, int]]],
) -> None:
    """The shortest ways there and back are alike, so half their difference is the error of the clock."""
    uncertainty_ns = max(node["uncertainty_ns"] for node in measured["clocks"])
    assert [pair["rank"] for pair in measured["pairs"]] == [0, 1]
    for pair in measured["pairs"]:
        there_ns, back_ns = pair["there_ns"], pair["back_ns"]
        assert there_ns + back_ns > 0, "the sum does not depend on the clocks"
        assert min(there_ns, back_ns) > -uncertainty_ns, "no message arrives before it was sent"
        assert abs(there_ns - back_ns) / 2 < LINE_UP_NS, pair


def test_the_estimate_is_the_true_difference_within_what_it_claims(
    bed: NodeBed, measured: dict[str, list[dict[str, int]]]
) -> None:
    true_ns = bed.clock_ahead_ns(2) - bed.clock_ahead_ns(1)
    assert true_ns > 10**12, "the nodes' clocks differ"
    first, second = measured["clocks"]
    assert (first["offset_ns"], first["uncertainty_ns"]) == (0, 0)
    error_ns = second["offset_ns"] - true_ns
    assert abs(error_ns) <= second["uncertainty_ns"]
    assert abs(error_ns) < LINE_UP_NS
    # Clocks of one machine do not drift: the second comparison is as wrong as the two uncertainties allow.
    assert abs(second["drift_ns"]) <= 2 * second["uncertainty_ns"]
