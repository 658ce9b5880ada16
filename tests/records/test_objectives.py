"""Objectives are read as they are written, and what is none is said to be none."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.records.objectives import FIGURES, Objective, parse_objective


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft_p95<2s", Objective("ttft", 95, 2)),
        ("load_p99<500ms", Objective("load", 99, 0.5)),
        ("load_P99.9 <= 500ms", Objective("load", 99.9, 0.5)),
        ("look_up_mean < 3", Objective("look_up", None, 3)),
        ("interactive.ttft_p50<1min", Objective("ttft", 50, 60, "interactive")),
    ],
)
def test_an_objective_is_read(text: str, expected: Objective) -> None:
    assert parse_objective(text, ("interactive",)) == expected


@given(
    st.sampled_from(list(FIGURES)),
    st.none() | st.integers(1, 99) | st.sampled_from([0.5, 99.9, 99.99]),
    st.integers(1, 10**6),
    st.none() | st.sampled_from(["interactive", "batch"]),
)
def test_what_an_objective_says_of_itself_is_read_as_the_same(
    figure: str, percentile: float | None, bound_ms: int, qos: str | None
) -> None:
    objective = Objective(figure, percentile, bound_ms / 1000, qos)
    again = parse_objective(str(objective))
    assert (again.figure, again.percentile, again.qos) == (figure, percentile, qos)
    assert again.bound_s == pytest.approx(objective.bound_s, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no objective"),
        ("ttft<2s", "expected FIGURE_pNN<TIME"),
        ("ttft_p95>2s", "is no objective"),
        ("ttft_p100<2s", "is no objective"),
        ("ttft_p0<2s", "above 0 and below 100"),
        ("tftt_p95<2s", "did you mean ttft?"),
        ("ttft_p95<2 parsecs", "is no objective"),
        ("ttft_p95<2parsecs", "unknown unit of time"),
        ("ttft_p95<0ms", "expected a time above 0"),
        ("ttft_p95<-1s", "expected a duration"),
        ("ttft_p95<nan", "expected a duration"),
        ("vip.ttft_p95<1s", "unknown QoS class 'vip' (known: interactive, batch)"),
    ],
)
def test_what_is_no_objective_is_told_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_objective(text, ("interactive", "batch"))
