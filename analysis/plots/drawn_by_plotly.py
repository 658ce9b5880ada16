"""A `Plot` drawn with plotly. Its axes and text are of a grey that can be read on light and dark paper alike."""

import html
from typing import Any, Final

import numpy as np
from kvbench_analysis.plots import palette
from kvbench_analysis.plots.marks import Axis, Bars, Cells, Level, Line, Mark, Panel, Plot
from plotly import graph_objects as go
from plotly.subplots import make_subplots

_INK: Final = "#7b7f87"
_GRID: Final = "rgba(128, 128, 128, 0.25)"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
_TOP: Final = 16
_GAP: Final = 74
_BOTTOM: Final = 52
_LEGEND_LINE: Final = 24
_LEGEND: Final[dict[str, Any]] = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"}
_LABELLED: Final = 3


def draw(figure: Plot) -> go.Figure:
    """The plotly figure. Text is escaped: plotly reads some of HTML."""
    rows = len(figure.panels)
    gap = _GAP + _LEGEND_LINE * figure.own_legends
    plain = figure.panel_height * rows + gap * (rows - 1)
    drawn = make_subplots(
        rows=rows,
        cols=1,
        shared_xaxes=figure.one_x,
        vertical_spacing=gap / plain if rows > 1 else None,
        subplot_titles=[_text(panel.title) for panel in figure.panels] if rows > 1 else None,
    )
    seen: set[str] = set()
    for row, panel in enumerate(figure.panels, start=1):
        alone = figure.own_legends and len(panel.marks) == 1
        if figure.own_legends:
            seen = set()
        for mark in panel.marks:
            for trace in _traces(mark, panel, seen):
                if figure.own_legends and trace.type != "heatmap":
                    trace.update(legend=_legend_name(row), legendgroup=f"{row} {trace.name}")
                    # Its panel's title says what it is.
                    trace.showlegend = bool(trace.showlegend) and not alone
                drawn.add_trace(trace, row=row, col=1)
        drawn.update_xaxes(_axis(panel.x), row=row, col=1)
        drawn.update_yaxes(_axis(panel.y), row=row, col=1)
        if figure.one_x and row < rows:
            # Above many panels the lines of the grid show the way down to the labels.
            drawn.update_xaxes(title_text="", showticklabels=rows <= _LABELLED, row=row, col=1)
    _colour_bars(drawn, figure)
    several = figure.own_legends or len(seen) > 1
    titles = _LEGEND_LINE if rows > 1 else 0
    # Above the panels: their legend. The page's script makes room where it takes more lines.
    top = _TOP + titles + (_LEGEND_LINE if several else 0)
    drawn.update_layout(
        template=go.layout.Template(),
        height=plain + top + _BOTTOM,
        margin={"l": 62, "r": 14, "t": top, "b": _BOTTOM},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 13, "color": _INK},
        barmode="stack",
        bargap=0.25,
        hoverlabel={"font": {"family": _FONT}},
        showlegend=several,
        modebar={"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},
    )
    # Annotations are the titles of the panels.
    drawn.update_annotations(x=0, xanchor="left", font={"size": 13})
    if figure.own_legends:
        for row, title in enumerate(drawn.layout.annotations, start=1):
            drawn.update_layout({_legend_name(row): _LEGEND | {"y": title.y + 2 / plain}})
            title.update(yshift=_LEGEND_LINE if len(figure.panels[row - 1].marks) > 1 else 0)
    else:
        drawn.update_layout(legend=_LEGEND | {"y": 1 + (titles + 4) / plain})
    return drawn


def _legend_name(row: int) -> str:
    return "legend" if row == 1 else f"legend{row}"


def _text(value: str) -> str:
    lines = ("".join(c if c.isprintable() else "?" for c in line) for line in value.split("\n"))
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def _axis(axis: Axis) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "title": {"text": _text(axis.label), "standoff": 8, "font": {"size": 13}},
        "type": axis.kind,
        "gridcolor": _GRID,
        "linecolor": _GRID,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "none",
        "showticklabels": True,
    }
    if axis.kind == "log":
        # Lines at 1, 10, 100 only where there are many of them is plotly's choice; labels at each are ours.
        chosen |= {"minor": {"ticks": "outside", "tickcolor": _GRID, "showgrid": False}, "dtick": 1}
    if axis.low is not None and axis.high is not None:
        ends = np.array([axis.low, axis.high], float)
        chosen["range"] = list(np.log10(ends) if axis.kind == "log" else ends)
    if axis.ticks:
        chosen |= {
            "tickvals": list(axis.ticks),
            "ticktext": [_text(name) for name in axis.ticks.values()],
            "tickangle": 0,
        }
    return chosen


def _traces(mark: Mark, panel: Panel, seen: set[str]) -> list[Any]:
    if isinstance(mark, Cells):
        return [_cells(mark, panel)]
    first = mark.name not in seen
    seen.add(mark.name)
    name = _text(mark.name)
    common = {"name": name, "legendgroup": name, "showlegend": first}
    if isinstance(mark, Bars):
        marker: dict[str, Any] = {"color": mark.colour}
        if mark.modelled:
            marker["pattern"] = {"shape": "/", "fgcolor": "#ffffff", "fillmode": "overlay", "size": 7, "solidity": 0.35}
        return [go.Bar(x=mark.x, y=mark.y, marker=marker, **common, **_hover(mark, panel))]
    if isinstance(mark, Level):
        line = {"color": mark.colour, "width": 1.5, "dash": "longdash"}
        return [go.Scatter(x=_extent(panel), y=np.full(2, mark.y), mode="lines", line=line, **common)]
    return [*_band(mark, common), _line(mark, panel, common)]


def _hover(mark: Line | Bars, panel: Panel) -> dict[str, Any]:
    if mark.note:
        return {
            "hovertext": [_text(note) for note in mark.note],
            "hovertemplate": "%{hovertext}<extra>%{fullData.name}</extra>",
        }
    x, y = (_text(axis.label).replace("%", "&#37;") for axis in (panel.x, panel.y))
    return {"hovertemplate": f"%{{y:.3~r}} {y}<br>%{{x:.4~r}} {x}<extra>%{{fullData.name}}</extra>"}


def _line(mark: Line, panel: Panel, common: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=mark.x,
        y=mark.y,
        mode="lines+markers" if mark.markers else "lines",
        line={"color": mark.colour, "dash": mark.dash, "width": 2},
        marker={"size": 7},
        **common,
        **_hover(mark, panel),
    )


def _band(mark: Line, common: dict[str, Any]) -> list[go.Scatter]:
    if mark.low is None or mark.high is None:
        return []
    known = np.isfinite(mark.low) & np.isfinite(mark.high)
    x = mark.x[known]
    return [
        go.Scatter(
            x=np.concatenate((x, x[::-1])),
            y=np.concatenate((mark.high[known], mark.low[known][::-1])),
            mode="lines",
            fill="toself",
            fillcolor=_faint(mark.colour),
            line={"width": 0},
            hoverinfo="skip",
            **(common | {"showlegend": False}),
        )
    ]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.2)"


def _extent(panel: Panel) -> np.ndarray[Any, np.dtype[Any]]:
    """From the lowest to the highest x of what is drawn in `panel` (bars are a unit wide)."""
    ends = [(mark.x.min(), mark.x.max()) for mark in panel.marks if not isinstance(mark, Level) and len(mark.x)]
    half = 0.5 if any(isinstance(mark, Bars) for mark in panel.marks) else 0.0
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (0, 1)
    return np.array([low - half, high + half], float)


def _cells(mark: Cells, panel: Panel) -> go.Heatmap:
    x, y = (_text(axis.label).replace("%", "&#37;") for axis in (panel.x, panel.y))
    return go.Heatmap(
        x=mark.x,
        y=mark.y,
        z=mark.values.astype(np.float32),
        zmin=mark.low,
        zmax=mark.high,
        colorscale=palette.SCALE,
        name=_text(mark.name),
        showlegend=False,
        hoverongaps=False,
        colorbar={
            "title": {"text": _text(mark.name), "side": "right", "font": {"size": 13}},
            "thickness": 12,
            "outlinewidth": 0,
        },
        hovertemplate=f"%{{z:.3~r}} {_text(mark.name)}<br>{y} %{{y}}<br>%{{x:.4~r}} {x}<extra></extra>",
    )


def _colour_bars(drawn: go.Figure, figure: Plot) -> None:
    """The colour bar of each panel stands beside it."""
    for trace in drawn.data:
        if trace.type == "heatmap":
            axis = (trace.yaxis or "y").replace("y", "yaxis")
            low, high = drawn.layout[axis].domain or (0, 1)
            trace.colorbar.update(y=(low + high) / 2, len=high - low, x=1.01)
