"""The colours of every figure: one for each part of the time, everywhere, and a row of others for the rest.

Chosen to be told apart with any kind of colour blindness (Okabe and Ito's set; the parts also differ in lightness) and
to stand out on white and on near-black paper.
"""

from typing import Final, Literal, NamedTuple


class Part(NamedTuple):
    """A part of an operation's wall time, as figures show it."""

    key: str
    name: str
    meaning: str
    colour: str


DEVICE: Final = Part("device", "device", "blocked: waiting for the storage", "#2a78b5")
HOST: Final = Part("host", "host", "on a processor: system calls, page-cache and memory copies", "#e2872c")
COPY: Final = Part("copy", "copy (in host)", "explicit memory copies, a part of host", "#a5560f")
RUN_QUEUE: Final = Part("runq", "run queue", "ready to run, but no processor was free", "#9a9a9a")
QUEUE: Final = Part("queue", "queued before", "waiting to start; not part of the operation's wall time", "#7a68a6")
WALL: Final = Part(
    "wall", "wall time", "submission to completion, of operations that overlap: it has no parts", "#009e73"
)

LOOK_UP: Final = Part("look_up", "looking up", "until it was known what of the context there is", "#56b4e9")
LOAD: Final = Part("load", "loading", "until what was found had been loaded", "#009e73")
COMPUTE: Final = Part("compute", "computing, modelled", "the rest of the prompt, with its wait for the GPU", "#cc79a7")

PARTS: Final = (DEVICE, HOST, RUN_QUEUE)
"""What wall time is the sum of."""

OTHERS: Final = ("#009e73", "#cc79a7", "#56b4e9", "#c9a800", "#d55e00")
"""Colours of lines that are no part of the time: kinds of operations, runs, nodes."""

DASHES: Final[tuple[Literal["solid", "dash", "dot"], ...]] = ("solid", "dash", "dot")
"""A second mark beside the colour, for eyes and printers that see none."""

LIMIT: Final = "#c0392b"
"""Limits, such as the bandwidth of memory copies."""

SCALE: Final = "Cividis"
"""The colour scale of cells: even in lightness, and the same to all eyes (both plotly and matplotlib have it)."""


def style(number: int) -> tuple[str, Literal["solid", "dash", "dot"]]:
    """Colour and dash of the line `number`: different for the first 15, and neighbours differ in both."""
    return OTHERS[number % len(OTHERS)], DASHES[number % len(DASHES)]
