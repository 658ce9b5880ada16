"""kvbench_sequence.json: what was asked for, where, and what has become of each trial. Rank 0 alone has it.

The file is written anew, through a temporary name, whenever something changes, so that a sequence that ended early
can be gone on with: a complete trial is never carried out again. A trial that was running when its job ended without a
word, as when a node is lost, is `lost`. Times in the file are UTC; those in names are local, as the rules have them.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import kvbench
from kvbench.cluster.comm import mpi_version
from kvbench.errors import KvbenchError
from kvbench.mlperf.option_table import settings_of
from kvbench.mlperf.tree.parts import SEQUENCE_NAME, WORKLOAD
from kvbench.mlperf.trials.choices import Choices
from kvbench.mlperf.trials.surroundings import git_sha
from kvbench.records.outputs import JSON, check_output, write_output

FORMAT: Final = "kvbench-mlperf-sequence"
VERSION: Final = 1

_POLL_S: Final = 0.05
_OF_AN_ATTEMPT: Final = ("status", "started_at", "ended_at", "run_id", "message")

COMMAND: Final = "run"
"""The directory between that of the model and those of the sequences."""
_OWN_MODEL: Final = "custom"
"""The directory of a geometry without a name, in open."""

_IDENTITY: Final = (
    "division",
    "submitter",
    "system",
    "rehearsal",
    "npernode",
    "total_ranks",
    "seed",
    "delay_between_options_s",
    "cache_directory",
    "kvbench_version",
    "git_sha",
)
"""Two sequences that differ in one of these, or in an option's settings, are not the same."""


@dataclass(frozen=True, slots=True)
class TrialStep:
    """One trial that is to be carried out."""

    option: int
    trial: int
    trials: int
    delay_s: float
    """To wait before it."""
    seconds: float
    """Its duration."""
    repeated: bool
    """It comes after an end that was not the sequence's: not in the rhythm of the others."""


class TrialSequence:
    """One sequence and the directory that its results are in."""

    def __init__(self, directory: Path, content: dict[str, Any]) -> None:
        self.directory = directory
        self.content = content

    @property
    def stamp(self) -> str:
        """When it was begun: the name of its directory."""
        return self.directory.name

    @property
    def options(self) -> tuple[int, ...]:
        """The options that it has."""
        return tuple(option["option"] for option in self.content["options"])

    def option(self, option: int) -> dict[str, Any]:
        """What stands of an option."""
        found: dict[str, Any] = next(entry for entry in self.content["options"] if entry["option"] == option)
        return found

    def trial(self, option: int, trial: int) -> dict[str, Any]:
        """What stands of a trial."""
        found: dict[str, Any] = next(entry for entry in self.option(option)["trials"] if entry["trial"] == trial)
        return found

    def trial_directory(self, option: int, trial: int) -> Path:
        """Where the results of a complete trial are."""
        return self.directory / f"option_{option}" / f"trial_{trial}"

    def unfinished_directory(self, option: int, trial: int) -> Path:
        """Where they are until it is complete."""
        return self.directory / f"option_{option}" / f".trial_{trial}.unfinished"

    @property
    def complete(self) -> bool:
        """Whether every trial is."""
        return all(trial["status"] == "complete" for trial in self.trials())

    def steps(self) -> list[TrialStep]:
        """The trials that are not complete, in their order."""
        steps: list[TrialStep] = []
        before: int | None = None
        ended_at: str | None = None
        resumed = any(trial["status"] != "pending" for trial in self.trials())
        for option in self.content["options"]:
            for trial in option["trials"]:
                if trial["status"] == "complete":
                    before, ended_at = option["option"], trial["ended_at"]
                    continue
                next_option = before is not None and before != option["option"]
                delay_s = float(self.content["delay_between_options_s" if next_option else "delay_between_trials_s"])
                if before is None:
                    delay_s = 0.0
                elif not steps and ended_at is not None:
                    # What of the delay has gone by since the sequence ended early.
                    delay_s = min(delay_s, max(0.0, delay_s - _seconds_since(ended_at)))
                steps.append(
                    TrialStep(
                        option["option"],
                        trial["trial"],
                        len(option["trials"]),
                        delay_s,
                        option["settings"]["duration_s"],
                        repeated=not steps and resumed,
                    )
                )
                before = option["option"]
        return steps

    def begin_trial(self, option: int, trial: int, **values: Any) -> None:
        """Note that a trial runs from now on; what became of it before is kept as an attempt. Raises KvbenchError."""
        told = self.trial(option, trial)
        if told["status"] != "pending":
            attempt = {name: told.pop(name, None) for name in _OF_AN_ATTEMPT}
            told.setdefault("earlier_attempts", []).append(attempt)
        self.update(option, trial, status="running", started_at=now(), ended_at=None, **values)

    def note_lost(self) -> list[str]:
        """Mark what was running when its job ended without a word as lost; the runs of all lost trials."""
        for trial in self.trials():
            if trial["status"] == "running":
                trial |= {"status": "lost", "message": "the job ended without a word, as when a node is lost"}
        return [trial["run_id"] for trial in self.trials() if trial["status"] == "lost" and trial.get("run_id")]

    def failures(self) -> dict[str, str]:
        """What went wrong with the trials that are neither complete nor still to come, by `option_O/trial_T`."""
        return {
            f"option_{option['option']}/trial_{trial['trial']}": f"{trial['status']}: {trial.get('message') or ''}"
            for option in self.content["options"]
            for trial in option["trials"]
            if trial["status"] not in ("pending", "running", "complete")
        }

    def update(self, option: int, trial: int, **values: Any) -> None:
        """Change what stands of a trial, in the file as well. Raises KvbenchError."""
        self.trial(option, trial).update(values)
        self.save()

    def save(self) -> None:
        """Write the file. Raises KvbenchError."""
        write_json(self.directory / SEQUENCE_NAME, self.content)

    def unlike(self, other: "TrialSequence") -> list[str]:
        """What `other` asks for otherwise, in words; nothing: one goes on with it."""
        found = [
            f"{key} is {other.content[key]!r}, was {self.content[key]!r}"
            for key in _IDENTITY
            if self.content[key] != other.content[key]
        ]
        settings = [[entry["config"] for entry in each.content["options"]] for each in (self, other)]
        if settings[0] != settings[1]:
            found.append("the options or their settings differ")
        return found

    def trials(self) -> Iterator[dict[str, Any]]:
        """What stands of each trial, in order."""
        for option in self.content["options"]:
            yield from option["trials"]


def new_sequence(
    choices: Choices, hosts: Sequence[str], npernode: int, around: Sequence[Mapping[str, Any]]
) -> TrialSequence:
    """The sequence that `choices` ask for; nothing is written yet. `around` is what `surroundings.look_around` gave."""
    configs = {option: choices.config(option) for option in choices.options}
    begun_at = now()
    names = [entry["node"]["host"] for entry in around]
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "division": choices.division,
        "submitter": choices.submitter,
        "system": choices.system,
        "rehearsal": choices.rehearsal,
        "begun_at": begun_at,
        "invocation": list(choices.invocation),
        "changes": list(choices.overrides()),
        "kvbench_version": kvbench.__version__,
        "git_sha": git_sha(),
        "mpi": mpi_version(),
        "npernode": npernode,
        "hosts": list(hosts),
        "total_ranks": npernode * len(hosts),
        "seed": next(iter(configs.values())).seed,
        "options": [
            {
                "option": option,
                "settings": settings_of(config.model_dump(mode="json")).as_dict(),
                "config": config.model_dump(mode="json"),
                "trials": [{"trial": trial, "status": "pending"} for trial in range(choices.trials)],
            }
            for option, config in configs.items()
        ],
        "delay_between_options_s": choices.delay_s,
        "delay_between_trials_s": 0,
        "cache_directory": str(choices.cache.absolute()),
        "results_directory": str(choices.results.absolute()),
        "filesystems": [
            {"host": name, "cache": entry["cache"], "results": entry["results"]}
            for name, entry in zip(names, around, strict=True)
        ],
        "nodes": [entry["node"] for entry in around],
        "page_cache_dropped": all(config.io.drop_page_cache for config in configs.values()),
        "page_cache_dropped_between_trials": None,
        "cache_emptied": None,
        "autoscaling": False,
        "config_file": None,
    }
    model = next(iter(configs.values())).model
    home = choices.results / WORKLOAD / (model if isinstance(model, str) else _OWN_MODEL) / COMMAND
    return TrialSequence(home / local_stamp(begun_at), content)


class Begun(NamedTuple):
    """What is carried out."""

    sequence: TrialSequence
    resumed: bool
    passed_over: str
    """The unfinished one that was begun last, and why that is not gone on with; "": there is none."""


def begin_or_resume(wanted: TrialSequence) -> Begun:
    """An unfinished sequence of the same work beside `wanted`; else `wanted`, with its file. Raises KvbenchError."""
    passed_over = ""
    for path in sorted(wanted.directory.parent.glob(f"*/{SEQUENCE_NAME}"), reverse=True):
        found = read_sequence(path)
        if found.complete:
            continue
        unlike = found.unlike(wanted)
        if not unlike:
            again = {"at": now(), "invocation": wanted.content["invocation"], "hosts": wanted.content["hosts"]}
            changed = (name for name in ("nodes", "filesystems") if wanted.content[name] != found.content[name])
            found.content.setdefault("resumed", []).append(again | {name: wanted.content[name] for name in changed})
            return Begun(found, True, "")
        passed_over = passed_over or f"{found.directory} is not complete, and left as it is: {'; '.join(unlike)}"
    try:
        while wanted.directory.exists():
            # Another was begun in this second.
            time.sleep(_POLL_S)
            wanted.content["begun_at"] = now()
            wanted.directory = wanted.directory.with_name(local_stamp(wanted.content["begun_at"]))
        wanted.directory.mkdir(parents=True)
    except OSError as error:
        raise KvbenchError(f"cannot make {wanted.directory}: {error.strerror}; give another --results") from error
    wanted.save()
    return Begun(wanted, False, passed_over)


def running_sequences(results: Path, system: str) -> list[Path]:
    """The directories of sequences of `system` in `results` of which a trial is running, as far as this host sees them:
    once their jobs have ended, those that could say nothing at their end. Oldest first."""
    found = []
    for path in sorted(results.glob(f"{WORKLOAD}/*/{COMMAND}/*/{SEQUENCE_NAME}")):
        with suppress(KvbenchError):
            sequence = read_sequence(path)
            if any(
                trial["status"] == "running" for option in sequence.content["options"] for trial in option["trials"]
            ):
                found.append(path.parent)
    return found


def read_sequence(path: Path) -> TrialSequence:
    """The sequence of the file `path`. Raises KvbenchError where it is none of kvbench's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KvbenchError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise KvbenchError(f"{path} is no {FORMAT} of version {VERSION}; give another --results, or move it away")
    return TrialSequence(path.parent, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` so that it is there whole or not at all. Raises KvbenchError."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_output(check_output(path, JSON), text.encode(), JSON)


def local_stamp(time_utc: str) -> str:
    """A recorded time as names have it: local, YYYYMMDD_HHmmss."""
    return datetime.fromisoformat(time_utc).astimezone().strftime("%Y%m%d_%H%M%S")


def _seconds_since(time_utc: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time_utc)).total_seconds()


def now() -> str:
    """The time as it is recorded: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def steps_as_json(steps: Sequence[TrialStep]) -> list[dict[str, Any]]:
    """To tell the other ranks."""
    return [asdict(step) for step in steps]
