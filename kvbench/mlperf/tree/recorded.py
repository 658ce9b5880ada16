"""What a run says about itself, by one set of names, whichever tool wrote it.

kvbench records a sequence in kvbench_sequence.json. Of the reference tool's runs the commands say what ran, which it
keeps in a metadata file beside its arguments; most of those are defaults that nobody used, and are not asked for. What
is not recorded is MISSING, and never guessed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.tree.commands import Command
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
    "cache_directory": ("cache_dir",),
    "results_directory": ("results_dir",),
    "hosts": ("hosts",),
    "total_ranks": ("num_processes",),
    "system": ("systemname",),
}
"""Our name: the reference tool's, in the `args` of its metadata."""
_SEQUENCE: Final = {
    "seed": "seed",
    "trials": "trials",
    "delay_between_options_s": "inter_option_delay_s",
    "config_file": "config",
}
"""Likewise in `parameters.sequence`."""
_SETTINGS: Final = {
    "model": "model",
    "users": "num-users",
    "duration_s": "duration",
    "gpu_gb": "gpu-mem-gb",
    "cpu_gb": "cpu-mem-gb",
    "max_concurrent_allocs": "max-concurrent-allocs",
    "generation": "generation-mode",
}
"""A row of the option table: the reference tool's settings, in a command; in `parameters.options` with underscores."""
SETTINGS_OF_THE_WRAPPER: Final = frozenset(
    {*_SETTINGS.values(), "rank-output-base", "rank-cache-base", "seed-base", "config"}
)
"""What a command of closed may set."""
_DEFAULT_CONFIG: Final = "kv_cache_benchmark/config.yaml"
"""The file that the reference tool takes where none is given, and names in every command."""
AUTOSCALING: Final = "enable-autoscaling"
_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_LONGEST_NUMBER: Final = 40

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
class Claim:
    """One statement of a value; a run can make several, which need not agree."""

    value: Any
    of: str = ""
    """What it is about or where in the file it stands, for messages: ` in the command of option 1, trial 0`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `run` records."""

    run: Run

    def __getitem__(self, name: str) -> Any:
        """A value of the whole sequence, as it is first claimed; MISSING where nobody wrote it down."""
        return next((claim.value for claim in self.claims(name)), MISSING)

    def number(self, name: str) -> float | None:
        """A number of SEQUENCE; None where it is bad (then it is among `bad`) or nobody wrote it down."""
        return SEQUENCE[name].read(self[name])

    def claims(self, name: str) -> list[Claim]:
        """All that is said of a value. Another tool's commands come first: they are what ran."""
        if self.ours:
            value = dig(self.run.sequence.content, name)
            return [] if value is MISSING else [Claim(value)]
        metadata = self.run.metadata
        found = [
            Claim(value, _of(command))
            for command in metadata.commands
            if (value := _in_command(command, name)) is not MISSING
        ]
        for theirs in _ARGUMENTS.get(name, ()):
            if (value := metadata.argument(theirs)) is not MISSING:
                found.append(Claim(value, f" in args.{theirs}"))
            elif name == "config_file" and dig(metadata.document.content, "args", theirs) is None:
                # The one argument of which null says something: that no file was given.
                found.append(Claim(None, f" in args.{theirs}"))
        if name in _SEQUENCE and (value := dig(metadata.sequence, _SEQUENCE[name])) is not MISSING:
            value = None if name == "config_file" and value == "default" else value
            found.append(Claim(value, f" in parameters.sequence.{_SEQUENCE[name]}"))
        if name == "autoscaling" and isinstance(metadata.features, dict):
            value = metadata.features.get(AUTOSCALING.replace("-", "_"), False)
            found.append(Claim(value, " in parameters.features"))
        return found

    @property
    def ours(self) -> bool:
        """Whether kvbench made the run, as far as it says so."""
        return self.run.sequence.readable

    @property
    def where(self) -> Path:
        """The file in which the run says these things, or its directory where it says nothing."""
        if self.run.sequence.exists:
            return self.run.sequence.path
        return self.run.metadata.document.path

    @property
    def rehearsal(self) -> bool:
        """Whether the run says that it is a rehearsal; anything but a plain `false` counts as one."""
        return self.ours and self["rehearsal"] is not False

    @property
    def absence(self) -> str:
        """Why a value is not recorded, in words: `not recorded (kvbench_sequence.json: no valid JSON in line 3)`."""
        for document in (self.run.sequence, self.run.metadata.document):
            if document.exists:
                return f"not recorded ({document.path.name}: {document.problem or 'it does not say'})"
        return "not recorded"

    def options(self) -> dict[int, Section]:
        """What is said of each option, by its number; where it is said several times, the first."""
        return _by_number(self.settings(), "option")

    def settings(self) -> list[Section]:
        """All that is said of options: by the sequence; by each command of another tool, and by its parameters."""
        if self.ours:
            return self._options()
        metadata = self.run.metadata
        told = [
            Section(_row(command.option, command.settings), OPTION, _of(command))
            for command in metadata.commands
            if command.option is not None
        ]
        for option, values in metadata.options.items():
            renamed = (
                {name.replace("_", "-"): value for name, value in values.items()} if isinstance(values, dict) else {}
            )
            told.append(Section(_row(option, renamed), OPTION, f" in parameters.options.{option}"))
        return told

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
                for claim in self.claims(name):
                    if (found := kind.problem(claim.value)) is not None:
                        yield BadNumber(self.where, f"{name} {found}{claim.of}", kind.wanted, kind.rules)
            yield from all_bad(self.where, self.settings())
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


def _of(command: Command) -> str:
    if command.option is None:
        return " in a command"
    return f" in the command of option {command.option}, trial {command.trial}"


def _in_command(command: Command, name: str) -> Any:
    """A value as a command says it; MISSING where it does not."""
    read = _OF_A_COMMAND.get(name)
    return MISSING if read is None else read(command)


def _autoscaling(command: Command) -> Any:
    return command.settings.get(AUTOSCALING, False) if command.settings else MISSING


def _config_file(command: Command) -> Any:
    """None for the file that comes with the tool, which is as good as none."""
    path = command.settings.get("config")
    if path is None:
        return None if command.settings else MISSING
    return None if isinstance(path, str) and f"/{path}".endswith(f"/{_DEFAULT_CONFIG}") else path


_OF_A_COMMAND: Final[Mapping[str, Callable[[Command], Any]]] = {
    "npernode": lambda command: _or_missing(command.npernode),
    "total_ranks": lambda command: _or_missing(command.ranks),
    "autoscaling": _autoscaling,
    "seed": lambda command: _as_number(command.settings.get("seed-base", MISSING)),
    "config_file": _config_file,
    "cache_directory": lambda command: command.settings.get("rank-cache-base", MISSING),
    "results_directory": lambda command: command.settings.get("rank-output-base", MISSING),
}
"""What a command says of a sequence, by our names."""


def _row(option: int | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An option as a sequence of kvbench writes it down."""
    told = {
        name: value if name in ("model", "generation") else _as_number(value)
        for name, theirs in _SETTINGS.items()
        if (value := settings.get(theirs, MISSING)) is not MISSING
    }
    return {"option": option, "settings": told}


def _as_number(value: Any) -> Any:
    """The number that a word of a command is; whatever else it is, as it is."""
    if not isinstance(value, str) or len(value) > _LONGEST_NUMBER or not _NUMBER.fullmatch(value):
        return value
    return float(value) if set(value) & set(".eE") else int(value)


def _or_missing(value: int | None) -> Any:
    return MISSING if value is None else value


def _by_number(sections: list[Section], key: str) -> dict[int, Section]:
    """`sections` by the number at `key`, the first of several; those without one are among the bad numbers."""
    found: dict[int, Section] = {}
    for section in sections:
        if (number := section.count(key)) is not None:
            found.setdefault(number, section)
    return found
