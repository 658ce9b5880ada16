"""Waiting on a node that has more ranks than processors."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvbench.cluster import oversubscription

HALF = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_LOCAL_SIZE"])
def test_how_crowded_a_node_is_follows_from_what_the_launcher_says(name: str) -> None:
    processors = len(os.sched_getaffinity(0))
    assert oversubscription.ranks_per_processor({name: str(10 * processors)}) == 10


@pytest.mark.parametrize("environ", [{}, HALF, {"OMPI_COMM_WORLD_LOCAL_SIZE": "many"}])
def test_a_rank_with_a_processor_to_itself_is_not_crowded(environ: Mapping[str, str]) -> None:
    assert oversubscription.ranks_per_processor(environ) == 1


@pytest.mark.parametrize(("crowding", "pause"), [(1, 0.001), (8, 0.008), (500, 0.02)])
def test_pauses_grow_with_the_crowd_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, crowding: float, pause: float
) -> None:
    monkeypatch.setattr(oversubscription, "CROWDING", crowding)
    assert oversubscription.pause_s(0.001) == pytest.approx(pause)
    assert oversubscription.pause_s(0.05) == 0.05, "what is longer anyway stays"


def slack_ns() -> int:
    return int(Path("/proc/self/timerslack_ns").read_text(encoding="ascii"))


def test_naps_are_long_on_a_crowded_node_and_only_inside_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    usual_ns = slack_ns()
    monkeypatch.setattr(oversubscription, "CROWDING", 1.0)
    with oversubscription.long_naps():
        assert slack_ns() == usual_ns
    monkeypatch.setattr(oversubscription, "CROWDING", 2.0)
    with oversubscription.long_naps():
        assert slack_ns() > 100 * usual_ns
    assert slack_ns() == usual_ns


NOT_ON_EVERY_RANK = (
    "h5py",
    "hdf5plugin",
    "pandas",
    "scipy",
    "matplotlib",
    "plotly",
    "cryptography",
    "kvbench_analysis",
)


def test_a_rank_imports_nothing_that_only_the_one_that_writes_and_prints_needs() -> None:
    """Hundreds of ranks on a node import at once: seconds and gigabytes."""
    program = "import sys, kvbench.commands.run; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(NOT_ON_EVERY_RANK) & set(done.stdout.split())


@pytest.mark.parametrize(("environ", "threads"), [({"OMPI_COMM_WORLD_RANK": "1"}, "1"), ({}, "None")])
def test_a_rank_has_no_threads_for_linear_algebra(environ: dict[str, str], threads: str) -> None:
    program = "import os, kvbench; print(os.environ.get('OPENBLAS_NUM_THREADS'))"
    plain = {name: value for name, value in os.environ.items() if "BLAS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=plain | environ
    )
    assert done.stdout.strip() == threads
