"""How long a GPU computes for a request of a configuration: modelled, never measured (`records.compute_model`)."""

from kvbench.config.compute import shipped_gpus
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.records.compute_model import ComputeModel


def compute_model(config: RunConfig) -> ComputeModel:
    """The model of a configuration with a section `compute`. Raises KvbenchError where it has none."""
    compute, geometry = config.filled_compute, config.geometry
    if compute is None:
        raise KvbenchError("compute: it is none, so that nothing can be said of its time")
    gpu = shipped_gpus()[compute.gpu]
    assert compute.flops_share is not None
    assert compute.bandwidth_share is not None
    assert compute.parameters_billion is not None
    assert compute.active_parameters_billion is not None
    assert compute.attention_heads is not None
    assert compute.qk_head_dim is not None
    assert compute.v_head_dim is not None
    assert compute.weight_bits is not None
    return ComputeModel(
        gpu=compute.gpu,
        gpus=compute.gpus,
        flops_per_s=gpu.tflops * 1e12 * compute.gpus * compute.flops_share,
        bytes_per_s=gpu.memory_gb_per_s * 1e9 * compute.gpus * compute.bandwidth_share,
        weight_flops=2e9 * compute.active_parameters_billion,
        pair_flops=2.0 * geometry.layers * compute.attention_heads * (compute.qk_head_dim + compute.v_head_dim),
        weight_bytes=compute.parameters_billion * 1e9 * compute.weight_bits / 8,
        active_bytes=compute.active_parameters_billion * 1e9 * compute.weight_bits / 8,
        kv_bytes=float(geometry.bytes_per_token),
    )


class ComputeTime:
    """The times of one configuration, of single requests in ns."""

    def __init__(self, config: RunConfig, stretch: float = 1.0) -> None:
        """`config` has a section `compute`. Raises KvbenchError where it has none. All times are `stretch` times as
        long."""
        self._model = compute_model(config)
        self._ns = 1e9 * stretch

    def prefill_ns(self, new_tokens: int, found_tokens: int) -> int:
        """Of a prompt, of which `found_tokens` need not be computed."""
        return round(float(self._model.prefill_s(new_tokens, found_tokens)) * self._ns)

    def decode_ns(self, context_tokens: int, output_tokens: int, batch: int) -> int:
        """Of all tokens of an answer but the first, which prefill gives, in a batch of so many requests like it."""
        return round(float(self._model.decode_s(context_tokens, output_tokens, batch)) * self._ns)
