"""LLM geometry: how many bytes of KV cache a token takes. Knows nothing of storage."""

import difflib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from kvbench.errors import KvbenchError
from kvbench.units import as_whole

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "int8": 1}

_Count = Annotated[int, BeforeValidator(as_whole), Strict(), Field(ge=1)]


class ModelGeometry(BaseModel):
    """The numbers of a model that decide the size of its KV cache.

    Multi-head and grouped-query attention give `kv_heads` and `head_dim`; multi-head latent attention (DeepSeek-V2,
    arXiv:2405.04434, section 2.1) gives `kv_lora_rank` and `qk_rope_head_dim`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    layers: _Count
    kv_heads: _Count | None = None
    head_dim: _Count | None = None
    kv_lora_rank: _Count | None = None
    qk_rope_head_dim: _Count | None = None
    dtype: Literal["float32", "float16", "bfloat16", "fp8", "int8"] = "float16"

    @model_validator(mode="after")
    def _one_kind_of_attention(self) -> Self:
        grouped = self.kv_heads is not None and self.head_dim is not None
        latent = self.kv_lora_rank is not None and self.qk_rope_head_dim is not None
        given = sum(v is not None for v in (self.kv_heads, self.head_dim, self.kv_lora_rank, self.qk_rope_head_dim))
        if grouped == latent or given != 2:
            raise ValueError("a geometry needs kv_heads and head_dim, or kv_lora_rank and qk_rope_head_dim, not both")
        return self

    @property
    def bytes_per_token(self) -> int:
        """KV bytes per token: 2 x layers x kv_heads x head_dim x dtype bytes, or for latent attention
        layers x (kv_lora_rank + qk_rope_head_dim) x dtype bytes."""
        width = DTYPE_BYTES[self.dtype]
        if self.kv_heads is not None and self.head_dim is not None:
            return 2 * self.layers * self.kv_heads * self.head_dim * width
        assert self.kv_lora_rank is not None
        assert self.qk_rope_head_dim is not None
        return self.layers * (self.kv_lora_rank + self.qk_rope_head_dim) * width


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    text = resources.files("kvbench_configs").joinpath("models.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return content


@cache
def shipped_models() -> dict[str, ModelGeometry]:
    """The models that come with kvbench, by name."""
    return {
        name: ModelGeometry.model_validate({key: value for key, value in facts.items() if key != "compute"})
        for name, facts in _shipped().items()
    }


def shipped_compute(name: str) -> dict[str, Any]:
    """What comes with kvbench of the compute of a model that does: keys of the section `compute`."""
    facts: dict[str, Any] = _shipped()[name].get("compute", {})
    return facts


def shipped_model(name: str) -> ModelGeometry:
    """The geometry of a model that comes with kvbench. Raises UnknownModelError naming the nearest."""
    models = shipped_models()
    if name in models:
        return models[name]
    near = difflib.get_close_matches(name, models, n=1, cutoff=0.0)[0]
    raise UnknownModelError(f"unknown model {name!r}: did you mean {near}? (known: {', '.join(sorted(models))})")


class UnknownModelError(KvbenchError, ValueError):
    """No model of that name; also a ValueError so that a configuration that names it is reported key by key."""
