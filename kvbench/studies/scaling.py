"""The scaling study: the same workload on more and more ranks and nodes, as ordinary runs one after the other.

Every run is an MPI job of its own, so that none inherits another's memory, and a job that fails takes nothing with it.
Weak scaling keeps the users of a rank, strong scaling the users of all ranks together: those of the largest run. Runs
stand in the order of a randomised block design: each repeat holds every run once, shuffled anew, so that drift falls on
all alike. This module starts the runs and keeps their figures in a table; `kvbench_analysis` fits them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np
from rich.console import Console

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.records.outputs import Kind, check_output
from kvbench.run.order import Order
from kvbench.studies.jobs import refuse_inside_a_job, run_files, run_job

Scaling = Literal["weak", "strong"]
TABLE: Final = Kind("the table of a scaling study", (b"scaling,nodes,ranks_per_node,",))
"""What the runs' figures are kept in (`scaling_table`)."""
BOTH: Final[tuple[Scaling, ...]] = ("weak", "strong")


@dataclass(frozen=True, slots=True)
class ScalingChoices:
    """What a scaling study is to run."""

    source: str
    """Path or name of the configuration."""
    overrides: tuple[str, ...]
    directory: Path
    ranks: tuple[int, ...]
    """Ranks of each node."""
    hosts: tuple[str, ...]
    """One for each node; empty for this one alone."""
    nodes: tuple[int, ...]
    scalings: tuple[Scaling, ...]
    repeats: int
    seconds: float | None
    """Of each run; None for the configuration's."""
    seed: int
    """Of the order; the workload has its own."""
    out: Path
    """The table; the run files go to a directory beside it."""
    overwrite: bool


@dataclass(frozen=True, slots=True)
class ScalingRun:
    """One run of the study."""

    scaling: Scaling
    ranks_per_node: int
    nodes: int
    users_per_rank: int
    """0 for a trace, which has none."""
    repeat: int
    overrides: tuple[str, ...]

    @property
    def ranks(self) -> int:
        return self.ranks_per_node * self.nodes

    @property
    def name(self) -> str:
        """Of its run file."""
        return f"{self.scaling}-{self.nodes}x{self.ranks_per_node}-{self.repeat}"


def node_counts(hosts: int) -> tuple[int, ...]:
    """1 to all of them; of many, powers of two and all."""
    if hosts <= 4:
        return tuple(range(1, max(hosts, 1) + 1))
    return tuple(sorted({hosts, *(2**power for power in range(hosts.bit_length()))}))


def plan_runs(choices: ScalingChoices, config: RunConfig) -> list[ScalingRun]:
    """All runs in their order; the same for the same seed. Raises KvbenchError where the workload cannot be divided."""
    trace = isinstance(config.workload, TraceWorkload)
    if trace and "weak" in choices.scalings:
        raise KvbenchError(
            "a trace is dealt to the ranks, each request once, so it cannot grow with them: give --strong alone"
        )
    largest = max(choices.ranks) * max(choices.nodes)
    rng = np.random.Generator(np.random.PCG64(choices.seed))
    runs = []
    for repeat in range(choices.repeats):
        block = [
            _run(choices, config, scaling, ranks, nodes, Fraction(largest, ranks * nodes), repeat)
            for scaling, nodes, ranks in product(choices.scalings, choices.nodes, choices.ranks)
        ]
        runs += [block[place] for place in rng.permutation(len(block))]
    return runs


def _run(
    choices: ScalingChoices,
    config: RunConfig,
    scaling: Scaling,
    ranks: int,
    nodes: int,
    share: Fraction,
    repeat: int,
) -> ScalingRun:
    """`share`: how many times as much a rank has to do as in the largest run, when the whole stays the same."""
    overrides = list(choices.overrides)
    if choices.seconds is not None:
        overrides.append(f"duration_s={choices.seconds}")
    workload = config.workload
    if isinstance(workload, TraceWorkload):
        return ScalingRun(scaling, ranks, nodes, 0, repeat, tuple(overrides))
    users = Fraction(workload.users)
    if scaling == "strong":
        users *= share
        if config.pacing.requests_per_s is not None:
            overrides.append(f"pacing.requests_per_s={config.pacing.requests_per_s * float(share)!r}")
    if users.denominator != 1:
        raise KvbenchError(
            f"strong scaling: {workload.users} users a rank in the largest run cannot be divided among "
            f"{ranks * nodes} ranks; set workload.users to a multiple of {users.denominator} with --set, or choose "
            "other numbers of ranks"
        )
    overrides.append(f"workload.users={users.numerator}")
    return ScalingRun(scaling, ranks, nodes, users.numerator, repeat, tuple(overrides))


def run_scaling(
    choices: ScalingChoices, record: Callable[[Sequence[tuple[ScalingRun, Path]]], str], console: Console
) -> None:
    """Carry out all runs. After each, `record` is called with those that are complete and their files; it keeps the
    table, and returns what to print of the last one.

    Raises KvbenchError when a run fails or is interrupted; the table then holds those before.
    """
    refuse_inside_a_job("kvbench study scaling", "--hosts for other nodes")
    check_output(choices.out, TABLE, replace=choices.overwrite, inputs=[choices.source])
    config = load_config(choices.source, choices.overrides)
    runs = plan_runs(choices, config)
    done: list[tuple[ScalingRun, Path]] = []
    with run_files(choices.out, [run.name for run in runs], replace=choices.overwrite) as paths:
        for run, path in zip(runs, paths, strict=True):
            order = Order(
                source=choices.source,
                directory=str(choices.directory.absolute()),
                out=path,
                overrides=run.overrides,
                overwrite=True,
            )
            hosts = ",".join(f"{host}:{run.ranks_per_node}" for host in choices.hosts[: run.nodes])
            run_job(order, run.ranks, hosts, len(done), choices.out)
            done.append((run, path))
            figures = record(done)
            console.print(
                f"run {len(done)} of {len(runs)}: {run.scaling}, {run.nodes} x {run.ranks_per_node} ranks: {figures}",
                soft_wrap=True,
                highlight=False,
            )
