"""The figures of requests: how many there were, and how long they took."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import distribution
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Phase, RequestState, label

ALL: Final = "all"
"""The `qos` of figures over all classes."""

STATES: Final = {state: label(state).replace("-", "_") for state in RequestState}


MODELLED: Final = ("modelled_prefill", "modelled_decode")
"""The parts of `request_latency` that are only where compute is modelled."""

SERVED: Final = ("look_up", "load")
"""Those that are only where requests are served as an engine does it."""


def modelled_parts(run: Run) -> tuple[str, ...]:
    """Of MODELLED, those that the latencies of this run have in them: all or none."""
    return MODELLED if run.config.get("compute") else ()


def served_parts(run: Run) -> tuple[str, ...]:
    """Of SERVED, those of this run: all or none, as of an older file."""
    told = "load_ns" in run.file.tables["requests"].columns
    return SERVED if run.serves_as_engine and told else ()


def _measured(run: Run) -> dict[str, NDArray[Any]]:
    names = ["qos", "state", "intended_ns", "start_ns", "end_ns", "storage_ns"]
    names += [f"{part}_ns" for part in (*served_parts(run), *modelled_parts(run))]
    mask = run.columns(["phase"], "requests")["phase"] == Phase.MEASURE
    return {name: values[mask] for name, values in run.columns(names, "requests").items()}


def _classes(run: Run, qos: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """All requests first; then each class that occurs, unless there is only one."""
    yield ALL, np.ones(len(qos), bool)
    codes = np.unique(qos)
    for code in codes if len(codes) > 1 else ():
        yield class_name(run, int(code)), qos == code


def class_name(run: Run, qos: int) -> str:
    """What the file calls the class with this number."""
    return run.qos_classes[qos] if qos < len(run.qos_classes) else f"class {qos}"


def request_counts(run: Run, window: Window) -> pd.DataFrame:
    """Per QoS class, and `all`: requests of the phase `measure` by how they ended, and done ones per second."""
    columns = _measured(run)
    start, end = columns["start_ns"], columns["end_ns"]
    inside = window.share_inside(start, end - start)
    rows = []
    for name, mask in _classes(run, columns["qos"]):
        row: dict[str, Any] = {"qos": name, "requests": int(mask.sum())}
        for state, column in STATES.items():
            row[column] = int(np.count_nonzero(mask & (columns["state"] == state)))
        done = mask & (columns["state"] == RequestState.DONE)
        row["requests_per_s"] = window.rate(float(inside[done].sum()))
        rows.append(row)
    return pd.DataFrame(rows)


def request_latency(run: Run) -> pd.DataFrame:
    """Per QoS class, and `all`, and part: the distribution over the requests of the phase `measure` that were done.

    `latency` is intended start to end, `queue` intended start to start, and where requests are served as an engine does
    it, `look_up` from then until they knew what there is, and `load` from then until that was loaded. `storage` is the
    sum of the wall times of the request's storage operations (which overlap, so it can exceed the latency). Where
    compute is modelled, so are `modelled_prefill` (its wait for the GPU included) and `modelled_decode`, which are in
    the latency: no one measured them.
    """
    columns = _measured(run)
    parts = {
        "latency": columns["end_ns"] - columns["intended_ns"],
        "queue": columns["start_ns"] - columns["intended_ns"],
        **{part: columns[f"{part}_ns"] for part in (*served_parts(run), *modelled_parts(run))},
        "storage": columns["storage_ns"],
    }
    done = columns["state"] == RequestState.DONE
    rows: list[dict[str, Any]] = []
    for name, mask in _classes(run, columns["qos"]):
        for part, values in parts.items():
            chosen = values[mask & done]
            row = {"qos": name, "part": part, "requests": len(chosen)}
            rows.append(row | distribution(chosen, overwrite=True))
    return pd.DataFrame(rows)
