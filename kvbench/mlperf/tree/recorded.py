"""What a run says about itself, by one set of names, whichever tool wrote it.

kvbench records a sequence in kvbench_sequence.json; the reference tool records the arguments of its command in a
metadata file, without the values of each option. What is not recorded is MISSING, and never guessed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kvbench.mlperf.tree.numbers import BadNumber, Number, Section, all_bad, always
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

MOST_RANKS: Final = 1_000_000
MOST_TRIALS: Final = 1_000
"""What a broken file claims is not counted up to."""

_ARGUMENTS: Final = {
    "seed": ("seed",),
    "trials": ("trials",),
    "delay_between_options_s": ("inter_option_delay",),
    "config_file": ("config", "config_file"),
    "autoscaling": ("enable_autoscaling",),
    "cache_directory": ("cache_dir",),
    "results_directory": ("results_dir",),
    "hosts": ("hosts",),
    "npernode": ("npernode",),
    "total_ranks": ("num_processes",),
    "system": ("systemname", "system_name"),
}
"""Our name: the reference tool's, which stand in its metadata at the top, below `args` or below `parameters`."""

_CLIENTS: Final = ("kvcacheClientDefinition",)
_LOCKS: Final = ("kvcacheClosedSequenceLocks",)
_WORKLOAD: Final = ("kvcacheFixedWorkloadPerOption", "kvcacheOpenAllowances")
_TRIALS: Final = ("kvcacheClosedSequenceLocks", "kvcacheSharedResultsDir")
_SAME: Final = ("identicalSystemConfig",)


def _not_carried_out(trial: Any) -> bool:
    return bool(dig(trial, "status") != "complete")


SEQUENCE: Final[Mapping[str, Number]] = {
    "npernode": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS),
    "total_ranks": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS),
    "seed": Number(_LOCKS, whole=True, absent=always),
    "delay_between_options_s": Number(_LOCKS, absent=always),
}
"""The numbers of a sequence; in its options, in their trials, and of its nodes:"""
OPTION: Final[Mapping[str, Number]] = {
    "option": Number(_WORKLOAD, whole=True),
    "settings.users": Number(_WORKLOAD, whole=True, positive=True),
    "settings.duration_s": Number(_WORKLOAD, positive=True),
    "settings.gpu_gb": Number(_WORKLOAD),
    "settings.cpu_gb": Number(_WORKLOAD),
    "settings.max_concurrent_allocs": Number(_WORKLOAD, whole=True, positive=True),
}
TRIAL: Final[Mapping[str, Number]] = {
    "trial": Number(_TRIALS, whole=True),
    "delay_before_s": Number(_LOCKS, absent=_not_carried_out),
}
NODE: Final[Mapping[str, Number]] = {
    "cpus": Number(_SAME, whole=True, positive=True),
    "memory_bytes": Number(_SAME, whole=True, positive=True),
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `run` records."""

    run: Run

    def __getitem__(self, name: str) -> Any:
        """A value of the whole sequence; MISSING where nobody wrote it down."""
        if self.run.sequence.readable:
            return dig(self.run.sequence.content, name)
        for theirs in _ARGUMENTS.get(name, ()):
            for above in (("args",), ("parameters",), ()):
                value = dig(self.run.metadata.content, *above, theirs)
                if value is not MISSING:
                    return value
        return MISSING

    def number(self, name: str) -> float | None:
        """A number of SEQUENCE; None where it is bad (then it is among `bad`) or nobody wrote it down."""
        return SEQUENCE[name].read(self[name])

    @property
    def ours(self) -> bool:
        """Whether kvbench made the run, as far as it says so."""
        return self.run.sequence.readable

    @property
    def rehearsal(self) -> bool:
        """Whether the run says that it is a rehearsal; anything but a plain `false` counts as one."""
        return self.ours and self["rehearsal"] is not False

    @property
    def absence(self) -> str:
        """Why a value is not recorded, in words: `not recorded (kvbench_sequence.json: no valid JSON in line 3)`."""
        sequence = self.run.sequence
        if sequence.problem == "no such file":
            return "not recorded"
        return f"not recorded ({sequence.path.name}: {sequence.problem or 'it does not say'})"

    def options(self) -> dict[int, Section]:
        """What the sequence says of each option, by its number."""
        return _by_number(self._options(), "option")

    def trials(self, option: int) -> dict[int, Section]:
        """What the sequence says of each trial of `option`, by its number."""
        told = self.options().get(option)
        return {} if told is None else _by_number(_trials(told), "trial")

    def nodes(self) -> list[Section]:
        """What the sequence says of each node."""
        return [Section(node, NODE, f" of {shown(dig(node, 'host'))}") for node in items(self["nodes"])]

    def bad(self) -> Iterator[BadNumber]:
        """The numbers that are none."""
        if not self.ours:
            for name, kind in SEQUENCE.items():
                if (value := self[name]) is not MISSING and (found := kind.problem(value)) is not None:
                    yield BadNumber(self.run.metadata.path, f"{name} {found}", kind.wanted, kind.rules)
            return
        options = self._options()
        trials = [trial for option in options for trial in _trials(option)]
        whole = Section(self.run.sequence.content, SEQUENCE)
        yield from all_bad(self.run.sequence.path, [whole, *options, *trials, *self.nodes()])

    def _options(self) -> list[Section]:
        return [Section(told, OPTION, f" of option {shown(dig(told, 'option'))}") for told in items(self["options"])]


def _trials(option: Section) -> list[Section]:
    return [
        Section(told, TRIAL, f" of trial {shown(dig(told, 'trial'))}{option.of}") for told in items(option["trials"])
    ]


def _by_number(sections: list[Section], key: str) -> dict[int, Section]:
    """`sections` by the number at `key`, the first of several; those without one are among the bad numbers."""
    found: dict[int, Section] = {}
    for section in sections:
        if (number := section.count(key)) is not None:
            found.setdefault(number, section)
    return found
