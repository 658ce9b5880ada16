"""The figures of requests where the file does not hold every row (`condensed` says what they are of)."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.condensed.operations import histograms, table_rows
from kvbench_analysis.figures import requests
from kvbench_analysis.figures.requests import ALL, MODELLED, SERVED, STATES, class_name
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILE_COLUMNS, PERCENTILES, backed_percentile
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.condensed.histogram import Histogram
from kvbench.records.condensed.population_schema import REQUEST_QUANTITIES
from kvbench.records.schema import Quantity

_PARTS: Final = {
    "latency": Quantity.REQUEST_LATENCY,
    "queue": Quantity.REQUEST_QUEUE,
    "look_up": Quantity.REQUEST_LOOK_UP,
    "load": Quantity.REQUEST_LOAD,
    "modelled_prefill": Quantity.REQUEST_PREFILL,
    "modelled_decode": Quantity.REQUEST_DECODE,
    "storage": Quantity.REQUEST_STORAGE,
}
_FROM_SAMPLE: Final = [*PERCENTILE_COLUMNS, "percentiles_of", "backed_percentile"]


def _classes(run: Run) -> Iterator[tuple[str, NDArray[np.void]]]:
    """All classes first; then each that occurs, unless there is only one."""
    rows = table_rows(run, "request_population")
    yield ALL, rows
    for row in range(len(rows) if len(rows) > 1 else 0):
        yield class_name(run, int(rows["qos"][row])), rows[row : row + 1]


def request_counts(run: Run, window: Window) -> pd.DataFrame:
    """As `requests.request_counts`, of all requests."""
    found = []
    for name, rows in _classes(run):
        row: dict[str, Any] = {"qos": name, "requests": int(rows["requests"].sum())}
        row |= {state: int(rows[state].sum()) for state in STATES.values()}
        row["requests_per_s"] = window.rate(float(rows["done_inside"].sum()))
        found.append(row)
    return pd.DataFrame(found)


def request_latency(run: Run) -> pd.DataFrame:
    """As `requests.request_latency`; counts and means are of all requests."""
    found = histograms(run, "request_histograms") if run.mode == "histogram" else {}
    told = (*requests.served_parts(run), *requests.modelled_parts(run))
    parts = {part: quantity for part, quantity in _PARTS.items() if part in told or part not in (*SERVED, *MODELLED)}
    result: list[dict[str, Any]] = []
    for name, rows in _classes(run):
        done = int(rows["done"].sum())
        for part, quantity in parts.items():
            total = int(rows[REQUEST_QUANTITIES[quantity]].sum())
            row = {"qos": name, "part": part, "requests": done, "mean_ns": total / done if done else float("nan")}
            merged = Histogram()
            for qos in rows["qos"]:
                if (quantity, int(qos)) in found:
                    merged.merge(found[quantity, int(qos)])
            row |= dict(zip(PERCENTILE_COLUMNS, merged.percentiles(PERCENTILES), strict=True))
            result.append(row | {"percentiles_of": done, "backed_percentile": backed_percentile(done)})
    exact = pd.DataFrame(result)
    if run.mode == "histogram":
        return exact
    sample = requests.request_latency(run)[["qos", "part", *_FROM_SAMPLE]]
    taken = exact.drop(columns=_FROM_SAMPLE).merge(sample, on=["qos", "part"], how="left")
    taken["percentiles_of"] = taken["percentiles_of"].fillna(0).astype(np.int64)
    return taken
