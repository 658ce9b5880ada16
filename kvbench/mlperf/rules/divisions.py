"""Rules 6.6: nothing but the place was chosen in closed; in open, what was changed is allowed, and is said."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.option_table import (
    OPTIONS,
    bad_values,
    comparable,
    differences,
    option_preset,
    wanted_settings,
)
from kvbench.mlperf.rules.preloads import is_allocator, preloads, voids
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.numbers import AMOUNT
from kvbench.mlperf.tree.parts import Run, no_results
from kvbench.mlperf.tree.recorded import AUTOSCALING, SETTINGS_OF_THE_WRAPPER, Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

_CLOSED_OPTIONS: Final = frozenset(
    {
        "--division",
        "--system",
        "--systemname",
        "--submitter",
        "--dir",
        "--cache-dir",
        "--results",
        "--results-dir",
        "--hosts",
        "--hostfile",
        "--npernode",
        "--ranks",
        "--num-processes",
        "--mpi-params",
        "--resume",
        "--delay",
    }
)
"""What an invocation in closed may hold: names, places, and how many clients there are."""
_REHEARSAL_OPTIONS: Final = frozenset({"--rehearsal", "--trial-seconds", "--option"})
_OTHER_RULES: Final = frozenset(
    {"name", "seed", "model", "duration_s", "workload.users", "workload.generation_ms_per_token"}
    | {"io.max_concurrent_allocs"}
)
"""Keys of a configuration that 6.3.1.1 and 6.3.2.1 look at; 6.4.2 looks at three more."""
_IO_MODEL: Final = frozenset({"cache.layout", "io.drop_page_cache", "io.sync"})


@rule("6.6.1", "kvcacheClosedImmutable", Run, ("closed",))
def kvcache_closed_immutable(run: Run) -> Iterator[Problem]:
    """Nothing was set but names, directories, hosts and the number of clients."""
    recorded = Recorded(run)
    where = recorded.where
    if (division := recorded["division"]) not in (MISSING, "closed"):
        yield Problem(where, f"division {shown(division)}", '"closed"')
    invocation = recorded["invocation"]
    yield from _commands(run)
    if not isinstance(invocation, list) and (recorded.ours or not run.metadata.commands):
        yield Problem(where, f"invocation {recorded.absence}", "the command, and nothing set by it", "not recorded")
    allowed = _CLOSED_OPTIONS | (_REHEARSAL_OPTIONS if recorded.rehearsal else frozenset())
    again = [word for each in items(recorded["resumed"]) for word in items(dig(each, "invocation"))]
    for word in dict.fromkeys(word for word in [*items(invocation), *again] if isinstance(word, str)):
        name = word.partition("=")[0]
        if name.startswith("--") and name not in allowed:
            yield Problem(where, f"{shown(word)} in the invocation", "names, directories, hosts and ranks alone")
    for option, path, config in _configurations(run):
        if path == where:
            yield from _no_numbers(option, path, config)
        for key, found, wanted in differences(
            comparable(config), comparable(option_preset(option).model_dump(mode="json"))
        ):
            if key not in _OTHER_RULES | _IO_MODEL:
                yield Problem(path, f"{key} {shown(found)}", f"{shown(wanted)}, as in the preset of option {option}")


@rule("6.6.2", "kvcacheOpenAllowances", Run, ("open",))
def kvcache_open_allowances(run: Run) -> Iterator[Problem]:
    """What open changes it says, and what it may not change it does not."""
    recorded = Recorded(run)
    where = recorded.where
    if (division := recorded["division"]) not in (MISSING, "open"):
        yield Problem(where, f"division {shown(division)}", '"open"')
    if not recorded.settings():
        yield Problem(where, f"the settings of the options {recorded.absence}", "what was changed", "not recorded")
    told = _told(recorded)
    for entry in recorded.settings():
        option = entry.count("option")
        if option not in OPTIONS:
            continue
        allocations = "max_concurrent_allocs"
        found, wanted = entry.number(f"settings.{allocations}"), wanted_settings(option).max_concurrent_allocs
        if found not in (None, wanted):
            claim = f"{allocations} {found:.0f}{entry.of}"
            yield Problem(where, claim, f"{shown(wanted)}: open does not change it")
    for option, path, config in _configurations(run):
        yield from _no_numbers(option, path, config)
        for key, value, wanted_value in differences(
            comparable(config), comparable(option_preset(option).model_dump(mode="json"))
        ):
            if key not in {"name", "io.max_concurrent_allocs"} and not _is_told(key, told):
                yield Problem(
                    path,
                    f"{key} {shown(value)}, which the sequence does not say",
                    f"{shown(wanted_value)} as in the preset of option {option}, or a change that is said",
                )


@rule("6.6.3", "kvcacheOpenInvocationNote", Run, ("open",))
def kvcache_open_invocation_note(run: Run) -> Iterator[Problem]:
    """The exact invocation is recorded."""
    recorded = Recorded(run)
    invocation = recorded["invocation"]
    if not recorded.ours and any(not command.problem for command in run.metadata.commands):
        return
    if not items(invocation) or not all(isinstance(word, str) for word in items(invocation)):
        found = recorded.absence if invocation is MISSING else shown(invocation)
        yield Problem(recorded.where, f"invocation {found}", "the exact invocation, word by word")


def _commands(run: Run) -> Iterator[Problem]:
    """What another tool's commands set beside the options, and what they preload."""
    where, metadata = Recorded(run).where, run.metadata
    if Recorded(run).ours:
        return
    for command in metadata.commands:
        if command.problem:
            yield Problem(where, f"a command that is none: {command.problem}", "the exact command")
        # Autoscaling has a rule of its own; a second model or seed is found by theirs.
        for name in sorted(set(command.settings) - SETTINGS_OF_THE_WRAPPER - {AUTOSCALING}):
            found = f"--{shown(name)} in the command of option {command.option}, trial {command.trial}"
            yield Problem(where, found, "the seven settings of the option alone")
    for name in sorted(metadata.features) if isinstance(metadata.features, dict) else ():
        if name != AUTOSCALING.replace("-", "_"):
            yield Problem(where, f"{shown(name)} in parameters.features", "nothing switched on")
    for library, of in preloads(run).items():
        if voids(library) is None:
            known = is_allocator(library)
            wanted = "no other library in closed" if not known else "worth knowing: launcher parameters are not fixed"
            yield Problem(where, f"{shown(library)} preloaded {of}", wanted, "note" if known else "violation")


def _nobody_says(run: Run) -> str:
    documents = (run.sequence, run.description, *run.summaries)
    some = any(document.readable for document in documents) or not no_results(run)
    return "" if some else "no file that would say so"


@rule("kvbench", "kvbenchRehearsal", Run, nothing=_nobody_says)
def kvbench_rehearsal(run: Run) -> Iterator[Problem]:
    """A rehearsal is no submission, wherever it says that it is one."""
    flags = [
        (Recorded(run).where, True if Recorded(run).rehearsal else MISSING),
        (run.description.path, dig(run.description.content, "rehearsal")),
        *((summary.path, dig(summary.content, "kvbench", "rehearsal")) for summary in run.summaries),
        *((rank.file.path, rank.file["kvbench.rehearsal"]) for _, t in run.trials() for rank in t.ranks.values()),
    ]
    flagged = [path for path, flag in flags if flag is not MISSING and flag is not False]
    if flagged:
        also = f", as in {len(flagged) - 1} more files" if len(flagged) > 1 else ""
        yield Problem(flagged[0], f"a rehearsal{also}", "a sequence that was run in full")


def _no_numbers(option: int, path: Path, config: Any) -> Iterator[Problem]:
    """What no change can have made of a configuration, whether it is said or not."""
    for key, value in bad_values(config, option_preset(option).model_dump(mode="json")):
        yield Problem(path, f"{key} {shown(value)} of option {option}", AMOUNT.wanted)


def _configurations(run: Run) -> Iterator[tuple[int, Any, Any]]:
    """(option, path, configuration) of everything that ran: as the sequence says it, and as the run files do."""
    for option, entry in Recorded(run).options().items():
        if option in OPTIONS and isinstance(entry["config"], dict):
            yield option, Recorded(run).where, entry["config"]
    for option_results, trial in run.trials():
        if option_results.number in OPTIONS and trial.records is not None and trial.records.readable:
            yield option_results.number, trial.records.path, trial.records.config


def _told(recorded: Recorded) -> set[str]:
    """The keys that the invocation sets, with what its own options stand for."""
    words = [word for word in items(recorded["invocation"]) if isinstance(word, str)]
    changes = {word.partition("=")[0] for word in items(recorded["changes"]) if isinstance(word, str)}
    told = {after.partition("=")[0] for before, after in pairwise(words) if before == "--set"}
    told |= {word.removeprefix("--set=").partition("=")[0] for word in words if word.startswith("--set=")}
    if any(word.partition("=")[0] == "--trial-seconds" for word in words):
        told.add("duration_s")
    return told | changes


def _is_told(key: str, told: set[str]) -> bool:
    """Whether `key` is set itself, or a section above or below it is."""
    return any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in told)
