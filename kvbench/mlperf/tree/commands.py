"""A command that another tool recorded: the launcher's words, and the settings of the benchmark behind them.

Nothing is run, and nothing expanded: words are split as a shell would, and that is all.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

WRAPPER: Final = "mlperf_wrapper.py"
"""The program of a rank; what stands behind it are its settings."""
NOT_NAMED: Final = "(not named)"
"""A library of LD_PRELOAD that is taken from the environment of whoever ran the command."""

_PLACE: Final = re.compile(r"(?:^|/)option_(\d{1,9})/trial_(\d{1,9})/?", re.ASCII)
_ASSIGNED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_RANKS: Final = ("-n", "-np", "--np", "--n", "--ntasks")
_NPERNODE: Final = ("--npernode", "-npernode", "-N", "-ppn", "--ppn", "--ntasks-per-node")
_HOSTS: Final = ("-host", "--host", "-H", "-hosts", "--hosts", "--nodelist", "-w")
_EXPORT: Final = ("-x",)
_SET: Final = ("-genv", "--genv", "-env", "--env")


@dataclass(frozen=True)
class Command:
    """One launch of all clients: a trial of an option, where it says of which."""

    text: str
    launcher: tuple[str, ...]
    """The words up to the program of a rank, which is the last; all of them where there is no such program."""
    settings: Mapping[str, str | bool]
    """What it was told, by name without dashes: `--num-users 200` is num-users; a flag alone is True."""
    option: int | None
    trial: int | None
    problem: str = ""
    """Why the text could not be split into words; "" where it could."""

    @cached_property
    def environment(self) -> dict[str, str | None]:
        """Variables that the launcher passes on, with their values; None where only the name is given."""
        found: dict[str, str | None] = {}
        words = self.launcher
        for place, word in enumerate(words):
            after = words[place + 1] if place + 1 < len(words) else ""
            if word in _EXPORT and "=" not in after:
                found[after] = None
            elif word in _SET and place + 2 < len(words):
                found[after] = words[place + 2]
            # A list of them, separated by semicolons, is one word of Open MPI's mca_base_env_list.
            for part in word.removeprefix("--export=").split(";"):
                if match := _ASSIGNED.fullmatch(part):
                    found[match[1]] = match[2]
        return found

    @cached_property
    def preloaded(self) -> tuple[str, ...]:
        """The libraries of LD_PRELOAD, in their order; none without it."""
        if "LD_PRELOAD" not in self.environment:
            return ()
        value = self.environment["LD_PRELOAD"]
        return (NOT_NAMED,) if value is None else tuple(re.split(r"[:\s]+", value.strip(": \t\n")))

    @property
    def ranks(self) -> int | None:
        """How many clients it starts; None where it does not say."""
        return _whole(_value(self.launcher, _RANKS))

    @property
    def npernode(self) -> int | None:
        """How many of them on each host; None where it does not say."""
        return _whole(_value(self.launcher, _NPERNODE))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts, without the numbers of slots; none where it does not say."""
        return tuple(name.partition(":")[0] for name in (_value(self.launcher, _HOSTS) or "").split(",") if name)

    def text_of(self, name: str) -> str | None:
        """The value of a setting; None where it is not set, or is a flag."""
        value = self.settings.get(name)
        return value if isinstance(value, str) else None


def read_command(text: str) -> Command:
    """The command that `text` is."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        return Command(text, (), {}, None, None, str(error))
    program = next((place for place, word in enumerate(words) if word.endswith(WRAPPER)), len(words))
    settings = _settings(words[program + 1 :])
    place = settings.get("rank-output-base")
    match = _PLACE.search(place) if isinstance(place, str) else None
    option, trial = (int(match[1]), int(match[2])) if match else (None, None)
    return Command(text, tuple(words[: program + 1]), settings, option, trial)


def _settings(words: Sequence[str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("--") or len(word) == 2:
            continue
        name, equals, value = word[2:].partition("=")
        if equals:
            found[name] = value
        elif place < len(words) and not words[place].startswith("--"):
            found[name] = words[place]
            place += 1
        else:
            found[name] = True
    return found


def _value(words: Sequence[str], names: Sequence[str]) -> str | None:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names and equals:
            return value
        if word in names and place + 1 < len(words):
            return words[place + 1]
    return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 9 else None
