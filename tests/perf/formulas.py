"""What each collective step of a run must cost, as formulas, and whether a run's counted costs agree with them.

R ranks on N nodes of L ranks each; `c` rows fit in a message; 4 tables are gathered. docs/scale.md explains the steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One figure of rank 0's ledger (or of all ranks') beside what the formula gives."""

    step: str
    figure: str
    formula: str
    measured: int
    expected: int

    @property
    def agrees(self) -> bool:
        return self.measured == self.expected


def messages(rows: int, chunk_rows: int) -> int:
    """Messages that `rows` rows of one sender take."""
    return max(1, -(-rows // chunk_rows))


def origins(ranks: int, rows: int, chunk_rows: int) -> int:
    """Entries that say whose rows a message holds, over all messages of a node of `ranks` ranks with `rows` each."""
    if rows == 0:
        return 0
    return sum(((r + 1) * rows - 1) // chunk_rows - r * rows // chunk_rows + 1 for r in range(ranks))


def checks(facts: Mapping[str, Any]) -> Iterator[Check]:
    """All that can be known beforehand of the run that `rank_costs.py` wrote `facts` of."""
    costs, ranks, nodes = facts["costs"], facts["ranks"], facts["nodes"]
    local = ranks // nodes
    size = facts["row_bytes"]

    def calls(step: str, formula: str, expected: int) -> Check:
        return Check(step, "calls", formula, costs[step]["calls"], expected)

    def bytes_in(step: str, formula: str, expected: int) -> Check:
        return Check(step, "bytes in", formula, costs[step]["bytes_in"], expected)

    # The made-up rows have their nodes found and their way chosen once more each.
    yield calls("discover", "4", 4)
    yield bytes_in("discover", "64 N", 64 * nodes)
    yield calls("watch", "4", 4)
    yield calls("agreement", "1 each", costs["agreement"]["entered"])
    yield bytes_in("agreement", "8 each", 8 * costs["agreement"]["entered"])
    yield calls("share", "2", 2)
    yield calls("choose_gathering", "2", 2 * costs["choose_gathering"]["entered"])
    yield calls("total", "1 each", costs["total"]["entered"])
    yield calls("read_clock", "2 x 4", 8)
    yield bytes_in("read_clock", "2 x 8 N", 2 * 8 * nodes)
    clock = costs["read_clock"]
    pairs = nodes - 1  # to 64 nodes rank 0 asks each of them
    yield Check("read_clock", "answers to results", "2 (N - 1)", clock["sent"] - clock["received"], 2 * pairs)
    yield calls("common_start", "3", 3)
    exchanges = costs["progress"]["calls"] - 1
    width = 163 + 3
    yield bytes_in("progress", "1328 each", exchanges * 8 * width)
    yield calls("gather_table", "3 each", 3 * costs["gather_table"]["entered"])
    per_rank = 8 * 8 + size["rank"] + size["look_ups"]
    tables = ranks * per_rank + nodes * size["node"] + facts["batches"] * size["batch"]
    # How many samples were taken is known afterwards alone; the rest of the bytes must be whole ones.
    samples = (costs["gather_table"]["bytes_in"] - tables) // size["sample"]
    formula = f"{per_rank} R + {size['node']} N + {size['sample']} S + {size['batch']} B"
    yield bytes_in("gather_table", formula, tables + samples * size["sample"])
    yield from _rows(facts, local)


def _rows(facts: Mapping[str, Any], local: int) -> Iterator[Check]:
    costs, ranks, nodes, rows, chunk = (facts[name] for name in ("costs", "ranks", "nodes", "rows", "chunk_rows"))
    record = facts["row_bytes"]["record"]
    one = messages(rows, chunk)
    straight, by_nodes = "made-up rows by ranks", "made-up rows by nodes"
    yield Check(straight, "messages at rank 0", "(R - 1) k", costs[straight]["received"], (ranks - 1) * one)
    per_rank = rows * record + one * 64 + 16 * (one if rows else 0)
    sent, nbytes = facts["everyone"][straight]
    yield Check(straight, "messages of all", "2 (R - 1) k", sent, 2 * (ranks - 1) * one)
    total = (ranks - 1) * (per_rank + 8 * one)
    yield Check(straight, "bytes of all", "(R - 1) (120 m + 88 k)", nbytes, total)
    node = messages(local * rows, chunk)
    formula = "(L - 1) k + (N - 1) K"
    at_root = (local - 1) * one + (nodes - 1) * node
    yield Check(by_nodes, "messages at rank 0", formula, costs[by_nodes]["received"], at_root)
    sent, nbytes = facts["everyone"][by_nodes]
    every = nodes * (local - 1) * one + (nodes - 1) * node
    yield Check(by_nodes, "messages of all", "2 (N (L - 1) k + (N - 1) K)", sent, 2 * every)
    between = (nodes - 1) * (local * rows * record + 72 * node + 16 * origins(local, rows, chunk))
    total = nodes * (local - 1) * (per_rank + 8 * one) + between
    yield Check(by_nodes, "bytes of all", "N (L - 1) (120 m + 88 k) + (N - 1) (120 L m + 72 K + 16 o)", nbytes, total)
