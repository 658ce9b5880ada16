"""The GPU that a rank's requests are computed on, as far as they wait for it: modelled, with a clock but no work.

Prefill is serial; what decodes shares every step. Plain state without a lock of its own.
"""

from kvbench.workload.compute_time import ComputeTime


class ModelledGpu:
    """When computing ends."""

    def __init__(self, times: ComputeTime) -> None:
        self._times = times
        self._free_ns = 0
        self._decoding = 0

    def prefill(self, new_tokens: int, found_tokens: int, now_ns: int) -> int:
        """When the prefill of a request that is ready `now_ns` ends, behind those that came before it."""
        if new_tokens <= 0:
            return now_ns
        self._free_ns = max(self._free_ns, now_ns) + self._times.prefill_ns(new_tokens, found_tokens)
        return self._free_ns

    def decode(self, context_tokens: int, output_tokens: int, now_ns: int) -> int:
        """When a request that begins to decode `now_ns` has its answer, with as many beside it as there are now."""
        self._decoding += 1
        return now_ns + self._times.decode_ns(context_tokens, output_tokens, self._decoding)

    def decoded(self) -> None:
        """A request has its answer."""
        self._decoding -= 1
