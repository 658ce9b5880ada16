"""What the compute time of a request is modelled from: a GPU of the table, a model's size, and how much is reached.

Modelled, never measured: whatever prints a figure of it says so.
"""

import difflib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kvbench.config.types import Count, Factor, Number
from kvbench.config.workload import Section

_BITS: Final = 16


class Gpu(BaseModel):
    """One GPU of configs/gpus.yaml, where the keys are explained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tflops: float
    memory_gb_per_s: float
    memory_gb: float
    flops_share: float
    bandwidth_share: float
    source: str


@cache
def shipped_gpus() -> dict[str, Gpu]:
    """The GPUs that come with kvbench, by name."""
    text = resources.files("kvbench_configs").joinpath("gpus.yaml").read_text(encoding="utf-8")
    return {name: Gpu.model_validate(facts) for name, facts in yaml.safe_load(text).items()}


def _known_gpu(value: object) -> object:
    gpus = shipped_gpus()
    if isinstance(value, str) and value not in gpus:
        near = difflib.get_close_matches(value, gpus, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown GPU {value!r}: did you mean {near}? (known: {', '.join(gpus)})")
    return value


def _none(value: object) -> object:
    return None if value == "none" else value


class Compute(Section):
    """Modelled prefill and decode. What is null comes from the tables of GPUs and of models."""

    gpu: Annotated[str, BeforeValidator(_known_gpu)]
    """A name of configs/gpus.yaml."""
    gpus: Count = Field(default=1, ge=1)
    """That serve the requests of a rank together (tensor parallel), as if nothing were lost between them."""
    max_batch: Count = Field(default=64, ge=1)
    """Requests that a rank serves at a time; the others wait."""
    flops_share: Number | None = Field(default=None, gt=0, le=1)
    """Of the GPU's peak, that prefill reaches."""
    bandwidth_share: Number | None = Field(default=None, gt=0, le=1)
    """Of the bandwidth of the GPU's memory, that decode reaches."""
    parameters_billion: Factor | None = Field(default=None, gt=0)
    active_parameters_billion: Factor | None = Field(default=None, gt=0)
    """That a token uses, where they are fewer (mixture of experts)."""
    attention_heads: Count | None = Field(default=None, ge=1)
    """Heads of queries."""
    qk_head_dim: Count | None = Field(default=None, ge=1)
    v_head_dim: Count | None = Field(default=None, ge=1)
    weight_bits: Number | None = Field(default=None, gt=0, le=64)
    """Of a stored weight."""

    @property
    def weights_gb(self) -> float:
        """Of all parameters; only of what is filled."""
        return (self.parameters_billion or 0) * (self.weight_bits or _BITS) / 8

    def filled(self, model: dict[str, Any], head_dim: int | None) -> "Compute":
        """The same with nothing null: `model` is what the table of models has. Raises ValueError naming what neither
        says."""
        gpu = shipped_gpus()[self.gpu]
        facts: dict[str, Any] = {"qk_head_dim": head_dim, "v_head_dim": head_dim, "weight_bits": _BITS, **model}
        facts |= {"flops_share": gpu.flops_share, "bandwidth_share": gpu.bandwidth_share}
        facts |= {name: value for name, value in self.model_dump().items() if value is not None}
        facts.setdefault("active_parameters_billion", facts.get("parameters_billion"))
        for name in type(self).model_fields:
            if facts.get(name) is None:
                raise ValueError(f"compute.{name}: the table of models does not say it of this model: give it")
        return Compute.model_validate(facts)


ComputeOrNone = Annotated[Compute | None, BeforeValidator(_none)]
"""`none`, as null, leaves compute out."""
