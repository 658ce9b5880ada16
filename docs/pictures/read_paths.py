"""Draws what a read costs on each read path: device, host and run-queue time, stacked, one panel for each storage.

    python docs/pictures/read_paths.py OUT.png "a real drive=disk-*.h5" "memory (tmpfs)=tmpfs-*.h5"

Each argument is a title and the run files of its panel (a pattern). Each read path is one bar; of several runs of one
path the one with the least run-queue time is drawn, which other programs on the machine disturbed least. It needs
matplotlib, and measures nothing: the commands that made the runs stand in docs/findings.md.
"""

import glob
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import kvbench_analysis as ka
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

mpl.use("Agg")

PARTS: Final = (("device", "#2a78b5", "device: blocked"), ("host", "#e2872c", "host: on a processor"),
                ("runq", "#9a9a9a", "run queue: waiting for one"))  # fmt: skip
PATHS: Final = ("double-copy", "numpy", "buffered", "mmap-copy", "mmap-touch", "direct")
PAPER: Final = "#fbfaf7"
INK: Final = "#222222"
GIB: Final = 1024**3


@dataclass(frozen=True)
class Bar:
    """One run: ms per GiB read, by part, over all measured reads of all ranks on storage."""

    path: str
    ms_per_gib: dict[str, float]


def bar_of(file: str) -> Bar:
    """The bar of one run file. Raises KvbenchError where it is none."""
    run = ka.load(file)
    records = run.records
    storage = set(run.tiers.loc[run.tiers["kind"] != "memory", "name"])
    reads = records[
        (records["phase"] == "measure")
        & (records["op"] == "read")
        & (records["errno"] == 0)
        & records["tier"].isin(storage)
    ]
    gib = reads["nbytes"].sum() / GIB
    parts = {part: float(reads[f"{part}_ns"].sum() / 1e6 / gib) for part, _, _ in PARTS}
    return Bar(str(run.attributes["read_path"]), parts)


def least_disturbed(bars: Iterable[Bar]) -> list[Bar]:
    """One bar for each read path, in the order of PATHS."""
    found: dict[str, Bar] = {}
    for bar in bars:
        if bar.path not in found or bar.ms_per_gib["runq"] < found[bar.path].ms_per_gib["runq"]:
            found[bar.path] = bar
    return [found[path] for path in PATHS if path in found]


def draw_panel(axes: Axes, title: str, ordered: list[Bar]) -> None:
    """Horizontal bars, from the top down."""
    places = range(len(ordered))
    left = [0.0] * len(ordered)
    for part, color, label in PARTS:
        widths = [bar.ms_per_gib[part] for bar in ordered]
        axes.barh(places, widths, left=left, color=color, label=label, height=0.66, edgecolor=PAPER, linewidth=0.8)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, total in zip(places, left, strict=True):
        axes.text(total, place, f" {total:.0f}", va="center", ha="left", color=INK, fontsize=9)
    axes.set_yticks(places, [bar.path for bar in ordered])
    axes.invert_yaxis()
    axes.set_xlim(0, max(left, default=1) * 1.12)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel("ms per GiB read, per thread", color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", color="#dddad2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    for side in axes.spines.values():
        side.set_visible(False)


def main(out: str, panels: list[str]) -> None:
    """Draw `panels` (TITLE=PATTERN each) side by side into the PNG `out`."""
    figure, grid = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.5), squeeze=False, layout="constrained")
    figure.set_facecolor(PAPER)
    for axes, panel in zip(grid[0], panels, strict=True):
        title, _, pattern = panel.partition("=")
        draw_panel(axes, title, least_disturbed(map(bar_of, glob.glob(pattern))))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(PARTS), frameon=False, labelcolor=INK)
    figure.savefig(out, dpi=160, facecolor=PAPER)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
