"""Statistics of a trace: how many requests, how long, how many tokens, and how much of it a cache could reuse."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Tokens per request, over all requests (percentiles by linear interpolation)."""

    total: int
    mean: float
    p50: float
    p95: float
    max: int


@dataclass(frozen=True, slots=True)
class ReuseStatistics:
    """What an infinite cache of blocks, shared by all requests and empty at the start, would find."""

    block_tokens: int
    total_blocks: int
    distinct_blocks: int
    reusable_fraction: float
    """Blocks that an earlier request (or an earlier block of the same one) already had, over all blocks."""
    token_hit_rate: float
    """The same, weighted by tokens: the hit rate of an ideal cache that never evicts."""
    most_reused_id: int
    most_reused_uses: int


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """What `kvbench trace info` says."""

    source: str
    format: str
    digest: str
    requests: int
    span_ns: int
    """From the first arrival to the last."""
    context: TokenStatistics
    output: TokenStatistics
    token_counting: str
    reuse: ReuseStatistics | None
    """None where the format has no hash ids."""
    bad_lines: int
    first_bad_line: str

    def as_rows(self) -> list[tuple[str, str]]:
        """(label, value) rows for printing."""
        rate = f", {self.requests / (self.span_ns / 1e9):.4g} requests/s" if self.span_ns else ""
        rows = [
            ("trace", self.source),
            ("format", self.format),
            ("digest", self.digest),
            ("requests", f"{self.requests}"),
            ("span", f"{self.span_ns / 1e9:.3f} s{rate}" if self.span_ns else "no arrival times"),
            ("context tokens per request", _tokens_text(self.context)),
            ("output tokens per request", _tokens_text(self.output)),
            ("tokens counted", self.token_counting),
            *self._reuse_rows(),
            ("bad lines left out", f"{self.bad_lines}"),
        ]
        if self.first_bad_line:
            rows.append(("first bad line", self.first_bad_line))
        return rows

    def _reuse_rows(self) -> list[tuple[str, str]]:
        reuse = self.reuse
        if reuse is None:
            return [("reuse", "unknown: this format has no block hashes")]
        return [
            (
                f"blocks of {reuse.block_tokens} tokens",
                f"{reuse.total_blocks}, {reuse.distinct_blocks} of them distinct",
            ),
            ("blocks seen before", f"{reuse.reusable_fraction:.2%}"),
            ("hit rate of an infinite cache, by tokens", f"{reuse.token_hit_rate:.2%}"),
            ("most used block", f"id {reuse.most_reused_id}, {reuse.most_reused_uses} times"),
        ]


def trace_info(trace: Trace) -> TraceInfo:
    """Statistics of a trace that has at least one request."""
    return TraceInfo(
        source=trace.source,
        format=trace.format,
        digest=trace.digest,
        requests=len(trace),
        span_ns=int(trace.arrival_ns[-1] - trace.arrival_ns[0]),
        context=_token_statistics(trace.context_tokens),
        output=_token_statistics(trace.output_tokens),
        token_counting=trace.token_counting,
        reuse=_reuse(trace) if len(trace.hash_ids) else None,
        bad_lines=trace.bad_lines,
        first_bad_line=trace.first_bad_line,
    )


def _token_statistics(tokens: NDArray[np.int32]) -> TokenStatistics:
    p50, p95 = np.percentile(tokens, [50, 95])
    return TokenStatistics(
        int(tokens.sum(dtype=np.int64)), float(tokens.mean()), float(p50), float(p95), int(tokens.max())
    )


def _reuse(trace: Trace) -> ReuseStatistics:
    distinct, first_use, uses = np.unique(trace.hash_ids, return_index=True, return_counts=True)
    block_tokens = np.full(len(trace.hash_ids), trace.hash_block_tokens, np.int64)
    hashed = trace.hash_counts > 0
    # A request's last block holds what is left of its context.
    whole_tokens = (trace.hash_counts[hashed] - 1) * trace.hash_block_tokens
    block_tokens[trace.hash_offsets[1:][hashed] - 1] = trace.context_tokens[hashed] - whole_tokens
    total_tokens = int(block_tokens.sum())
    most = int(uses.argmax())
    return ReuseStatistics(
        block_tokens=trace.hash_block_tokens,
        total_blocks=len(trace.hash_ids),
        distinct_blocks=len(distinct),
        reusable_fraction=1 - len(distinct) / len(trace.hash_ids),
        token_hit_rate=1 - int(block_tokens[first_use].sum()) / total_tokens,
        most_reused_id=int(distinct[most]),
        most_reused_uses=int(uses[most]),
    )


def _tokens_text(tokens: TokenStatistics) -> str:
    return f"mean {tokens.mean:.1f}, P50 {tokens.p50:.0f}, P95 {tokens.p95:.0f}, max {tokens.max}, total {tokens.total}"
