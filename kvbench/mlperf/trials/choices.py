"""What `kvbench mlperf run` was asked for, and what the closed division refuses of it: every refusal names its rule.

The numbers of the options stand in configs/mlperf/option-{1,2,3}.yaml alone; those that lock the sequence stand with
the rule that does.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError
from kvbench.mlperf.option_table import OPTIONS
from kvbench.mlperf.rules.workload import DELAY_S, TRIALS
from kvbench.run.addresses import has_placeholders

Division = Literal["closed", "open"]

_OPTION_TABLE: Final = ("model", "workload", "tiers", "io.max_concurrent_allocs", "duration_s", "pacing", "cache")
"""Keys of a configuration that the option table fixes, with all below them."""

_TABLE_RULE: Final = "6.3.1.1 kvcacheFixedWorkloadPerOption"
_LOCKS_RULE: Final = "6.3.2.1 kvcacheClosedSequenceLocks"
_IMMUTABLE_RULE: Final = "6.6.1 kvcacheClosedImmutable"

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Choices:
    """The sequence that was asked for."""

    division: Division
    system: str
    submitter: str
    cache: Path
    """Directory under test."""
    results: Path
    options: tuple[int, ...] = OPTIONS
    trials: int = TRIALS
    delay_s: int = DELAY_S
    trial_seconds: float | None = None
    rehearsal: bool = False
    changes: tuple[str, ...] = ()
    """KEY=VALUE for the configuration of every option."""
    invocation: tuple[str, ...] = ()
    """The command line."""

    def overrides(self) -> tuple[str, ...]:
        """What is changed in every option's preset."""
        shortened = () if self.trial_seconds is None else (f"duration_s={self.trial_seconds!r}",)
        return (*self.changes, *shortened)

    def config(self, option: int) -> RunConfig:
        """The configuration of an option. Raises KvbenchError for a change that is no configuration."""
        return load_config(preset_name(option), self.overrides())


def preset_name(option: int) -> str:
    """The shipped configuration of an option."""
    return f"mlperf/option-{option}"


def check_choices(choices: Choices) -> None:
    """Raise KvbenchError naming everything that may not be, with the rules that forbid it."""
    for what, name in (("--system", choices.system), ("--submitter", choices.submitter)):
        if not _NAME.fullmatch(name):
            fitting = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "NAME"
            raise KvbenchError(
                f"{what} {name!r} names a directory of the submission, of letters, digits, `.`, `_` and `-` (rule "
                f"2.1.1 submitterRootDirectory): use {fitting}"
            )
    if has_placeholders(str(choices.cache)):
        raise KvbenchError(
            f"--dir {choices.cache}: all clients have one cache directory (rule 6.4.1 kvcachePosixCacheDir); a "
            "directory for each is for kvbench run"
        )
    refused = list(_refusals(choices))
    if refused:
        raise KvbenchError(
            "the closed division allows no other setting:\n"
            + "\n".join(f"  {what}: rule {rule}" for what, rule in refused)
            + "\nLeave it out, or run in the open division (--division open)"
        )
    for option in choices.options:
        choices.config(option)


def _refusals(choices: Choices) -> Iterator[tuple[str, str]]:
    if choices.division != "closed":
        return
    for change in choices.changes:
        yield f"--set {change}", _rule_of(change.partition("=")[0])
    if choices.trials != TRIALS:
        yield f"--trials {choices.trials}, not {TRIALS}", _LOCKS_RULE
    if choices.rehearsal:
        return
    if choices.trial_seconds is not None:
        yield f"--trial-seconds {choices.trial_seconds:g} without --rehearsal", _TABLE_RULE
    if choices.options != OPTIONS:
        asked = " ".join(f"--option {option}" for option in choices.options)
        yield f"{asked} without --rehearsal: a submission has all three options", _TABLE_RULE
    if choices.delay_s != DELAY_S:
        yield f"--delay {choices.delay_s}, not {DELAY_S}, without --rehearsal", _LOCKS_RULE


def _rule_of(key: str) -> str:
    if key == "seed":
        return _LOCKS_RULE
    fixed = any(key == name or key.startswith(f"{name}.") for name in _OPTION_TABLE)
    return _TABLE_RULE if fixed else _IMMUTABLE_RULE


def duration_s(config: RunConfig) -> float:
    """Seconds of one trial."""
    assert config.duration_s is not None, "the reference workload has no end of its own"
    return config.warmup_s + config.duration_s
