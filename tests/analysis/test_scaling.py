"""The Universal Scalability Law gives back the terms that throughputs were made with."""

import math

import kvbench_analysis as ka
import numpy as np
import pytest
from ground_truth import Load, Sharing, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from kvbench_analysis.scaling.usl import CURVE_COLUMNS, TERM_COLUMNS, usl

from kvbench.errors import KvbenchError

SIZES = np.array([1, 2, 4, 8, 16, 32, 64])


@settings(max_examples=25, deadline=None)
@given(
    one=st.floats(1e-3, 1e6),
    contention=st.floats(0, 1),
    coherency=st.one_of(st.just(0.0), st.floats(1e-4, 0.05)),
)
def test_without_noise_the_terms_come_back(one: float, contention: float, coherency: float) -> None:
    rng = np.random.default_rng(1)
    fit = ka.fit_usl(SIZES, usl(SIZES, one, contention, coherency), rng, resamples=2)
    assert fit.throughput_of_one.estimate == pytest.approx(one, rel=1e-3)
    assert fit.contention.estimate == pytest.approx(contention, rel=0.01, abs=1e-3)
    assert fit.coherency.estimate == pytest.approx(coherency, rel=0.01, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    contention=st.floats(0.05, 0.4),
    coherency=st.floats(1e-3, 0.02),
)
def test_with_noise_they_come_back_within_5_percent(seed: int, contention: float, coherency: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.repeat(SIZES, 5)
    throughput = usl(sizes, 1000.0, contention, coherency) * rng.lognormal(0, 0.003, len(sizes))
    fit = ka.fit_usl(sizes, throughput, rng, resamples=2)
    assert fit.throughput_of_one.estimate == pytest.approx(1000, rel=0.05)
    assert fit.contention.estimate == pytest.approx(contention, rel=0.05)
    assert fit.coherency.estimate == pytest.approx(coherency, rel=0.05)
    assert fit.peak_n.estimate == pytest.approx(max(math.sqrt((1 - contention) / coherency), 1), rel=0.05)


@pytest.mark.slow
def test_the_intervals_hold_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(20260105)
    sizes = np.repeat([1, 2, 4, 8], 3)
    truth = (1000.0, 0.1, 0.01)
    held = np.zeros(3)
    repeats = 200
    for _ in range(repeats):
        throughput = usl(sizes, *truth) * rng.lognormal(0, 0.02, len(sizes))
        fit = ka.fit_usl(sizes, throughput, rng, resamples=150)
        terms = (fit.throughput_of_one, fit.contention, fit.coherency)
        held += [term.low <= value <= term.high for term, value in zip(terms, truth, strict=True)]
    assert np.all((held / repeats >= 0.90) & (held / repeats <= 0.99))


def test_workers_that_share_one_bandwidth_do_nothing_but_queue_for_it() -> None:
    rng = np.random.default_rng(3)
    throughput = []
    for workers in (1, 2, 4, 8):
        rows = simulate(rng, Sharing(10.0), [Load(workers, 20e6)])
        throughput.append(rows[:, 2].sum() / (rows[:, 0] + rows[:, 1]).max())
    fit = ka.fit_usl([1, 2, 4, 8], throughput, rng, resamples=20)
    assert fit.throughput_of_one.estimate == pytest.approx(10, rel=0.05)
    assert fit.contention.estimate == pytest.approx(1, rel=0.05)
    assert fit.coherency.estimate == pytest.approx(0, abs=0.01)
    assert fit.peak_throughput.estimate == pytest.approx(10, rel=0.05)


def test_a_throughput_that_only_grows_has_no_peak() -> None:
    fit = ka.fit_usl(SIZES, usl(SIZES, 10.0, 0.1, 0.0), np.random.default_rng(1), resamples=5)
    assert fit.peak_n.estimate == math.inf
    assert fit.peak_throughput.estimate == pytest.approx(100, rel=0.01)
    linear = ka.fit_usl(SIZES, 10.0 * SIZES, np.random.default_rng(1), resamples=5)
    assert linear.peak_throughput.estimate == math.inf


def test_as_many_points_as_terms_leave_no_interval() -> None:
    fit = ka.fit_usl([1, 2, 4], [10.0, 18.0, 28.0], np.random.default_rng(1))
    assert fit.terms()["low"].isna().all()
    assert fit.curve([1, 8])["low"].isna().all()
    assert fit.predict([1, 2, 4]).tolist() == pytest.approx([10, 18, 28], rel=0.01)


@pytest.mark.parametrize(
    ("n", "throughput"), [([1, 2], [1.0, 2.0]), ([1, 2, 3], [1.0, 2.0]), ([1, 2, 4], [1.0, 0.0, 3.0])]
)
def test_too_few_sizes_are_refused(n: list[int], throughput: list[float]) -> None:
    with pytest.raises(KvbenchError, match="a scaling fit"):
        ka.fit_usl(n, throughput, np.random.default_rng(1))


def test_the_tables_have_their_columns() -> None:
    rng = np.random.default_rng(1)
    fit = ka.fit_usl(np.repeat(SIZES, 2), usl(np.repeat(SIZES, 2), 10.0, 0.1, 0.001), rng, resamples=20)
    terms, curve = fit.terms(), fit.curve(range(1, 100))
    assert list(terms.columns) == list(TERM_COLUMNS)
    assert terms["term"].tolist() == ["lambda", "sigma", "kappa", "peak_n", "peak_throughput"]
    assert list(curve.columns) == list(CURVE_COLUMNS)
    assert curve["n"].iloc[int(curve["throughput"].argmax())] == pytest.approx(fit.peak_n.estimate, abs=1)
    assert (curve["low"] <= curve["throughput"]).all()
    assert (curve["throughput"] <= curve["high"]).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    contention=st.just(0.0) | st.floats(0, 1),
    coherency=st.sampled_from([0.0, 1e-3, 0.02]),
    noise=st.sampled_from([0.003, 0.05, 0.2]),
)
def test_draws_are_fitted_alike_by_both_solvers(seed: int, contention: float, coherency: float, noise: float) -> None:
    """Whether a minimum lies within the bounds, where one is used that knows none, or on them."""
    rng = np.random.default_rng(seed)
    sizes = np.repeat([1.0, 2, 4, 8, 16], 2)
    throughput = usl(sizes, 1000.0, contention, coherency) * rng.lognormal(0, noise, len(sizes))
    fast = ka.fit_usl(sizes, throughput, np.random.default_rng(seed), resamples=5).draws
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvbench_analysis.scaling.usl._CONVERGED", ())
        bounded = ka.fit_usl(sizes, throughput, np.random.default_rng(seed), resamples=5).draws
    np.testing.assert_allclose(fast, bounded, rtol=1e-3, atol=1e-4)
