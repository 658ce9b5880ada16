"""What one request asks of the cache, given its lengths: its phases, its QoS class and the pieces of its context.

Shared by personas and traces. Figures are those of the reference workload (mlcommons/storage kv_cache_benchmark).
"""

from typing import Final, NamedTuple

from kvbench.config.run_config import PersonaWorkload, TraceWorkload

QOS_PERCENT: Final = (15, 35, 50)
"""Share of each class of `request.QOS_CLASSES`."""


class Phases(NamedTuple):
    """The fields of a Request that follow from the mode and the lengths."""

    prefill: bool
    decode_passes: int
    generation_ns: int


def phases(workload: PersonaWorkload | TraceWorkload, context_tokens: int, output_tokens: int) -> Phases:
    """Which phases a request goes through.

    Decode reads the context once, then once per `decode_interval_tokens` generated tokens. In mode `prefill-decode`,
    contexts of `prefill_only_tokens` and more are prefill only. A request that does not decode generates nothing here.
    """
    long_context = workload.mode == "prefill-decode" and context_tokens >= workload.prefill_only_tokens
    if workload.mode == "prefill" or long_context:
        return Phases(prefill=True, decode_passes=0, generation_ns=0)
    return Phases(
        prefill=workload.mode != "decode",
        decode_passes=1 + output_tokens // workload.decode_interval_tokens,
        generation_ns=round(output_tokens * workload.generation_ms_per_token * 1e6),
    )


def qos_class(percentile: int) -> int:
    """The QoS class (index into `request.QOS_CLASSES`) of a uniform draw of 0 to 99."""
    interactive, responsive, _ = QOS_PERCENT
    if percentile < interactive:
        return 0
    return 1 if percentile < interactive + responsive else 2


def piece_tokens(tokens: int, block_tokens: int) -> list[int]:
    """Tokens of each block of a context of `tokens`: whole blocks, and a last one that may be partial."""
    whole, rest = divmod(tokens, block_tokens)
    return [block_tokens] * whole + ([rest] if rest else [])
