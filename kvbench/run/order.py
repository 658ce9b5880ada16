"""Which run it is, and the attributes of its run file that are known before it starts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from kvbench import timed_io
from kvbench.cluster.topology import Topology
from kvbench.config.run_config import RunConfig
from kvbench.run.checks.expectation import Expect
from kvbench.run.output.run_file import description
from kvbench.tiers.contract import Tier


@dataclass(frozen=True, slots=True)
class Identity:
    """Which run it is; the same on all ranks."""

    config: RunConfig
    run_id: str
    fingerprint: str
    started_at: str
    trace: dict[str, str | int]
    expect: Expect = ""


def tier_names(kinds: Sequence[str]) -> list[str]:
    """Names of tiers of `kinds`, fastest first: their kind, numbered where there are several of one kind."""
    return [f"{k}-{kinds[:i].count(k)}" if kinds.count(k) > 1 else k for i, k in enumerate(kinds)]


def known_attributes(
    identity: Identity,
    topology: Topology,
    cache_directory: str,
    tiers: Sequence[Tier],
    capacities: Sequence[int],
    arena_bytes: int,
) -> dict[str, str | int | float]:
    """The attributes of the run file but for those of how the run went; `cache_directory` as in `topology.Sharing`."""
    names = tier_names([tier.kind for tier in tiers])
    return (
        description(identity.config, topology.size, topology.nodes, timed_io.TIMER)
        | identity.trace
        | {
            "run_id": identity.run_id,
            "fingerprint": identity.fingerprint,
            "started_at": identity.started_at,
            "tiers_json": json.dumps(
                [
                    {"name": name, "kind": tier.kind, "capacity_bytes": capacity, "storage": tier.storage}
                    for name, tier, capacity in zip(names, tiers, capacities, strict=True)
                ]
            ),
            "arena_bytes": arena_bytes,
            "cache_directory": cache_directory,
            "expected_directory": identity.expect,
            "records": identity.config.records,
        }
    )
