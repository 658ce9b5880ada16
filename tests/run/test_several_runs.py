"""Several runs in one process, as a search and a sequence of trials do them."""

import gc
from pathlib import Path

import psutil
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.run import runner
from kvbench.run.order import Order
from kvbench.units import MIB

OF_A_RUN = ("duration_s=0.2", "calibration.seconds=0", "io.arena_bytes=400MiB", "tiers.0.capacity_bytes=400MiB")


def test_a_run_that_is_over_holds_no_memory_of_arena_and_tiers(tmp_path: Path) -> None:
    def run() -> int:
        order = Order("smoke", str(tmp_path), tmp_path / "run.h5", OF_A_RUN, overwrite=True)
        runner.run(SerialComm(), order, Console(quiet=True)).close()
        resident: int = psutil.Process().memory_info().rss
        return resident

    # Whatever still refers to the run, and for however long.
    gc.disable()
    try:
        first = run()
        assert run() < first + 200 * MIB
    finally:
        gc.enable()
