"""A small study on all ranks, of which rank 0 alone is interrupted after the third step. Arguments: DIRECTORY OUT."""

import signal
import sys
from pathlib import Path

from rich.console import Console

from kvbench.cluster.agree import FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.errors import KvbenchError
from kvbench.studies.copy_path import StudyOrder, run_copy_path
from kvbench.studies.options import read_choices
from kvbench.studies.progress import StudyProgress

_advance = StudyProgress.advance
_steps = 0


def advance(self: StudyProgress) -> None:
    global _steps  # noqa: PLW0603
    _steps += 1
    if _steps == 3:
        signal.raise_signal(signal.SIGUSR1)
    _advance(self)


StudyProgress.advance = advance  # type: ignore[method-assign]
choices = read_choices(
    directories=[Path(sys.argv[1])],
    ranks="2",
    threads="1",
    paths="buffered",
    sizes="4KiB",
    seconds="10ms",
    repeats=5,
    seed=1,
    model="llama3.1-8b",
)
try:
    run_copy_path(get_world(), StudyOrder(choices, Path(sys.argv[2]), overwrite=False), Console(quiet=True))
except KvbenchError as error:
    print(f"rank 0: {error}")
except FailedElsewhere:
    print("rank 1: ended too")
