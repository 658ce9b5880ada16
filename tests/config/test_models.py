"""KV bytes per token of every model that comes with kvbench, against the table of the MLPerf Storage rules."""

import pytest
from pydantic import ValidationError

from kvbench.config.models import ModelGeometry, UnknownModelError, shipped_model, shipped_models

BYTES_PER_TOKEN = {
    "tiny-1b": 24_576,
    "mistral-7b": 131_072,
    "llama3.1-8b": 131_072,
    "llama2-7b": 524_288,
    "llama3.1-70b-instruct": 327_680,
    "qwen3-32b": 262_144,
    "gpt-oss-120b": 73_728,
    "gpt-oss-20b": 49_152,
    "deepseek-v3": 70_272,
}


@pytest.mark.parametrize(("name", "nbytes"), BYTES_PER_TOKEN.items())
def test_a_token_takes_the_bytes_that_the_rules_state(name: str, nbytes: int) -> None:
    assert shipped_model(name).bytes_per_token == nbytes


def test_every_shipped_model_is_in_the_table() -> None:
    assert shipped_models().keys() == BYTES_PER_TOKEN.keys()


def test_the_width_of_a_number_scales_the_size() -> None:
    sizes = [
        ModelGeometry(layers=2, kv_heads=3, head_dim=5, dtype=dtype).bytes_per_token for dtype in ("float32", "fp8")
    ]
    assert sizes == [2 * 2 * 3 * 5 * 4, 2 * 2 * 3 * 5]


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"kv_heads": 8},
        {"kv_lora_rank": 512},
        {"kv_heads": 8, "qk_rope_head_dim": 64},
        {"kv_heads": 8, "head_dim": 128, "kv_lora_rank": 512},
        {"kv_heads": 8, "head_dim": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64},
    ],
)
def test_a_geometry_is_of_exactly_one_kind_of_attention(sizes: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="a geometry needs kv_heads and head_dim, or kv_lora_rank and"):
        ModelGeometry.model_validate({"layers": 1, **sizes})


@pytest.mark.parametrize("layers", [0, -1, 1.5, "many", True])
def test_layers_are_counted_in_whole_numbers_from_one(layers: object) -> None:
    with pytest.raises(ValidationError):
        ModelGeometry.model_validate({"layers": layers, "kv_heads": 1, "head_dim": 1})


def test_an_unknown_model_is_answered_with_the_nearest_and_all_others() -> None:
    with pytest.raises(UnknownModelError, match=r"unknown model 'llama3-8b': did you mean llama3.1-8b\? .*qwen3-32b"):
        shipped_model("llama3-8b")
