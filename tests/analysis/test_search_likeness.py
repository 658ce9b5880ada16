"""A report that shows a search says so where the run is of other work, or on other storage, than what was searched."""

import json
from dataclasses import replace
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from kvbench_analysis.search.likeness import caution, unlike
from kvbench_analysis.tables.load import Run
from synthetic import synthetic_run

from kvbench.records.search import Asked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = synthetic_run(np.random.default_rng(1), operations=50)
    config = {
        "name": "a", "seed": 1, "duration_s": 10, "pacing": {"mode": "open", "speedup": 3.0},
        "io": {"threads": 4}, "calibration": {"seconds": 1}, "workload": {"kind": "trace", "path": "/a/t.jsonl"},
    }  # fmt: skip
    nodes = dict(made.tables["nodes"])
    nodes["directory"] = ["/mnt/a"] * len(nodes["node"])
    attributes: dict[str, Any] = {"config_json": json.dumps(config), "trace_digest": "abc", "ranks": 4}
    path = tmp_path_factory.mktemp("run") / "run.h5"
    return ka.load(made.changed(attributes=attributes, tables={"nodes": nodes}).write(path))


def asked(run: Run, place: str = "/mnt/a", **changes: Any) -> Asked:
    """A search of the very configuration of the run, but for what each of its probes has for itself, and `changes`."""
    config = run.config | {"name": "b", "seed": 42, "duration_s": 30, "calibration": {"seconds": 0}}
    config["workload"] = config["workload"] | {"path": "elsewhere/t.jsonl"}
    config["pacing"] = config["pacing"] | {"speedup": 20.0}
    config = config | changes
    text = json.dumps(config)
    numbers = (1.0, 64.0, 20.0, 30.0, 5.0, 5.0, 40)
    return Asked("a.yaml", text, "abc", "pacing.speedup", ("ttft_p95<2s",), "objectives", place, "", 4, *numbers)


def test_a_run_at_another_load_is_the_same_work(run: Run) -> None:
    assert unlike(run, asked(run)) == []
    assert unlike(run, asked(run, "/mnt/a/")) == []
    assert unlike(run, asked(run, "a")) == [], "nobody knows what that was relative to"
    assert caution(run, asked(run)) == ""


def test_what_differs_is_named(run: Run) -> None:
    assert unlike(run, asked(run, io={"threads": 8})) == ["io.threads"]
    assert unlike(run, asked(run, cache={"ttl_s": 3})) == ["cache.ttl_s"]
    assert unlike(run, replace(asked(run), key="workload.users")) == ["pacing.speedup"]
    assert unlike(run, replace(asked(run), ranks=2, trace_digest="x", place="/mnt/b")) == [
        "ranks",
        "trace",
        "directory",
    ]
    assert unlike(run, asked(run, "s3://bucket/a")) == ["directory"]


def test_the_sentence_names_four_and_counts_the_others(run: Run) -> None:
    other = replace(asked(run, io={"threads": 8, "depth": 2}), ranks=2, trace_digest="x", place="/mnt/b")
    assert caution(run, other).endswith("which differs in io.depth, io.threads, ranks, trace and 1 more.")


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_search_that_does_not_say_its_configuration_differs_in_all_of_it(run: Run, text: str) -> None:
    assert {"io.threads", "pacing.mode"} <= set(unlike(run, replace(asked(run), config=text)))
