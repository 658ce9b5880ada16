"""When each group of layers of what a request found had been loaded: measured, from the rows of its loads.

Only where objects are of some layers (`cache.split.layers`): of one that holds all of them, nothing tells when a part
of it was there, and no even pace is assumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from kvbench_analysis.figures.loads import Loads, loads_of
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray


@dataclass(frozen=True)
class LayerEnds:
    """Of requests."""

    groups: int
    ends_ns: NDArray[np.int64]
    """(requests, groups) The end of the last load of a group of layers, of all ranks that serve the request; from when
    it was known what there is on where nothing of it was to be loaded."""


def layer_ends(run: Run, requests: Mapping[str, NDArray[Any]]) -> LayerEnds | str:
    """Of `requests`, columns of /requests; or why it is not known."""
    if run.mode != "full":
        return "the file has a sample of the operations"
    if "layer" not in run.file.tables["records"].columns:
        return "the file does not say which layers an object is of"
    loads = loads_of(run, requests)
    groups = int(loads.layer.max()) if len(loads.layer) else 0
    if groups < 2 or not loads.layer.all():
        return "objects hold all layers: cache.split.layers stores them apart"
    return LayerEnds(groups, _ends(loads, requests, groups))


def _ends(loads: Loads, requests: Mapping[str, NDArray[Any]], groups: int) -> NDArray[np.int64]:
    known = requests["start_ns"] + np.maximum(requests["look_up_ns"], 0)
    ends = np.repeat(known[:, None], groups, axis=1)
    np.maximum.at(ends, (loads.of, loads.layer - 1), loads.end_ns)
    return ends
