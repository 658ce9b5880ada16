"""Loads and compute layer by layer, against plain arithmetic over what the documents say."""

import io
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pytest
from computed import MODEL
from kvbench_analysis.figures.first_token import FirstToken
from kvbench_analysis.figures.request_times import request_times
from rich.console import Console
from served import MS, load_row, request_row, served_run
from synthetic import SyntheticRun

FOUND, CONTEXT = 4096, 6144
TAKES_MS = float(MODEL.prefill_s(CONTEXT - FOUND, FOUND)) * 1e3
PART_MS = TAKES_MS / 2


def figures(run: SyntheticRun, tmp_path: Path) -> FirstToken:
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5", overwrite=True))).first_token
    assert found is not None
    return found


def layer_wise(run: SyntheticRun, tmp_path: Path) -> dict[str, list[float]]:
    """Times of each request in ms."""
    times = request_times(ka.load(run.write(tmp_path / "run.h5", overwrite=True)))
    assert times is not None
    names = ("layer_wise", "stall", "layer_wise_alone", "alone")
    return {name: (times.table[f"modelled_{name}_ns"] / MS).tolist() for name in names}


def loads(number: int, came_ms: float, *ends_ms: float) -> list[np.ndarray[Any, Any]]:
    """Each group of layers is loaded behind the other, by two reads of which one ends earlier."""
    rows, begins = [], came_ms
    for layer, end in enumerate(ends_ms, start=1):
        rows += [load_row(number, begins, (came_ms + end - begins) / 2, layer=layer, thread=1)]
        rows += [load_row(number, begins, came_ms + end - begins, layer=layer)]
        begins = came_ms + end
    return rows


def test_compute_overlaps_with_the_loads_of_the_layers_behind(tmp_path: Path) -> None:
    # The second half is there before the first is computed: nothing stalls but for the first.
    early = served_run([request_row(0, 0, 30, FOUND, CONTEXT)], loads(0, 0, 20, 30))
    found = layer_wise(early, tmp_path)
    assert found["layer_wise"] == pytest.approx([20 + TAKES_MS], abs=1e-3)
    assert found["stall"] == pytest.approx([20], abs=1e-3)
    assert found["alone"] == pytest.approx([30 + TAKES_MS], abs=1e-3)
    # It is there long after: the GPU waits for it, and then computes that part alone.
    late = served_run([request_row(0, 0, 900, FOUND, CONTEXT)], loads(0, 0, 20, 900))
    found = layer_wise(late, tmp_path)
    assert found["layer_wise"] == pytest.approx([900 + PART_MS], abs=1e-3)
    assert found["stall"] == pytest.approx([900 + PART_MS - TAKES_MS], abs=1e-3)


def test_the_gpu_is_kept_while_it_waits_for_layers(tmp_path: Path) -> None:
    # The second comes 10 ms later and has loaded at once, but the first has the GPU until its last layers are there.
    requests = [request_row(0, 0, 900, FOUND, CONTEXT), request_row(1, 10, 5, FOUND, CONTEXT)]
    run = served_run(requests, [*loads(0, 0, 20, 900), *loads(1, 10, 3, 5)])
    found = layer_wise(run, tmp_path)
    assert found["layer_wise"] == pytest.approx([900 + PART_MS, 900 + PART_MS + TAKES_MS - 10], abs=1e-3)
    assert found["stall"] == pytest.approx([900 + PART_MS - TAKES_MS, 0], abs=1e-3)
    # Alone it would not have waited.
    assert found["layer_wise_alone"][1] == pytest.approx(3 + TAKES_MS, abs=1e-3)
    # Of another rank's GPU it does not wait.
    requests[1]["rank"] = 1
    records = [*loads(0, 0, 20, 900), *loads(1, 10, 3, 5)]
    for row in records[4:]:
        row["rank"] = 1
    other = layer_wise(served_run(requests, records, ranks=2), tmp_path)
    assert other["layer_wise"][1] == pytest.approx(3 + TAKES_MS, abs=1e-3)


def test_of_all_requests_it_is_added_up(tmp_path: Path) -> None:
    requests = [request_row(0, 0, 900, FOUND, CONTEXT), request_row(1, 10, 5, FOUND, CONTEXT)]
    found = figures(served_run(requests, [*loads(0, 0, 20, 900), *loads(1, 10, 3, 5)]), tmp_path)
    assert found.layer_wise is not None
    assert (found.layer_wise.groups, found.layer_wise.stalled) == (2, 1)
    stall = 900 + PART_MS - TAKES_MS
    assert found.layer_wise.stall_share == pytest.approx(stall / (stall + 2 * TAKES_MS), rel=1e-6)
    means = {row["part"]: row["mean_ns"] / MS for row in found.parts.to_dict("records")}
    mean = (900 + PART_MS + 900 + PART_MS + TAKES_MS - 10) / 2
    assert means["modelled_layer_wise"] == pytest.approx(mean, rel=1e-6)
    # Each answer has ten tokens behind the first, in 80 ms.
    assert means["modelled_tpot"] == pytest.approx(8)


def test_of_ranks_that_serve_together_a_layer_is_there_when_the_slowest_has_its_part(tmp_path: Path) -> None:
    records = [*loads(0, 0, 20, 30), *loads(0, 0, 25, 35)]
    for row in records[4:]:
        row["rank"] = 1
    run = served_run([request_row(0, 0, 35, FOUND, CONTEXT)], records, ranks=2, tensor_parallel=2)
    assert layer_wise(run, tmp_path)["layer_wise"] == pytest.approx([25 + TAKES_MS], abs=1e-3)


@pytest.mark.parametrize("layers", ["none", "some"])
def test_without_layers_apart_there_is_none_and_it_is_said_why(tmp_path: Path, layers: str) -> None:
    records = loads(0, 0, 20, 30)
    for row in records if layers == "none" else records[:1]:
        row["layer"] = 0
    run = served_run([request_row(0, 0, 30, FOUND, CONTEXT)], records)
    found = figures(run, tmp_path)
    assert found.layer_wise is None
    assert "cache.split.layers" in found.no_layer_wise
    assert "modelled_layer_wise" not in set(found.parts["part"])
    console = Console(width=200, file=io.StringIO())
    with console.capture() as text:
        ka.print_summary(ka.summarize(ka.load(tmp_path / "run.h5")), console)
    assert "No time to first token layer by layer: objects hold all layers" in text.get()
