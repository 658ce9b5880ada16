"""The numbers that compute is modelled from, as a run file has them."""

import json

import numpy as np
import pytest

from kvbench.records.compute_model import ComputeModel, compute_model_of

MODEL = ComputeModel(
    gpu="a", gpus=2, flops_per_s=4e14, bytes_per_s=2e12, weight_flops=16e9, pair_flops=2.0 * 32 * 32 * 256,
    weight_bytes=16e9, active_bytes=16e9, kv_bytes=131072.0,
)  # fmt: skip


def test_it_is_written_and_read() -> None:
    assert compute_model_of(MODEL.to_json()) == MODEL


@pytest.mark.parametrize(
    "change", [{"gpus": 0}, {"flops_per_s": "1"}, {"kv_bytes": None}, {"bytes_per_s": float("nan")}]
)
def test_numbers_that_are_none_are_no_model(change: dict[str, object]) -> None:
    assert compute_model_of(json.dumps(json.loads(MODEL.to_json()) | change)) is None


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "nonsense", None])
def test_what_is_no_model_is_none(text: object) -> None:
    assert compute_model_of(text) is None


def test_many_prompts_take_what_each_takes_by_the_documented_formula() -> None:
    new, found = np.array([1, 512, 8192, 0]), np.array([8191, 7680, 0, 100])
    together = MODEL.prefill_s(new, found)
    for each, n, p in zip(together, new.tolist(), found.tolist(), strict=True):
        assert each == MODEL.prefill_s(n, p)
        flops = 16e9 * n + 2 * 32 * 32 * 256 * (n * p + n * (n + 1) / 2)
        nbytes = min(16e9, 16e9 * n) + 131072 * (n + p)
        assert each == pytest.approx(max(flops / 4e14, nbytes / 2e12) if n else 0)


def test_many_answers_take_what_each_takes() -> None:
    together = MODEL.decode_s(np.array([100, 2000]), np.array([1, 300]), 4)
    assert together.tolist() == [0.0, MODEL.decode_s(2000, 300, 4)]
    seen = 2000 + 150
    flops, nbytes = 4 * (16e9 + 2 * 32 * 32 * 256 * seen), 16e9 + 4 * 131072 * seen
    assert together[1] == pytest.approx(299 * max(flops / 4e14, nbytes / 2e12))
