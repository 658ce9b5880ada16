"""How long a GPU computes for a request: modelled from the model's size and the GPU's peaks, never measured.

Prefill of n tokens behind p that were found: 2 x (active parameters) x n floating-point operations for the weights
(Kaplan et al., Scaling laws for neural language models, 2020, section 2.1), and for attention 2 x layers x (query
heads) x (dimensions of a query + of a value) for each pair of a new token and one that it sees, itself included: n x p
+ n x (n + 1) / 2 pairs. Decode: a step of a batch reads all weights that it uses and the KV cache of its requests, and
gives each of them one token. Either takes the longer of its operations at the share of the GPU's peak that is reached,
and its bytes at the share of the memory's bandwidth (the roofline: Williams et al., CACM 52, 2009).
"""

from kvbench.config.compute import shipped_gpus
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError


class ComputeTime:
    """The times of one configuration."""

    def __init__(self, config: RunConfig) -> None:
        """`config` has a section `compute`. Raises KvbenchError where it has none."""
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
        self._flops_per_s = gpu.tflops * 1e12 * compute.gpus * compute.flops_share
        self._bytes_per_s = gpu.memory_gb_per_s * 1e9 * compute.gpus * compute.bandwidth_share
        self._weight_flops = 2e9 * compute.active_parameters_billion
        width = compute.qk_head_dim + compute.v_head_dim
        self._pair_flops = 2 * geometry.layers * compute.attention_heads * width
        self._weight_bytes = compute.parameters_billion * 1e9 * compute.weight_bits / 8
        self._active_bytes = compute.active_parameters_billion * 1e9 * compute.weight_bits / 8
        self._kv_bytes = geometry.bytes_per_token

    def prefill_ns(self, new_tokens: int, found_tokens: int) -> int:
        """Of a prompt, of which `found_tokens` need not be computed."""
        if new_tokens <= 0:
            return 0
        pairs = new_tokens * found_tokens + new_tokens * (new_tokens + 1) / 2
        flops = self._weight_flops * new_tokens + self._pair_flops * pairs
        nbytes = self._weights_read(new_tokens) + self._kv_bytes * (found_tokens + new_tokens)
        return round(max(flops / self._flops_per_s, nbytes / self._bytes_per_s) * 1e9)

    def decode_ns(self, context_tokens: int, output_tokens: int, batch: int) -> int:
        """Of all tokens of an answer but the first, which prefill gives, in a batch of so many requests like it."""
        steps = max(0, output_tokens - 1)
        seen = context_tokens + output_tokens / 2
        flops = batch * (self._weight_flops + self._pair_flops * seen)
        nbytes = self._weights_read(batch) + batch * self._kv_bytes * seen
        return round(steps * max(flops / self._flops_per_s, nbytes / self._bytes_per_s) * 1e9)

    def _weights_read(self, tokens: int) -> float:
        """Bytes of weights that a step of so many tokens reads; of a mixture of experts those that any of them uses."""
        return min(self._weight_bytes, self._active_bytes * tokens)
