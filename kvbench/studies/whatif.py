"""The what-if study: the same requests as they are, and with one part of the system faster, which is predicted.

Nothing can be made faster: all else is delayed (`engine.delays`). Every run is an MPI job of its own. Runs stand in the
order of a randomised block design: each repeat holds the baseline, every question, and where a device is delayed a run
in which nothing is faster, shuffled anew. This module starts the runs; `kvbench_analysis` compares them.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.config.virtual_speed import PARTS, VirtualSpeed
from kvbench.errors import KvbenchError
from kvbench.records.outputs import Kind, check_output
from kvbench.run.order import Order, check_speed
from kvbench.studies.jobs import refuse_inside_a_job, run_files, run_job

TABLE: Final = Kind("the table of a what-if study", (b"question,factor,repeat,",))
"""What the runs' figures are kept in (`whatif_table`)."""
USUAL: Final = 2.0
_COPYING: Final = ("double-copy", "mmap-copy")
"""Read paths whose copies are accounted apart from other processor time; so are all of a memory tier."""


@dataclass(frozen=True, slots=True)
class WhatIfChoices:
    """What a what-if study is to run."""

    source: str
    """Path or name of the configuration."""
    overrides: tuple[str, ...]
    place: str | None
    """A directory, or an address; None where the configuration needs none."""
    questions: tuple[VirtualSpeed, ...]
    """Empty: the usual ones."""
    control: bool
    """Whether runs with nothing faster go with those that need them."""
    ranks: int
    repeats: int
    seed: int
    """Of the order; the workload has its own."""
    engine: str
    """The twin of an engine, by name or as a YAML file; "": none."""
    out: Path
    """The table; the run files go to a directory beside it."""
    overwrite: bool


@dataclass(frozen=True, slots=True)
class WhatIfRun:
    """One run of the study."""

    speed: VirtualSpeed | None
    """None: the baseline."""
    repeat: int

    @property
    def stretch(self) -> float:
        """So many times as long as the baseline does it take."""
        return 1.0 if self.speed is None else self.speed.stretch

    @property
    def text(self) -> str:
        """For people."""
        if self.speed is None:
            return "as it is"
        return "nothing faster" if self.speed.part == "nothing" else f"{self.speed.part} x {self.speed.factor:g}"

    @property
    def name(self) -> str:
        """Of its run file."""
        what = "baseline" if self.speed is None else f"{self.speed.part}-{self.speed.factor:g}"
        return f"{what}-{self.repeat}"


def read_questions(words: Iterable[str]) -> tuple[VirtualSpeed, ...]:
    """Questions as they are given, `device=2` or `device`, each once. Raises KvbenchError."""
    found: list[VirtualSpeed] = []
    known = [part for part in PARTS if part != "nothing"]
    for word in words:
        name, given, number = word.partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise KvbenchError(
                f"--faster {word}: no part {name!r}: did you mean {near}? (known: {', '.join(known)}; with a factor, "
                f"{near}=2)"
            )
        try:
            factor = float(number) if given else USUAL
        except ValueError:
            raise KvbenchError(f"--faster {word}: {number!r} is not how many times as fast, such as {name}=2") from None
        part = next(part for part in PARTS if part == name)
        try:
            speed = VirtualSpeed(part, factor)
        except KvbenchError as error:
            raise KvbenchError(f"--faster {error}") from error
        if speed not in found:
            found.append(speed)
    return tuple(found)


def copies_are_told(config: RunConfig) -> bool:
    """Whether a run of `config` has copies that are accounted apart."""
    return config.io.read_path in _COPYING or any(tier.kind == "memory" for tier in config.tiers)


def questions_for(choices: WhatIfChoices, config: RunConfig) -> tuple[VirtualSpeed, ...]:
    """Those that were asked, or the usual three. Raises KvbenchError where one has no answer."""
    copies = copies_are_told(config)
    if not choices.questions:
        return tuple(VirtualSpeed(part, USUAL) for part in ("device", "copies" if copies else "host", "cores"))
    for speed in choices.questions:
        if speed.part == "copies" and not copies:
            raise KvbenchError(
                f"--faster copies: with io.read_path={config.io.read_path} and no memory tier no copy is accounted "
                "apart (what the kernel copies is host time): ask for host, or choose a read path that copies "
                f"({', '.join(_COPYING)})"
            )
    return choices.questions


def plan_runs(choices: WhatIfChoices, config: RunConfig) -> list[WhatIfRun]:
    """All runs in their order; the same for the same seed. Raises KvbenchError."""
    if config.records != "full":
        raise KvbenchError(f"{choices.source}: what operations took is in every row: set records=full")
    questions = questions_for(choices, config)
    for speed in questions:
        check_speed(config, speed)
    delayed = dict.fromkeys(speed.factor for speed in questions if speed.part != "device" and speed.factor > 1)
    controls = [VirtualSpeed("nothing", factor) for factor in delayed] if choices.control else []
    block = [None, *questions, *controls]
    rng = np.random.Generator(np.random.PCG64(choices.seed))
    return [
        WhatIfRun(block[place], repeat) for repeat in range(choices.repeats) for place in rng.permutation(len(block))
    ]


def announced(runs: Sequence[WhatIfRun], config: RunConfig) -> str:
    """How long the runs will take, as far as the configuration says."""
    baselines = sum(run.stretch for run in runs)
    if config.duration_s is None:
        return f"{len(runs)} runs, which take as long as {baselines:.3g} of the load as it is"
    seconds = baselines * (config.duration_s + config.warmup_s)
    return f"{len(runs)} runs, in which load runs for {seconds:.0f} s"


def run_whatif(choices: WhatIfChoices, record: Callable[[WhatIfRun, Path], str], console: Console) -> None:
    """Carry out all runs. After each, `record` is called with it and its file; it keeps the table, and returns what to
    print of the run.

    Raises KvbenchError when a run fails or is interrupted; the table then holds those before.
    """
    refuse_inside_a_job("kvbench study whatif", "--ranks")
    check_output(choices.out, TABLE, replace=choices.overwrite, inputs=[choices.source])
    config = load_config(choices.source, choices.overrides, choices.engine)
    if config.has_target and choices.place is None:
        raise KvbenchError(
            f"{choices.source} has a {config.tiers[-1].kind} tier: give the directory under test with --dir"
        )
    runs = plan_runs(choices, config)
    with run_files(choices.out, [run.name for run in runs], replace=choices.overwrite) as paths:
        console.print(announced(runs, config), highlight=False, soft_wrap=True)
        for number, (run, path) in enumerate(zip(runs, paths, strict=True)):
            order = Order(
                source=choices.source,
                directory=choices.place,
                out=path,
                overrides=choices.overrides,
                engine=choices.engine,
                overwrite=True,
                speed=run.speed,
            )
            run_job(order, choices.ranks, None, number, choices.out)
            console.print(
                f"run {number + 1} of {len(runs)}: {run.text}: {record(run, path)}", soft_wrap=True, highlight=False
            )
