"""How near made-up sessions come to a trace: distances that are what they are called, and those of the real trace."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvbench_analysis.plots.marks import Level, Line
from kvbench_analysis.plots.sessions import fitted_sessions
from matplotlib.figure import Figure as MatplotlibFigure

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.run.planning.likeness import Compared, Likeness, likeness
from kvbench.workload.sessions import made_part
from kvbench.workload.sessions.fit import fit
from kvbench.workload.traces import Trace, read_trace

DATA = Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")) / "traces"

SMALL = {
    "kind": "sessions",
    "users": 10,
    "span_s": 2000,
    "applications": {"number": 2, "prompt_tokens": 700},
    "turns": {"number": {0: 2, 100: 12}, "first_tokens": 400, "new_tokens": {0: 1, 100: 900}},
    "context": {"limit_tokens": 20000, "summary_tokens": 500},
    "subagents": {"share": 0},
}


def config_of(workload: dict[str, Any]) -> RunConfig:
    content = {"workload": workload, "pacing": {"mode": "open"}, "duration_s": None}
    return parse_config(content, "sessions")


@pytest.fixture(scope="module")
def trace() -> Trace:
    return made_part(config_of(SMALL), 5)


@pytest.fixture(scope="module")
def compared(trace: Trace) -> Likeness:
    return likeness(trace, config_of(SMALL), populations=6)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
    st.lists(st.floats(0, 100), min_size=1, max_size=30),
)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(left: list[float], right: list[float]) -> None:
    distance = Compared("x", "", np.array(left), np.array(right)).distance
    shares = ([np.mean(np.array(values) <= value) for values in (left, right)] for value in (*left, *right))
    assert distance == pytest.approx(max(abs(one - other) for one, other in shares))


def test_a_population_among_those_with_its_own_parameters_is_near(trace: Trace, compared: Likeness) -> None:
    assert compared.recorded_requests == len(trace)
    # The trace is one of them.
    assert len(trace) in compared.made_up_requests
    assert max(one.distance for one in compared.compared) < 0.15
    assert np.abs(compared.curve_distances).max() < 0.08


def test_what_is_compared_is_that_of_the_trace(trace: Trace, compared: Likeness) -> None:
    by_name = {one.name: one.recorded for one in compared.compared}
    assert by_name["context"].tolist() == trace.context_tokens.tolist()
    assert by_name["answer"].sum() == trace.output_tokens.sum()
    assert by_name["turns of a session"].sum() == len(trace)
    assert sorted(by_name["gap before a turn"]) == sorted(trace.gap_ns[trace.gap_ns >= 0] / 1e9)
    found, seen = 0, set[int]()
    for request in range(len(trace)):
        ids = trace.ids(request).tolist()
        prefix = next((place for place, block in enumerate(ids) if block not in seen), len(ids))
        assert by_name["found by prefix"][request] == pytest.approx(100 * 64 * prefix / trace.context_tokens[request])
        found += prefix
        seen |= set(ids)
    assert compared.recorded_unlimited == pytest.approx(found / trace.hash_counts.sum())
    assert compared.recorded_curve[-1] == compared.recorded_unlimited


def test_other_parameters_are_farther_away(trace: Trace, compared: Likeness) -> None:
    other = {**SMALL, "turns": {**SMALL["turns"], "new_tokens": {0: 1, 100: 3000}}}  # type: ignore[dict-item]
    farther = likeness(trace, config_of(other), populations=2)
    for name in ("context", "new in a turn"):
        near, far = (next(one.distance for one in each.compared if one.name == name) for each in (compared, farther))
        assert far > 0.2 > near
    assert np.abs(farther.curve_distances).max() > 2 * np.abs(compared.curve_distances).max()


def test_the_picture_shows_what_was_compared(compared: Likeness) -> None:
    figure = fitted_sessions(compared.as_dict())
    *distributions, curve = figure.panels
    assert [panel.title for panel in distributions] == [one.name for one in compared.compared]
    for panel, one in zip(distributions, compared.compared, strict=True):
        recorded, made_up = panel.marks
        assert isinstance(recorded, Line)
        assert isinstance(made_up, Line)
        assert (recorded.name, made_up.name) == ("the trace", "made up")
        assert recorded.x[100] == max(np.median(one.recorded), 0 if "%" in one.unit else 1)
        assert recorded.y[100] == 50
    recorded, made_up, level = curve.marks
    assert isinstance(recorded, Line)
    assert isinstance(made_up, Line)
    assert isinstance(level, Level)
    assert recorded.y.tolist() == (100 * compared.recorded_curve).tolist()
    assert made_up.low is not None
    assert made_up.high is not None
    assert (made_up.low <= made_up.y + 1e-9).all()
    assert (made_up.y <= made_up.high + 1e-9).all()
    assert level.y == 100 * compared.recorded_unlimited
    assert isinstance(figure.to_matplotlib(), MatplotlibFigure)
    assert len(figure.to_plotly().data) > 2 * len(distributions)


@pytest.fixture
def agentic() -> Trace:
    folder = DATA / "agentic"
    if not folder.exists():
        message = f"needs the traces of {DATA}; KVBENCH_DATA names another folder"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return read_trace(folder)


@pytest.mark.slow
def test_what_fits_the_agentic_traces_is_found_again_nearly_as_often(agentic: Trace) -> None:
    config = config_of(fit(agentic).workload.model_dump(mode="json"))
    compared = likeness(agentic, config, populations=4)
    assert compared.recorded_unlimited == 629_816 / 672_109
    assert np.mean(compared.made_up_unlimited) == pytest.approx(compared.recorded_unlimited, abs=0.02)
    assert np.abs(compared.curve_distances).mean() < 0.04
    assert max(one.distance for one in compared.compared) < 0.15


def test_answers_that_are_known_are_left_out_on_both_sides(trace: Trace, compared: Likeness) -> None:
    plain = replace(trace.without_answers(), digest="")
    assert trace.answer_counts.any()
    assert likeness(plain, config_of(SMALL), populations=1).recorded_curve.tolist() == compared.recorded_curve.tolist()
