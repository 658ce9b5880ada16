"""The table of a scaling study: its series, their fits, and what is printed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.scaling.study import load_table, print_scaling, scaling_figures, to_json
from kvbench_analysis.scaling.usl import usl
from rich.console import Console

from kvbench.errors import KvbenchError

SIGMA, KAPPA = 0.1, 0.02


def table(rng: np.random.Generator, *, ranks: tuple[int, ...] = (1, 2, 4, 8), nodes: tuple[int, ...] = (1,)) -> Any:
    """Five repeats of a throughput of 2 a rank, which follows the law over the ranks of a node and grows with nodes."""
    rows = []
    for repeat in range(5):
        for count in nodes:
            for n in ranks:
                storage = float(usl(n, 2.0, SIGMA, KAPPA)) * count * rng.normal(1, 0.01)
                rows.append(("weak", count, n, 3, repeat, storage, 100.0 * n * count))
    columns = ["scaling", "nodes", "ranks_per_node", "users_per_rank", "repeat", "storage_gib_per_s", "requests_per_s"]
    return pd.DataFrame(rows, columns=columns)


def term(figures: Any, name: str, metric: str = "storage_gib_per_s") -> float:
    rows = figures.terms[(figures.terms["term"] == name) & (figures.terms["metric"] == metric)]
    assert len(rows) == 1
    return float(rows["estimate"].iloc[0])


def test_the_terms_of_the_law_come_back() -> None:
    figures = scaling_figures(table(np.random.default_rng(1)), np.random.default_rng(2))
    assert term(figures, "sigma") == pytest.approx(SIGMA, abs=0.02)
    assert term(figures, "kappa") == pytest.approx(KAPPA, abs=0.004)
    assert term(figures, "lambda") == pytest.approx(2, rel=0.03)
    assert term(figures, "peak_n") == pytest.approx(np.sqrt((1 - SIGMA) / KAPPA), rel=0.1)
    assert figures.notes == ()


def test_efficiency_is_against_the_smallest_size() -> None:
    points = scaling_figures(table(np.random.default_rng(1)), np.random.default_rng(2)).points
    requests = points[points["metric"] == "requests_per_s"]
    assert list(requests["efficiency"]) == pytest.approx([1, 1, 1, 1])
    storage = points[points["metric"] == "storage_gib_per_s"].sort_values("n").to_dict("list")
    assert storage["efficiency"][3] == storage["throughput"][3] / (8 * storage["throughput"][0])


@pytest.mark.slow
def test_nodes_are_a_series_of_their_own_at_the_most_ranks() -> None:
    figures = scaling_figures(table(np.random.default_rng(1), nodes=(1, 2, 3)), np.random.default_rng(2))
    across = figures.points[figures.points["across"] == "nodes"]
    assert set(across["fixed"]) == {8}
    assert sorted(set(across["n"])) == [1, 2, 3]
    over_ranks = figures.points[figures.points["across"] == "ranks of a node"]
    assert sorted(set(over_ranks["fixed"])) == [1, 2, 3]


def test_a_series_of_two_sizes_is_shown_and_said_not_to_be_fitted() -> None:
    figures = scaling_figures(table(np.random.default_rng(1), ranks=(1, 2)), np.random.default_rng(2))
    assert len(figures.points) == 4
    assert figures.terms.empty
    assert len(figures.notes) == 2
    assert "weak scaling over ranks of a node, 1 node, GiB/s of storage: not fitted" in figures.notes[0]


def test_the_table_is_printed_within_80_columns_with_the_law() -> None:
    figures = scaling_figures(table(np.random.default_rng(1)), np.random.default_rng(2))
    console = Console(width=80, record=True, file=io.StringIO())
    print_scaling(figures, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    text = " ".join(text.split())
    assert "contention (sigma)" in text
    assert "predicted peak" in text
    assert "no peak in reach of the sizes measured, 8 at most" in text  # requests/s


def test_json_has_no_number_that_json_lacks() -> None:
    figures = scaling_figures(table(np.random.default_rng(1)), np.random.default_rng(2))
    content = json.loads(to_json(figures), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert len(content["points"]) == 8
    assert len(content["terms"]) == 10


def test_a_table_is_read_back(tmp_path: Path) -> None:
    rows = table(np.random.default_rng(1))
    rows.to_csv(tmp_path / "t.csv", index=False)
    pd.testing.assert_frame_equal(load_table(tmp_path / "t.csv"), rows)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, "cannot read"),
        ("", "is not the table of a scaling study"),
        ("a,b\n1,2\n", "it has no column scaling, nodes"),
        ("\x89HDF\r\n", "is not the table of a scaling study"),
        (
            "scaling,nodes,ranks_per_node,users_per_rank,repeat,storage_gib_per_s,requests_per_s\nweak,1,1,1,0,fast,2\n",
            "storage_gib_per_s does not hold numbers",
        ),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: str | None, wanted: str) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(KvbenchError, match=r"t\.csv") as error:
        load_table(path)
    assert wanted in str(error.value)
