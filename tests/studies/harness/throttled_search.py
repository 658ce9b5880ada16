"""A whole search in this process, on the storage of `throttled`: its true limit is READS_PER_S."""

import io
import json
from pathlib import Path

from kvbench_analysis.search.print import search_to_json
from rich.console import Console

from kvbench.cluster.comm import SerialComm
from kvbench.run.output.spill_files import SpillOrder
from kvbench.studies.search import SearchOrder, run_search
from kvbench.studies.search_asked import Wanted

GEOMETRY = "{layers: 1, kv_heads: 1, head_dim: 64}"


def configuration(folder: Path) -> Path:
    """A trace of requests that each ask for one of 16 blocks, which are soon there: each then reads one block."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"timestamp": 10 * number, "input_length": 512, "output_length": 1, "hash_ids": [number % 16]})
        for number in range(6000)
    ]
    (folder / "trace.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = folder / "pipe.yaml"
    config.write_text(
        f"""
workload: {{kind: trace, path: trace.jsonl, deal: session}}
arrivals: {{process: poisson, rate: 40}}
pacing: {{mode: open}}
model: {GEOMETRY}
cache: {{block_tokens: 512}}
tiers: [{{kind: throttled, capacity_bytes: 1GiB}}]
io: {{threads: 8, arena_bytes: 32MiB, request_threads: one}}
duration_s: 6
""",
        encoding="utf-8",
    )
    return config


def wanted(config: Path, **changes: object) -> Wanted:
    """What a search is asked: by default the load within which 95 % of requests take less than 1 s."""
    values: dict[str, object] = {
        "source": str(config),
        "key": "arrivals.rate",
        "objectives": ("latency_p95<1s",),
        "aim": "objectives",
        "place": None,
        "engine": "",
        "overrides": (),
        "low": 10.0,
        "high": 200.0,
        "seconds": 6.0,
        "warmup_s": 0.5,
        "precision": 0.05,
        "most": 40,
    }
    return Wanted(**(values | changes))  # type: ignore[arg-type]


def searched(folder: Path, trial: int, seconds: float) -> str:
    """The figures, as JSON, of one search: `trial` says where it begins, and the seed."""
    config = configuration(folder)
    start = 10 * 10 ** (trial * 0.618 % 1)
    changes = (f"arrivals.rate={start:.4g}", f"seed={trial}")
    order = SearchOrder(
        wanted(config, overrides=changes, seconds=seconds, warmup_s=seconds / 6),
        folder / "search.h5",
        overwrite=False,
        resume=False,
        keep=False,
        spill=SpillOrder(False, None),
        patience_s=60.0,
    )
    figures = run_search(SerialComm(), order, Console(file=io.StringIO()))
    assert figures is not None
    return search_to_json(figures)
