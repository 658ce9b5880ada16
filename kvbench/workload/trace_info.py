"""Statistics of a trace: how many requests, how long, how many tokens, and how much of it a cache could reuse."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.traces.reuse import reuse_of
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
    """Of contexts, as all here."""
    distinct_blocks: int
    reusable_fraction: float
    """Blocks that an earlier request or its answer (or an earlier block of the same one) already had, over all
    blocks."""
    token_hit_rate: float
    """The same, weighted by tokens: the hit rate of an ideal cache that never evicts."""
    prefix_blocks: int
    """Blocks that lie in the longest beginning of their request whose blocks earlier requests all had: what a prefix
    cache finds, which stops at the first block that it has not."""
    prefix_tokens: int
    """The same, in tokens."""
    prefix_token_rate: float
    """The same, over all context tokens."""
    most_reused_id: int
    most_reused_uses: int


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """Conversations, and the time between their requests."""

    sessions: int
    requests: int
    """Of sessions."""
    longest_requests: int
    gaps: int
    """Requests of which it is known how long after the answer before they came."""
    gap_p50_s: float
    """NaN without gaps, as the others."""
    gap_p95_s: float
    gap_max_s: float


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
    sessions: SessionStatistics | None
    """None where no request is of a session."""
    out_of_order: int
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
            *self._session_rows(),
            *self._reuse_rows(),
            *(
                [("sorted by time", f"{self.out_of_order} requests stood behind later ones")]
                if self.out_of_order
                else []
            ),
            ("bad lines left out", f"{self.bad_lines}"),
        ]
        if self.first_bad_line:
            rows.append(("first bad line", self.first_bad_line))
        return rows

    def _session_rows(self) -> list[tuple[str, str]]:
        found = self.sessions
        if found is None:
            return [("sessions", "none")]
        rest = self.requests - found.requests
        alone = f", {rest} requests in none" if rest else ""
        mean = found.requests / found.sessions
        gaps = (
            f"P50 {found.gap_p50_s:.3g} s, P95 {found.gap_p95_s:.3g} s, max {found.gap_max_s:.3g} s, "
            f"known of {found.gaps} requests"
            if found.gaps
            else "unknown"
        )
        return [
            ("sessions", f"{found.sessions} of {mean:.1f} requests, at most {found.longest_requests}{alone}"),
            ("from an answer to the next request", gaps),
        ]

    def _reuse_rows(self) -> list[tuple[str, str]]:
        reuse = self.reuse
        if reuse is None:
            return [("reuse", "unknown: this format has no block hashes")]
        rate = f"{reuse.prefix_token_rate:.2%} of the context"
        return [
            (
                f"blocks of {reuse.block_tokens} tokens",
                f"{reuse.total_blocks}, {reuse.distinct_blocks} of them distinct",
            ),
            ("blocks seen before", f"{reuse.reusable_fraction:.2%}"),
            ("hit rate of an infinite cache, by tokens", f"{reuse.token_hit_rate:.2%}"),
            (
                "found by prefix, nothing evicted",
                f"{reuse.prefix_blocks} blocks, {reuse.prefix_tokens} tokens: {rate}",
            ),
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
        reuse=_reuse(trace) if trace.hash_counts.any() else None,
        sessions=_sessions(trace),
        out_of_order=trace.out_of_order,
        bad_lines=trace.bad_lines,
        first_bad_line=trace.first_bad_line,
    )


def _token_statistics(tokens: NDArray[np.int32]) -> TokenStatistics:
    p50, p95 = np.percentile(tokens, [50, 95])
    return TokenStatistics(
        int(tokens.sum(dtype=np.int64)), float(tokens.mean()), float(p50), float(p95), int(tokens.max())
    )


def _sessions(trace: Trace) -> SessionStatistics | None:
    members = trace.session[trace.session >= 0]
    if not len(members):
        return None
    _, requests = np.unique(members, return_counts=True)
    gaps_s = trace.gap_ns[trace.gap_ns >= 0] / 1e9
    p50, p95, most = np.percentile(gaps_s, [50, 95, 100]) if len(gaps_s) else (np.nan, np.nan, np.nan)
    return SessionStatistics(
        len(requests), len(members), int(requests.max()), len(gaps_s), float(p50), float(p95), float(most)
    )


def _reuse(trace: Trace) -> ReuseStatistics:
    seen = reuse_of(trace)
    total_tokens = int(trace.context_tokens.sum(dtype=np.int64))
    prefix_tokens = int(np.minimum(seen.prefix_blocks * trace.hash_block_tokens, trace.hashed_tokens).sum())
    return ReuseStatistics(
        block_tokens=trace.hash_block_tokens,
        total_blocks=seen.blocks,
        distinct_blocks=seen.distinct,
        reusable_fraction=1 - seen.new / seen.blocks,
        token_hit_rate=(int(trace.hashed_tokens.sum()) - seen.new_tokens) / total_tokens,
        prefix_blocks=int(seen.prefix_blocks.sum()),
        prefix_tokens=prefix_tokens,
        prefix_token_rate=prefix_tokens / total_tokens,
        most_reused_id=seen.most_used,
        most_reused_uses=seen.most_uses,
    )


def _tokens_text(tokens: TokenStatistics) -> str:
    return f"mean {tokens.mean:.1f}, P50 {tokens.p50:.0f}, P95 {tokens.p95:.0f}, max {tokens.max}, total {tokens.total}"
