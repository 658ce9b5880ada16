"""The study of engines: the same requests served by the twins of several engines on one storage, as ordinary runs.

Every run is an MPI job of its own. Runs stand in the order of a randomised block design: each repeat holds every twin
once, shuffled anew, and begins with what the storage gives at most. The load has to end by itself, so that each twin
serves the same requests: what they were is in each run file, and `kvbench_analysis` refuses to compare others. A twin
of an engine that keeps files goes to a directory, one of an engine that keeps objects to a bucket.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from kvbench.config.engines import Twin, read_engine, shipped_engines
from kvbench.config.load import load_config
from kvbench.errors import KvbenchError
from kvbench.records.outputs import Kind, check_output
from kvbench.run.order import Order
from kvbench.studies.bucket_limit import measure_bucket_limit
from kvbench.studies.jobs import refuse_inside_a_job, run_files, run_job
from kvbench.studies.limit import Limit, measure_limit
from kvbench.tiers.kinds import kind_at, target_at
from kvbench.tiers.object.target import BucketTarget

TABLE: Final = Kind("the table of a study of engines", (b"engine,package,version,",))
"""What the runs' figures are kept in (`engines_table`)."""


@dataclass(frozen=True, slots=True)
class EngineChoices:
    """What a study of engines is to run."""

    source: str
    """Path or name of the configuration."""
    overrides: tuple[str, ...]
    place: str
    """A directory, or an address in a bucket."""
    engines: tuple[str, ...]
    ranks: int
    repeats: int
    seed: int
    """Of the order; the workload has its own."""
    out: Path
    """The table; the run files go to a directory beside it."""
    overwrite: bool


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One run of the study."""

    twin: Twin
    engine: str
    """As it was named: shipped, or a file."""
    repeat: int

    @property
    def name(self) -> str:
        """Of its run file."""
        return f"{self.twin.name}-{self.repeat}"


def engines_for(place: str) -> tuple[list[str], list[str]]:
    """The twins that come with kvbench whose engines keep their blocks at a place such as this, and the others."""
    kind = kind_at(place)
    names = shipped_engines()
    going = [name for name in names if read_engine(name)[1].tier == kind]
    return going, [name for name in names if name not in going]


def check_place(choices: EngineChoices) -> None:
    """Raise KvbenchError where a twin cannot go to the place under test, or that cannot be used."""
    kind = kind_at(choices.place)
    astray = [name for name in choices.engines if read_engine(name)[1].tier != kind]
    if astray:
        keep = "keeps its blocks" if len(astray) == 1 else "keep their blocks"
        there, other = ("a directory", "objects") if kind == "file" else ("a bucket", "files")
        raise KvbenchError(
            f"--engines: {', '.join(astray)} {keep} in {other}, and {choices.place} is {there}; of the twins that come "
            f"with kvbench there go {', '.join(engines_for(choices.place)[0])}"
        )
    target_at(choices.place).check()


def plan_runs(choices: EngineChoices) -> list[EngineRun]:
    """All runs in their order; the same for the same seed. Raises KvbenchError where a twin cannot serve the load, or
    the load has no end of its own."""
    block: list[EngineRun] = []
    for engine in choices.engines:
        config = load_config(choices.source, choices.overrides, engine)
        if config.duration_s is not None:
            raise KvbenchError(
                f"{choices.source}: engines are compared by the same requests, so the load has to end by itself: "
                "set duration_s=null (and workload.span_s, for sessions)"
            )
        if config.records != "full":
            raise KvbenchError(f"{choices.source}: how long each load took is in every row: set records=full")
        if config.pacing.most_requests is None and config.compute is None:
            raise KvbenchError(
                f"{choices.source}: engines have other numbers of threads, and are to have as many requests under way: "
                "set pacing.most_requests"
            )
        twin, _ = read_engine(engine)
        if any(run.twin.name == twin.name for run in block):
            raise KvbenchError(f"--engines: {twin.name} stands there twice")
        block.append(EngineRun(twin, engine, 0))
    rng = np.random.Generator(np.random.PCG64(choices.seed))
    return [
        EngineRun(block[place].twin, block[place].engine, repeat)
        for repeat in range(choices.repeats)
        for place in rng.permutation(len(block))
    ]


def run_engines(choices: EngineChoices, record: Callable[[EngineRun, Path, Limit], str], console: Console) -> None:
    """Carry out all runs. After each, `record` is called with it, its file, and what the storage gave at most in its
    repeat; it keeps the table, and returns what to print of the run.

    Raises KvbenchError when a run fails or is interrupted; the table then holds those before.
    """
    refuse_inside_a_job("kvbench study engines", "--ranks")
    check_output(choices.out, TABLE, replace=choices.overwrite, inputs=[choices.source])
    check_place(choices)
    runs = plan_runs(choices)
    with run_files(choices.out, [run.name for run in runs], replace=choices.overwrite) as paths:
        _carry_out(choices, list(zip(runs, paths, strict=True)), record, console)


def _carry_out(
    choices: EngineChoices,
    runs: Sequence[tuple[EngineRun, Path]],
    record: Callable[[EngineRun, Path, Limit], str],
    console: Console,
) -> None:
    limit = Limit(0.0, direct=False)
    for number, (run, path) in enumerate(runs):
        if number % len(choices.engines) == 0:
            limit = _limit_of(choices.place)
        order = Order(
            source=choices.source,
            directory=choices.place,
            out=path,
            overrides=choices.overrides,
            engine=run.engine,
            overwrite=True,
        )
        run_job(order, choices.ranks, None, number, choices.out)
        console.print(
            f"run {number + 1} of {len(runs)}: {run.twin.text}: {record(run, path, limit)}",
            soft_wrap=True,
            highlight=False,
        )


def _limit_of(place: str) -> Limit:
    target = target_at(place)
    return measure_bucket_limit(target) if isinstance(target, BucketTarget) else measure_limit(Path(place))
