"""A plot as data: panels of lines, bars, levels and cells. Says what is drawn, and draws nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

Dash = Literal["solid", "dash", "dot"]


@dataclass(frozen=True)
class Axis:
    """An axis: `label` with its unit in it. `ticks` names positions, for axes that are no number lines."""

    label: str
    kind: Literal["linear", "log"] = "linear"
    low: float | None = None
    high: float | None = None
    ticks: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """y over x. `low` and `high` are a band around it; `note` (one per point) is what a pointer on it is told."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    colour: str
    dash: Dash = "solid"
    markers: bool = False
    low: NDArray[Any] | None = None
    high: NDArray[Any] | None = None
    note: Sequence[str] = ()


@dataclass(frozen=True)
class Bars:
    """One bar for each x, stacked on those of the same panel that come before. What is `modelled`, and was measured by
    nobody, is hatched."""

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    colour: str
    note: Sequence[str] = ()
    modelled: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line across the panel: a limit that the rest is compared with."""

    name: str
    y: float
    colour: str


@dataclass(frozen=True)
class Cells:
    """A grid of values (rows of `y`, between the edges `x`; NaN: nothing there) shown by their colour.

    The colours end at `low` and `high`: a value beyond them has the colour of the end.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[Any]
    values: NDArray[Any]
    low: float | None = None
    high: float | None = None


Mark = Line | Bars | Level | Cells


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """Panels under each other. `key` names its file; `note` says what the figure is per and how to read it."""

    key: str
    title: str
    note: str
    panels: tuple[Panel, ...]
    panel_height: int = 300
    """Of one panel, in pixels of the page."""
    one_x: bool = False
    """The panels have the same x axis, and show the same part of it."""
    own_legends: bool = False
    """Each panel has its own legend above it: where the panels show different things in the same colours."""
