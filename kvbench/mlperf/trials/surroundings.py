"""Where a sequence runs: nodes, the filesystems of the cache and of the results, and the page cache of the nodes.

What travels: one row of 16 KiB a node to rank 0, once; one sum of an integer before every trial.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

import kvbench
from kvbench.cluster.agree import Agreement
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.gather import gather_table
from kvbench.cluster.node import describe_node, network_links
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.outputs import check_folder, make_folder
from kvbench.records.tables import as_rows
from kvbench.tiers.file.filesystem import filesystem_of
from kvbench.tiers.kinds import target_at
from kvbench.tiers.target import Target, Volume

_ROW: Final = np.dtype([("node", "<i8"), ("text", "S16384")])
_MOST_LINKS: Final = 16
_LONGEST_PRELOAD: Final = 1024
DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")
"""The kernel's switch; only root may use it."""
_PAGE_CACHE: Final = "1"
_LOCKS_S: Final = 60.0
"""GlusterFS gives up a client that does not answer after 42 s, other filesystems earlier."""
_POLL_S: Final = 0.5


def look_around(topology: Topology, agreement: Agreement, cache: Path, results: Path) -> list[dict[str, Any]]:
    """One entry a node (rank 0; empty elsewhere): its facts, and the filesystems of cache and results. Collective.

    Raises KvbenchError where the cache cannot be used, or lies on the filesystem of the results (rule 6.4.1), or where
    nodes have different numbers of ranks (rule 6.3.3.1).
    """

    def look() -> list[dict[str, str | int]]:
        target = target_at(str(cache))
        target.check()
        if topology.rank == 0:
            check_folder(results)
            make_folder(results, "the results", "give another --results")
        found = target.describe()
        beside = filesystem_of(results) if results.exists() else None
        if beside is not None and target.is_beside(results):
            raise KvbenchError(
                f"--dir {cache} and --results {results} are both on the {found.kind} at {found.mount_point}: rule "
                "6.4.1 kvcachePosixCacheDir wants them on different filesystems; give another --results"
            )
        if topology.local_rank != 0:
            return []
        text = json.dumps({"node": _node_facts(), "cache": _facts(found), "results": _facts(beside)})
        return [{"node": topology.node, "text": text}]

    rows = agreement.run("check", look)
    agreement.run("check", lambda: _check_clients(topology))
    table = gather_table(topology.comm, as_rows(rows, _ROW))
    if table is None:
        return []
    return [json.loads(row["text"]) for row in np.sort(table, order="node")]


def clients_per_node(topology: Topology) -> int:
    """Ranks of this node, which every node has (`look_around` checks it)."""
    return topology.local_size


def drop_page_cache(topology: Topology) -> bool:
    """Drop the page cache of every node; False where a node does not let us (it takes root). Collective."""
    dropped = topology.local_rank != 0 or _drop()
    return total(topology.comm, not dropped)[0] == 0


def cache_is_empty(topology: Topology, directory: Path, run_id: str) -> bool:
    """Whether no node has anything left of run `run_id` below `directory`. Collective."""
    left = topology.local_rank == 0 and target_at(str(directory)).holds(run_id)
    return total(topology.comm, left)[0] == 0


def clear_lost(topology: Topology, agreement: Agreement, directory: Path, run_ids: Sequence[str]) -> None:
    """Remove what lost trials of the sequence left below `directory`, whose ranks had no time to. Collective.

    Storage that several nodes share may take a lost node for alive for a while: that is waited for. Raises KvbenchError
    where ranks of a lost trial are still at work.
    """

    def clear() -> None:
        if topology.local_rank != 0 or not run_ids:
            return
        patient_until_s = time.monotonic() + _LOCKS_S
        while left := _left_of(target_at(str(directory)), run_ids):
            if time.monotonic() > patient_until_s:
                raise KvbenchError(
                    f"{left} is of a trial that was lost, and ranks of it are still at work: end them, and start the "
                    "same command again"
                )
            time.sleep(_POLL_S)

    agreement.run("check", clear)


def git_sha() -> str | None:
    """The commit of the source that runs; None where it is no checkout, or one with changes that no commit has."""
    root = Path(kvbench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    sha = _git(root, "rev-parse", "HEAD")
    return sha or None if _git(root, "status", "--porcelain", "--untracked-files=no") == "" else None


def _left_of(target: Target, run_ids: Sequence[str]) -> str:
    """Remove what runs left in `target`; the first that stays, "" where none does. Nodes that share it meet here, and
    may not find what they want to remove: that is for another look."""
    with suppress(KvbenchError):
        for leftover in target.leftovers():
            ours = leftover.run_id in run_ids and leftover.state != "not ours"
            if ours and target.remove_leftover(leftover, even_unknown=True).state == "in use":
                return leftover.text
        return ""
    return str(target.address)


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it does not work."""
    try:
        command = ["git", "-C", str(root), *words]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _check_clients(topology: Topology) -> None:
    wanted: int = share(topology.comm, topology.local_size)
    if topology.local_size != wanted:
        raise KvbenchError(
            f"this node has {topology.local_size} clients and the first {wanted}: rule 6.3.3.1 kvcacheClientDefinition "
            "counts clients as --npernode x hosts; start the same number on every node"
        )


def _node_facts() -> dict[str, Any]:
    node = asdict(describe_node())
    del node["memory_available_bytes"]
    preloaded = os.environ.get("LD_PRELOAD", "")[:_LONGEST_PRELOAD]
    return node | {"network": network_links()[:_MOST_LINKS], "ld_preload": preloaded or None}


def _facts(filesystem: Volume | None) -> dict[str, Any] | None:
    if filesystem is None:
        return None
    return {
        "type": filesystem.kind,
        "device": filesystem.device,
        "mount_point": filesystem.mount_point,
        "options": filesystem.options,
        "total_bytes": filesystem.total_bytes,
    }


def _drop() -> bool:
    try:
        DROP_CACHES.write_text(_PAGE_CACHE, encoding="ascii")
    except OSError:
        return False
    return True
