"""A figure: a plot that can be drawn, by plotly for the page and by matplotlib for files.

Both draw the same data, so the page and the picture files cannot show different numbers.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench_analysis.plots.marks import Plot

from kvbench.records.outputs import check_output, picture_kind, write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure
    from plotly.graph_objects import Figure as PlotlyFigure


@dataclass(frozen=True)
class Figure(Plot):
    """What every plot function returns. A notebook shows it interactively."""

    def to_plotly(self) -> "PlotlyFigure":
        """The figure for plotly: interactive, transparent, with colours that suit light and dark paper."""
        # Plotly and matplotlib take a second to import, and are wanted one at a time.
        from kvbench_analysis.plots import drawn_by_plotly  # noqa: PLC0415

        return drawn_by_plotly.draw(self)

    def to_matplotlib(self) -> "MatplotlibFigure":
        """The figure for matplotlib: with its title and note, on light paper."""
        from kvbench_analysis.plots import drawn_by_matplotlib  # noqa: PLC0415

        return drawn_by_matplotlib.draw(self)

    def save(self, path: str | Path) -> Path:
        """Write the figure as a picture (PNG, SVG or PDF, by the suffix), and return its path.

        Raises KvbenchError naming the file where it is of no such kind, cannot be written, or is something else."""
        target = Path(path) if Path(path).suffix else Path(f"{path}.png")
        kind = picture_kind(target)
        output = check_output(target, kind)
        picture = BytesIO()
        self.to_matplotlib().savefig(picture, dpi=150, format=target.suffix[1:].lower())
        write_output(output, picture.getvalue(), kind)
        return target

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What a notebook shows."""
        return self.to_plotly()._repr_mimebundle_(**options)
