"""Tables for people: every cell is shown whole, at whatever width. Chooses no words and computes no figure."""

from collections.abc import Iterable

from kvbench_analysis.text.safe import safe_text
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = Text | str | int


def print_table(
    console: Console,
    title: str,
    headings: Iterable[str],
    rows: Iterable[Iterable[Cell]],
    *,
    left: int | frozenset[int] = 1,
    caption: str = "",
    names: bool = False,
) -> None:
    """Print a table whose first `left` columns (or those of these numbers) are text, the others figures.

    `names`: the first column holds names to be copied, which are not folded; they have to be short.
    The title is a line of its own: a table would fold it at its own width. Cells may have several lines.
    """
    columns = frozenset(range(left)) if isinstance(left, int) else left
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        # What is too wide is folded: cut off, it could be another figure.
        table.add_column(
            safe_text(heading, lines=True),
            justify="left" if place in columns else "right",
            overflow="fold",
            no_wrap=names and not place,
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else safe_text(cell, lines=True) for cell in row))
    console.print(safe_text(title, "bold"))
    console.print(table)
    if caption:
        console.print(safe_text(caption, "italic"))
