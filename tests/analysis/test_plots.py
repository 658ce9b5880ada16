"""The tables that plots are drawn from, and that both ways of drawing them show the same."""

from pathlib import Path as FilePath
from typing import Any

import kvbench_analysis as ka
import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.plots import tables
from kvbench_analysis.plots.contention import contention_curve
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.latency import latency_bands, latency_cdf, parts_by_rank
from kvbench_analysis.plots.marks import Axis, Bars, Cells, Level, Line, Panel
from kvbench_analysis.plots.over_time import timeline_plot
from kvbench_analysis.plots.places import rank_heatmap
from kvbench_analysis.tables.timeline import timeline
from kvbench_analysis.tables.window import Window
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from synthetic import END_NS, START_NS, SyntheticRun, empty_run, synthetic_run

from kvbench.records.schema import Op, Path, Phase

HOSTILE = "<b>$\\frac{</b>\x1b%{y}"


@pytest.fixture(scope="module")
def run(run_path: FilePath) -> ka.Run:
    return ka.load(run_path)


@pytest.fixture(scope="module")
def counted(run: ka.Run) -> tables.Counted:
    return tables.Counted(run)


@pytest.fixture(scope="module")
def measured(truth: SyntheticRun) -> NDArray[Any]:
    rows = truth.records
    counted: NDArray[Any] = rows[(rows["phase"] == Phase.MEASURE) & (rows["errno"] == 0)]
    return counted


@pytest.fixture(scope="module")
def storage_reads(measured: NDArray[Any]) -> NDArray[Any]:
    chosen: NDArray[Any] = measured[(measured["op"] == Op.READ) & (measured["path"] == Path.BUFFERED)]
    return chosen


def example(name: str = "line") -> Figure:
    """A figure with every sort of mark."""
    x, y = np.array([1.0, 2.0, 4.0]), np.array([3.0, 1.0, 2.0])
    grid = np.array([[1.0, np.nan], [2.0, 3.0]])
    line = Line(name, x, y, "#009e73", low=y / 2, high=y * 2, markers=True)
    bars = Bars("a", x, y, "#2a78b5"), Bars("b", x, y * 2, "#e2872c")
    limit = Line("other", x, y, "#cc79a7"), Level("limit", 5.0, "#c0392b")
    cells = Cells(name, np.array([0.0, 1.0, 2.0]), np.array([0, 1]), grid)
    panels = (
        Panel(name, Axis(name), Axis("y", "log"), (line,)),
        Panel("bars", Axis("x", ticks={1.0: name}), Axis("y"), bars),
        Panel("limit", Axis("x"), Axis("y"), limit),
        Panel("cells", Axis("x"), Axis("y"), (cells,)),
    )
    return Figure("example", name, name, panels)


def lines_of(drawn: MatplotlibFigure, panel: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in drawn.axes[panel].get_lines()]


def test_plotly_and_matplotlib_show_the_same_numbers() -> None:
    figure = example()
    web, file = figure.to_plotly(), figure.to_matplotlib()
    band, line, first, second, other, limit, cells = web.data
    np.testing.assert_array_equal(line.x, lines_of(file, 0)[0][0])
    np.testing.assert_array_equal(line.y, lines_of(file, 0)[0][1])
    assert max(band.y) == 6
    bars = [(bar.get_y(), bar.get_height()) for bar in file.axes[1].patches if isinstance(bar, Rectangle)]
    np.testing.assert_array_equal([height for _, height in bars], [*first.y, *second.y])
    np.testing.assert_array_equal([base for base, _ in bars], [0, 0, 0, *first.y])
    np.testing.assert_array_equal(other.y, lines_of(file, 2)[0][1])
    assert set(limit.y) == set(lines_of(file, 2)[1][1]) == {5.0}
    mesh = next(one for one in file.axes[3].collections if isinstance(one, QuadMesh))
    np.testing.assert_array_equal(np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan), cells.z)


def test_names_reach_a_plot_as_plain_text(tmp_path: FilePath) -> None:
    figure = example(HOSTILE)
    assert figure.to_plotly().data[1].name == "&lt;b&gt;$\\frac{&lt;/b&gt;?%{y}"
    # A `$` that began a formula would be an error here.
    assert figure.save(tmp_path / "hostile.png").stat().st_size > 10_000


def test_every_figure_is_saved_as_a_picture(counted: tables.Counted, run: ka.Run, tmp_path: FilePath) -> None:
    reads = counted.of(storage=True, op="read")
    cells = tables.rank_cells(counted, reads, Window.of(run.attributes))
    for figure in (
        latency_cdf(tables.latency_quantiles(counted)),
        latency_bands(tables.latency_bands(counted, reads), "storage reads"),
        parts_by_rank(tables.time_parts(counted)),
        rank_heatmap(cells, "storage reads"),
    ):
        assert figure.note, "every figure says what it is per"
        assert figure.save(tmp_path / f"{figure.key}.png").read_bytes().startswith(b"\x89PNG")


def test_quantiles_are_those_of_the_whole_population(counted: tables.Counted, storage_reads: NDArray[Any]) -> None:
    table = tables.latency_quantiles(counted)
    mine = table[(table["tier"] == "storage") & (table["op"] == "read")]
    assert set(mine["operations"]) == {len(storage_reads)}
    expected = np.percentile(storage_reads["wall_ns"], mine["percentile"])
    np.testing.assert_allclose(mine["wall_ns"], expected, rtol=1e-12)
    assert mine["wall_ns"].iloc[0] == storage_reads["wall_ns"].min()
    assert mine["wall_ns"].iloc[-1] == storage_reads["wall_ns"].max()


def test_a_figure_has_the_numbers_of_its_table(counted: tables.Counted) -> None:
    table = tables.latency_quantiles(counted)
    line = latency_cdf(table).to_plotly().data[0]
    mine = table[(table["tier"] == "storage") & (table["op"] == "read")]
    assert line.name == "storage read"
    np.testing.assert_allclose(line.x, mine["wall_ns"] / 1e6)
    np.testing.assert_array_equal(line.y, mine["percentile"])


def test_the_parts_of_each_rank_add_up_to_its_mean_wall_time(
    counted: tables.Counted, storage_reads: NDArray[Any]
) -> None:
    parts = tables.time_parts(counted)
    np.testing.assert_allclose(parts[[f"{part}_ns" for part in tables.STACK]].sum(axis=1), parts["wall_ns"])
    mine = parts[(parts["tier"] == "storage") & (parts["op"] == "read")].set_index("rank")
    truth = (
        pd.DataFrame({name: storage_reads[name] for name in ("rank", "wall_ns", "device_ns")}).groupby("rank").mean()
    )
    np.testing.assert_allclose(mine["wall_ns"], truth["wall_ns"])
    np.testing.assert_allclose(mine["device_ns"], truth["device_ns"])
    copies = parts[(parts["tier"] == "memory")]
    assert (copies["copy_ns"] > 0).all(), "explicit copies are shown apart from host"


def test_bands_hold_every_operation_once_and_in_order(counted: tables.Counted, storage_reads: NDArray[Any]) -> None:
    bands = tables.latency_bands(counted, counted.of(storage=True, op="read"))
    assert bands["operations"].sum() == len(storage_reads)
    assert bands["wall_ns"].is_monotonic_increasing
    whole = (bands["wall_ns"] * bands["operations"]).sum() / len(storage_reads)
    assert whole == pytest.approx(storage_reads["wall_ns"].mean())
    slowest = np.sort(storage_reads["wall_ns"])[-bands["operations"].iloc[-1] :]
    assert bands["wall_ns"].iloc[-1] == pytest.approx(slowest.mean())


def test_cells_hold_what_ended_in_the_window(counted: tables.Counted, run: ka.Run, storage_reads: NDArray[Any]) -> None:
    cells = tables.rank_cells(counted, counted.of(storage=True, op="read"), Window.of(run.attributes))
    end = storage_reads["t_start_ns"] + storage_reads["wall_ns"]
    inside = storage_reads[(end >= START_NS) & (end <= END_NS)]
    assert cells["operations"].sum() == len(inside)
    moved = (cells["gib_per_s"] * (cells["end_s"] - cells["start_s"])).sum()
    assert moved == pytest.approx(inside["nbytes"].sum() / 2**30)
    assert set(cells["rank"]) == {0, 1, 2, 3}


def test_of_many_ranks_neighbours_share_a_row(tmp_path: FilePath) -> None:
    path = synthetic_run(np.random.default_rng(3), ranks=300, operations=4).write(tmp_path / "run.h5")
    run = ka.load(path)
    counted = tables.Counted(run)
    cells = tables.rank_cells(counted, counted.of(storage=True, op="read"), Window.of(run.attributes))
    assert len(set(cells["rank"])) == 100
    assert cells["last_rank"].max() == 299
    heat = rank_heatmap(cells, "storage reads").to_plotly()
    assert "0-2" in heat.layout.yaxis.ticktext
    assert parts_by_rank(tables.time_parts(counted)).to_plotly().data[0].x.max() == 299


@pytest.mark.parametrize(("least", "width"), [(0.083, 0.1), (0.1, 0.1), (0.11, 0.2), (3, 5), (6, 10)])
def test_bins_have_round_lengths(least: float, width: float) -> None:
    assert tables.bin_width(least) == pytest.approx(width)


def test_tables_of_an_empty_run_have_no_rows(tmp_path: FilePath) -> None:
    run = ka.load(empty_run().write(tmp_path / "run.h5"))
    counted = tables.Counted(run)
    nothing = counted.of(storage=True)
    assert len(tables.latency_quantiles(counted)) == 0
    assert len(tables.time_parts(counted)) == 0
    assert len(tables.latency_bands(counted, nothing)) == 0
    assert len(tables.rank_cells(counted, nothing, Window.of(run.attributes))) == 0


def test_the_roofline_is_the_calibrated_memory_copy(truth: SyntheticRun, tmp_path: FilePath) -> None:
    run = ka.load(truth.write(tmp_path / "run.h5"))
    limits = tables.copy_limits(run)
    assert limits["gib_per_s"].to_list() == [5.0]
    assert limits["ns_per_byte"].to_list() == pytest.approx([1e9 / (5 * 2**30)])
    without = truth.changed(tables={"calibration": None}).write(tmp_path / "without.h5")
    assert len(tables.copy_limits(ka.load(without))) == 0


def test_the_contention_curve_has_the_roofline_beside_the_host_time() -> None:
    rows = [
        {"tier": "storage", "op": "read", "path": "buffered", "metric": metric, "others": others, "median": value,
         "mean": value, "low": value / 2, "high": value * 2, "operations": 30}
        for metric, value in (("host_ns_per_byte", 0.2), ("device_ns_per_byte", 1.0), ("runq_share", 0.1))
        for others in (0.0, 1.0, 2.0)
    ]  # fmt: skip
    limits = pd.DataFrame({"mode": ["alone"], "gib_per_s": [10.0], "ns_per_byte": [0.0931]})
    drawn = contention_curve(pd.DataFrame(rows), limits).to_plotly()
    named = {trace.name: trace for trace in drawn.data if trace.showlegend}
    np.testing.assert_allclose(named["host, storage read"].y, 0.2)
    np.testing.assert_allclose(named["run queue, storage read"].y, 10.0)
    np.testing.assert_allclose(named["memory copy, one rank alone"].y, 0.0931)
    assert named["memory copy, one rank alone"].yaxis == named["host, storage read"].yaxis


def test_the_timeline_adds_up_bandwidths_and_shows_the_spread_of_the_nodes(run: ka.Run) -> None:
    found = timeline(run)
    drawn = timeline_plot(found.nodes, found.flows).to_plotly()
    read = next(trace for trace in drawn.data if trace.name == "storage read")
    flows = found.flows[(found.flows["tier"] == "storage") & (found.flows["direction"] == "read")]
    np.testing.assert_allclose(read.y, flows.groupby("second")["gib_per_s"].sum())
    band, line = (trace for trace in drawn.data if trace.name == "in flight")
    assert band.y.max() == found.nodes["in_flight"].max()
    np.testing.assert_allclose(line.y, found.nodes.groupby("second")["in_flight"].mean())


def test_a_last_part_of_the_timeline_that_is_hardly_any_time_is_left_out(run: ka.Run) -> None:
    found = timeline(run, 0.999)
    assert found.nodes["seconds"].min() < 0.1
    line = timeline_plot(found.nodes, found.flows).to_plotly().data[0]
    assert len(line.x) == 10
    assert line.x.max() < 10
