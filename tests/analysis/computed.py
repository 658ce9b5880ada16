"""Runs whose compute is modelled, from rows with known parts."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from condensing import within_window
from numpy.typing import NDArray
from synthetic import SyntheticRun, synthetic_run

from kvbench.records.compute_model import ComputeModel
from kvbench.records.schema import Phase, RequestState

MODEL = ComputeModel(
    gpu="h100-sxm", gpus=2, flops_per_s=4e14, bytes_per_s=2e12, weight_flops=16e9, pair_flops=2.0 * 32 * 32 * 256,
    weight_bytes=16e9, active_bytes=16e9, kv_bytes=131072.0,
)  # fmt: skip
LOAD_S, LOAD_S_PER_TOKEN = 0.060, 1e-5


def computing(mode: str = "open", load: Callable[[NDArray[Any]], NDArray[Any]] | None = None) -> SyntheticRun:
    """Requests that find up to 12 000 of 200 to 16 000 tokens, loaded on a straight line where `load` is not given."""
    run = within_window(synthetic_run(np.random.default_rng(5), ranks=2, nodes=1, operations=4000))
    rows, rng = run.requests, np.random.default_rng(6)
    rows["hit_tokens"] = rng.integers(0, 3, len(rows)) * rng.integers(1, 6001, len(rows))
    rows["context_tokens"] = rows["hit_tokens"] + rng.integers(200, 4000, len(rows))
    rows["look_up_ns"] = rng.integers(0, 10**6, len(rows)) * (rows["hit_tokens"] > 0)
    waited_s = (load or (lambda tokens: LOAD_S + LOAD_S_PER_TOKEN * tokens))(rows["hit_tokens"])
    rows["load_ns"] = np.where(rows["hit_tokens"] > 0, np.rint(waited_s * 1e9) - rows["look_up_ns"], 0)
    rows["modelled_prefill_ns"] = rng.integers(10**6, 10**8, len(rows))
    waited = rows["start_ns"] - rows["intended_ns"] + rows["look_up_ns"] + rows["load_ns"]
    rows["first_token_ns"] = waited + rows["modelled_prefill_ns"]
    config = json.loads(str(run.attributes["config_json"]))
    config |= {"compute": {"gpu": MODEL.gpu}, "pacing": {"mode": mode}}
    return run.changed(attributes={"config_json": json.dumps(config), "compute_model_json": MODEL.to_json()})


def counted(run: SyntheticRun) -> NDArray[Any]:
    rows = run.requests
    return np.asarray(rows[(rows["phase"] == Phase.MEASURE) & (rows["state"] == RequestState.DONE)])
