"""A `Plot` drawn with matplotlib, for files: on light paper, with its title above it and its note below."""

import textwrap
from typing import Any, Final, Literal

import numpy as np
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.marks import Axis, Bars, Cells, Level, Line, Panel, Plot
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

_INK: Final = "#26292e"
_FAINT: Final = "#6b7078"
_WIDTH_INCHES: Final = 9.0
_PIXELS_PER_INCH: Final = 96
_LETTERS: Final = 128
_DASHES: Final[dict[str, Any]] = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5))}


def draw(figure: Plot) -> MatplotlibFigure:
    """The matplotlib figure, which belongs to no window and no global state."""
    names = (
        []
        if figure.own_legends
        else list(
            dict.fromkeys(mark.name for panel in figure.panels for mark in panel.marks if type(mark) is not Cells)
        )
    )
    notes = textwrap.wrap(_text(figure.note), _LETTERS)
    # Inches: a line for the title, the legend, the panels with their own titles and axes, and the note.
    legend = 0.21 * len(_legend_rows(names)) + 0.06 if len(names) > 1 else 0.0
    top, bottom = 0.38 + legend, 0.12 + 0.16 * len(notes)
    height = len(figure.panels) * (figure.panel_height / _PIXELS_PER_INCH + 0.6) + top + bottom
    drawn = MatplotlibFigure(
        figsize=(_WIDTH_INCHES, height),
        layout=ConstrainedLayoutEngine(rect=(0, bottom / height, 1, 1 - (top + bottom) / height)),
        facecolor="white",
    )
    drawn.text(0.012, 1 - 0.1 / height, _text(figure.title), va="top", fontsize=13, fontweight="bold", color=_INK)
    drawn.text(0.012, 0.06 / height, "\n".join(notes), va="bottom", fontsize=8, color=_FAINT)
    every = np.atleast_1d(drawn.subplots(len(figure.panels), 1, sharex=figure.one_x))
    seen: dict[str, Any] = {}
    for axes, panel in zip(every, figure.panels, strict=True):
        if figure.own_legends:
            seen = {}
        _panel(drawn, axes, panel, seen)
        if figure.own_legends and len(seen) > 1:
            axes.legend(
                seen.values(),
                seen.keys(),
                loc="lower right",
                bbox_to_anchor=(1, 0.99),
                ncols=len(seen),
                frameon=False,
                fontsize=9,
                labelcolor=_INK,
                borderpad=0,
            )
    if figure.one_x:
        for axes in every[:-1]:
            axes.set_xlabel("")
    for row, members in enumerate(_legend_rows(names) if len(names) > 1 else []):
        drawn.add_artist(
            Legend(
                drawn,
                [seen[_text(name)] for name in members],
                [_text(name) for name in members],
                loc="upper left",
                bbox_to_anchor=(0.004, 1 - (0.36 + 0.21 * row) / height),
                bbox_transform=drawn.transFigure,
                ncols=len(members),
                frameon=False,
                fontsize=9,
                labelcolor=_INK,
                borderpad=0,
            )
        )
    return drawn


def _legend_rows(names: list[str]) -> list[list[str]]:
    """The names of the legend in rows that fit into the width, each name taking its letters and a mark."""
    rows: list[list[str]] = [[]]
    for name in names:
        if rows[-1] and sum(len(other) + 8 for other in [*rows[-1], name]) > 0.85 * _LETTERS:
            rows.append([])
        rows[-1].append(name)
    return rows


def _text(value: str) -> str:
    """Text as it is: a `$` would begin a formula."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in value).replace("$", r"\$")


def _panel(drawn: MatplotlibFigure, axes: Axes, panel: Panel, seen: dict[str, Any]) -> None:
    if panel.title:
        axes.set_title(_text(panel.title), loc="left", fontsize=10, color=_INK)
    base: dict[float, float] = {}
    for mark in panel.marks:
        name = _text(mark.name)
        if isinstance(mark, Cells):
            _cells(drawn, axes, mark)
        elif isinstance(mark, Bars):
            bottom = [base.get(float(x), 0.0) for x in mark.x]
            hatched: dict[str, Any] = {"hatch": "////", "edgecolor": "white", "linewidth": 0} if mark.modelled else {}
            seen.setdefault(name, axes.bar(mark.x, mark.y, 0.75, bottom, color=mark.colour, **hatched))
            base |= {float(x): low + float(y) for x, y, low in zip(mark.x, mark.y, bottom, strict=True)}
        elif isinstance(mark, Level):
            seen.setdefault(name, axes.axhline(mark.y, color=mark.colour, linestyle=(0, (8, 3)), linewidth=1.2))
        else:
            seen.setdefault(name, _line(axes, mark))
    _axis(axes, "x", panel.x)
    _axis(axes, "y", panel.y)
    axes.tick_params(colors=_FAINT, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if not any(isinstance(mark, Cells) for mark in panel.marks):
        axes.grid(visible=True, color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)


def _line(axes: Axes, mark: Line) -> Any:
    if mark.low is not None and mark.high is not None:
        axes.fill_between(mark.x, mark.low, mark.high, color=mark.colour, alpha=0.2, linewidth=0)
    marker = "o" if mark.markers else ""
    (line,) = axes.plot(mark.x, mark.y, color=mark.colour, linestyle=_DASHES[mark.dash], marker=marker, markersize=4)
    return line


def _cells(drawn: MatplotlibFigure, axes: Axes, mark: Cells) -> None:
    middle = np.asarray(mark.y, float)
    edges = np.concatenate((middle - 0.5, middle[-1:] + 0.5))
    mesh = axes.pcolormesh(
        mark.x, edges, np.ma.masked_invalid(mark.values), cmap=palette.SCALE.lower(), vmin=mark.low, vmax=mark.high
    )
    bar = drawn.colorbar(mesh, ax=axes, pad=0.01)
    bar.set_label(_text(mark.name), color=_INK, fontsize=9)
    bar.ax.tick_params(colors=_FAINT, labelsize=8)


def _axis(axes: Axes, which: Literal["x", "y"], axis: Axis) -> None:
    line = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": axis.kind, f"{which}label": _text(axis.label)})
    line.label.set(color=_INK, fontsize=9)
    if axis.low is not None and axis.high is not None:
        axes.set(**{f"{which}lim": (axis.low, axis.high)})
    if axis.kind == "log":
        line.set_major_locator(LogLocator(numticks=12))
        line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        # Within two powers of ten, 2 and 5 times one as well.
        low, high = line.get_view_interval()
        few = bool(high < 100 * low)
        line.set_minor_locator(LogLocator(subs=(2.0, 5.0)) if few else NullLocator())
        line.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis=which, which="minor", colors=_FAINT, labelsize=9)
    if axis.ticks:
        line.set_ticks(list(axis.ticks), [_text(name) for name in axis.ticks.values()])
        line.set_minor_locator(NullLocator())
