"""Whether halves differ: seldom told of runs that are the same throughout, and seldom missed where one is half as fast.

Runs are made of threads in a closed loop on storage whose speed wanders: its logarithm follows its own past from half a
second to the next, as that of a drive among others does.
"""

from collections.abc import Callable
from pathlib import Path as FilePath

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.figures.halves import half_figures
from kvbench_analysis.tables.window import Window
from synthetic import START_NS, SyntheticRun, record_rows, request_rows, run_attributes, run_tables

from kvbench.records.schema import Op

SECONDS = 60.0
SAME = lambda share: 1.0  # noqa: E731
HALVED = lambda share: 1.0 if share < 0.5 else 0.5  # noqa: E731
STEP_S = 0.5
MEAN_S = 0.03

Speed = Callable[[float], float]


def wandering(rng: np.random.Generator, follows: float, spread: float) -> np.ndarray:
    """The logarithm of how long things take, for each half second."""
    pushes = rng.normal(0, spread * np.sqrt(1 - follows**2), int(SECONDS / STEP_S) + 1)
    slowness = np.zeros(len(pushes))
    for place in range(1, len(pushes)):
        slowness[place] = follows * slowness[place - 1] + pushes[place]
    return slowness


def of_speed(rng: np.random.Generator, speed: Speed, follows: float = 0.5, spread: float = 0.2) -> SyntheticRun:
    """A run of a minute; `speed` of the share of it that is over."""
    slowness, moments, walls = wandering(rng, follows, spread), [], []
    for _ in range(6):
        now_s = float(rng.random() * MEAN_S)
        while now_s < SECONDS:
            wall_s = MEAN_S * rng.lognormal(0, 0.5) * np.exp(slowness[int(now_s / STEP_S)]) / speed(now_s / SECONDS)
            moments.append(now_s)
            walls.append(wall_s)
            now_s += wall_s
    order = np.argsort(moments)
    rows = record_rows(rng, len(order), tokens=8)
    rows["t_start_ns"] = START_NS + (np.array(moments)[order] * 1e9).astype(np.int64)
    rows["wall_ns"] = (np.array(walls)[order] * 1e9).astype(np.int64)
    rows["device_ns"], rows["host_ns"], rows["runq_ns"] = rows["wall_ns"], 0, 0
    rows["op"] = np.where(rng.random(len(rows)) < 0.6, Op.READ, Op.WRITE)
    end_ns = START_NS + int(SECONDS * 1e9)
    requests = request_rows(rng, 2000, end_ns=end_ns - 10**9)
    tables = run_tables(rows, requests, 1, 1)
    return SyntheticRun(rows, requests, run_attributes(1, 1, measure_end_ns=end_ns), tables)


def halves(run: SyntheticRun, path: FilePath) -> pd.DataFrame:
    loaded = ka.load(run.write(path / "run.h5", overwrite=True))
    return half_figures(loaded, Window.of(loaded.attributes))


def told(rng: np.random.Generator, speed: Speed, path: FilePath, runs: int, **how: float) -> float:
    """The share of so many runs that are told to have changed."""
    return float(np.mean([halves(of_speed(rng, speed, **how), path)["differs"].any() for _ in range(runs)]))


@pytest.mark.slow
@pytest.mark.parametrize("follows", [0.0, 0.6])
def test_of_runs_that_are_the_same_throughout_hardly_one_is_told_to_have_changed(
    tmp_path: FilePath, follows: float
) -> None:
    """One in a hundred at most: of 200, 7 and more come up once in 200 times."""
    rng = np.random.default_rng(7)
    assert told(rng, SAME, tmp_path, 200, follows=follows) * 200 <= 6


@pytest.mark.slow
def test_a_run_whose_storage_becomes_half_as_fast_is_told(tmp_path: FilePath) -> None:
    assert told(np.random.default_rng(8), HALVED, tmp_path, 60) >= 0.9


def test_the_figures_of_each_half_are_those_of_its_time(tmp_path: FilePath) -> None:
    run = of_speed(np.random.default_rng(9), HALVED)
    found = halves(run, tmp_path).set_index(["what", "figure"])
    middle = START_NS + int(SECONDS * 1e9 / 2)
    rows, requests = run.records, run.requests
    for what, op in (("storage reads", Op.READ), ("storage writes", Op.WRITE)):
        chosen = rows[rows["op"] == op]
        start, end, nbytes = chosen["t_start_ns"], chosen["t_start_ns"] + chosen["wall_ns"], chosen["nbytes"]
        for column, low, high in (("first", START_NS, middle), ("second", middle, START_NS + int(SECONDS * 1e9))):
            inside = np.clip(np.minimum(end, high) - np.maximum(start, low), 0, None) / chosen["wall_ns"]
            rate = (inside * nbytes).sum() / (SECONDS / 2) / 2**30
            assert found.loc[(what, "bandwidth"), column] == pytest.approx(rate, rel=1e-6)
            ended = chosen[(end >= low) & ((end < high) | (column == "second"))]
            for name, quantile in (("P50", 0.5), ("P95", 0.95)):
                if (what, name) in found.index:
                    expected = np.quantile(ended["wall_ns"], quantile) / 1e6
                    assert found.loc[(what, name), column] == pytest.approx(expected, rel=1e-3)
    early = requests["start_ns"] < middle
    for column, part in (("first", requests[early]), ("second", requests[~early])):
        hits, missing = part["hit_tokens"].sum(), part["miss_tokens"].sum()
        assert found.loc[("hits", "of tokens"), column] == pytest.approx(100 * hits / (hits + missing))
    assert found.loc[("storage reads", "bandwidth"), "differs"]
    assert found.loc[("storage reads", "bandwidth"), "change"] == pytest.approx(-0.5, abs=0.15)
    assert not found.loc[("hits", "of tokens"), "differs"]


def test_the_warning_has_the_numbers_of_both_halves_of_what_differs_alone(tmp_path: FilePath) -> None:
    path = of_speed(np.random.default_rng(9), HALVED).write(tmp_path / "run.h5")
    summary = ka.summarize(ka.load(path))
    (caution,) = [one for one in summary.warnings if one.code == "halves-differ"]
    for row in summary.halves.to_dict("records"):
        assert (f"{row['what']}, {row['figure']}: " in caution.message) == row["differs"]
    assert "GiB/s, then " in caution.message
    assert "hits" not in caution.message


def test_a_change_of_less_than_a_tenth_is_none_however_sure(tmp_path: FilePath) -> None:
    """One read after the other, which take 5 % longer in the second half, and hardly anything else."""
    rng = np.random.default_rng(4)
    walls_s = 0.01 * rng.normal(1, 0.01, 5900) * np.where(np.arange(5900) < 3000, 1, 1.05)
    rows = record_rows(rng, 5900, tokens=8)
    rows["wall_ns"] = (walls_s * 1e9).astype(np.int64)
    rows["t_start_ns"] = START_NS + np.cumsum(rows["wall_ns"]) - rows["wall_ns"]
    requests = request_rows(rng, 10)
    attributes = run_attributes(1, 1, measure_end_ns=START_NS + int(SECONDS * 1e9))
    found = halves(SyntheticRun(rows, requests, attributes, run_tables(rows, requests, 1, 1)), tmp_path)
    (rate,) = found[(found["what"] == "storage reads") & (found["figure"] == "P50")].to_dict("records")
    assert rate["p"] < 1e-6
    assert rate["change"] == pytest.approx(0.05, abs=0.01)
    assert not found["differs"].any()


def test_a_run_without_a_window_and_a_study_have_no_halves(tmp_path: FilePath) -> None:
    run = of_speed(np.random.default_rng(9), HALVED)
    others: tuple[dict[str, str | int | float], ...] = ({"measure_end_ns": START_NS}, {"kind": "study-copy-path"})
    for number, changes in enumerate(others):
        loaded = ka.load(run.changed(attributes=changes).write(tmp_path / f"{number}.h5"))
        assert half_figures(loaded, Window.of(loaded.attributes)).empty
