"""Rules 6.3.1 and 6.3.2: the three options with every value, and the locks of the sequence they run in."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from kvbench.mlperf.option_table import OPTIONS, same, settings_of, wanted_settings
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.declared import declared_options, declared_trials, summary_of, summary_options
from kvbench.mlperf.tree.numbers import AMOUNT
from kvbench.mlperf.tree.parts import Run, Trial
from kvbench.mlperf.tree.recorded import SEQUENCE, Recorded
from kvbench.mlperf.tree.untrusted import MISSING, items, shown

SEED: Final = 42
TRIALS: Final = 3
DELAY_S: Final = 90
"""Between options. Drafts had 20 in one place, and no longer."""

_CLOCK_S: Final = 1.0
"""Time stamps are of whole seconds: a gap is known to about one."""
_LEAST_ROOM_S: Final = 60.0
"""Writing down the results, dropping caches: what a trial has before it at least, however short (rehearsals)."""
_MOST_NAMED: Final = 20
_ELAPSED: Final = 0.99
"""A rank that ran less than this part of its duration did not run it."""


@rule("6.3.1.1", "kvcacheFixedWorkloadPerOption", Run, ("closed",))
def kvcache_fixed_workload_per_option(run: Run) -> Iterator[Problem]:
    """All three options, each with every value of the option table."""
    recorded = Recorded(run)
    named = set(declared_options(run))
    for missing in sorted(set(OPTIONS) - named):
        yield Problem(run.path / f"option_{missing}", "no such option", "all three options")
    for other in sorted(named - set(OPTIONS)):
        yield Problem(run.path / f"option_{other}", f"option {other}", "the options 1, 2 and 3, and no other")
    for option in sorted(named & set(OPTIONS)):
        yield from _settings(run, recorded, option)
        for trial in run.options[option].trials.values() if option in run.options else ():
            yield from _run_file_settings(recorded, option, trial)
            yield from _durations(recorded, option, trial)


@rule("6.3.2.1", "kvcacheClosedSequenceLocks", Run, ("closed",))
def kvcache_closed_sequence_locks(run: Run) -> Iterator[Problem]:
    """Seed 42 (42 + r on rank r), 3 trials one after the other, the delay between options, no configuration file."""
    recorded = Recorded(run)
    where = recorded.where
    yield from _locked(recorded, "seed", SEED)
    if not (files := recorded.claims("config_file")):
        yield Problem(where, f"configuration file {recorded.absence}", "none")
    for claim in files:
        if claim.value is not None:
            yield Problem(
                where, f"configuration file {shown(claim.value)}{claim.of}", "none but that of the tool itself"
            )
    yield from _seeds(run)
    yield from _trials(run)
    if not recorded.ours:
        yield from _locked(recorded, "trials", TRIALS)
    yield from _locked(recorded, "delay_between_options_s", DELAY_S)
    yield from _order(recorded)


@rule("6.3.2.2", "kvcacheAutoscalingProhibited", Run, ("closed",))
def kvcache_autoscaling_prohibited(run: Run) -> Iterator[Problem]:
    """Autoscaling off, and no rank that tells of any."""
    recorded = Recorded(run)
    if not (claims := recorded.claims("autoscaling")):
        yield Problem(recorded.where, f"autoscaling {recorded.absence}", "false", "not recorded")
    for claim in claims:
        if claim.value is not False:
            yield Problem(recorded.where, f"autoscaling {shown(claim.value)}{claim.of}", "false")
    for _, trial in run.trials():
        for rank in trial.ranks.values():
            for key in ("autoscaling_stats", "summary.autoscaling_stats", "summary.autoscaling_summary"):
                if rank.file[key] not in (MISSING, None, [], {}):
                    yield Problem(rank.file.path, f"{key} {shown(rank.file[key])}", "none")


def _settings(run: Run, recorded: Recorded, option: int) -> Iterator[Problem]:
    wanted = wanted_settings(option).as_dict()
    entries = [entry for entry in recorded.settings() if entry.count("option") == option]
    if not entries:
        names = ", ".join(wanted)
        yield Problem(recorded.where, f"{names} of option {option} {recorded.absence}", _row(wanted))
        return
    for entry in entries[: 1 if recorded.ours else None]:
        for name, value in wanted.items():
            found = entry[key := f"settings.{name}"]
            bad = key in entry.table and entry.number(key) is None
            short = name == "duration_s" and recorded.rehearsal
            if not bad and not same(found, value) and not short:
                problem = f"{name} {_or_absent(found, recorded)}"
                yield Problem(recorded.where, f"{problem}{entry.of}", f"{name} {shown(value)}")
    yield from _trials_without_command(run, recorded, option)


def _trials_without_command(run: Run, recorded: Recorded, option: int) -> Iterator[Problem]:
    """Trials of another tool of which it is not said what they were run with."""
    told = {command.trial for command in run.metadata.commands if command.option == option}
    lost = [trial for trial in declared_trials(run, option) if trial not in told]
    if told and lost and not recorded.ours:
        found = f"the command of option {option}, trial {', '.join(map(str, lost[:_MOST_NAMED]))} {recorded.absence}"
        yield Problem(recorded.where, found, "the command of every trial", "not recorded")


def _run_file_settings(recorded: Recorded, option: int, trial: Trial) -> Iterator[Problem]:
    if trial.records is None or not trial.records.readable:
        return
    found = settings_of(trial.records.config).as_dict()
    for name, value in wanted_settings(option).as_dict().items():
        short = name == "duration_s" and recorded.rehearsal and AMOUNT.read(found[name])
        if not same(found[name], value) and not short:
            yield Problem(trial.records.path, f"{name} {shown(found[name])}", f"{name} {shown(value)}")


def _durations(recorded: Recorded, option: int, trial: Trial) -> Iterator[Problem]:
    wanted: float | None = wanted_settings(option).duration_s
    if recorded.rehearsal:
        told = recorded.options().get(option)
        wanted = None if told is None else told.number("settings.duration_s")
    for rank in trial.ranks.values() if wanted else ():
        elapsed = rank.file.number("summary.elapsed_time")
        if wanted and elapsed is not None and elapsed < _ELAPSED * wanted:
            yield Problem(rank.file.path, f"elapsed_time {elapsed:g} s", f"at least the duration, {wanted:g} s")


def _seeds(run: Run) -> Iterator[Problem]:
    for _, trial in run.trials():
        for rank in trial.ranks.values():
            if (seed := rank.file.number("seed")) not in (None, SEED + rank.number):
                yield Problem(rank.file.path, f"seed {seed:.0f}", f"{SEED + rank.number}, for rank {rank.number}")


def _trials(run: Run) -> Iterator[Problem]:
    if (found := summary_of(run).count("trials_per_option")) not in (None, TRIALS):
        yield Problem(run.summaries[0].path, f"trials_per_option {found}", str(TRIALS))
    for number_of, entry in summary_options(run).items():
        if (count := entry.count("trial_count")) not in (None, TRIALS):
            yield Problem(run.summaries[0].path, f"trial_count {count} of option {number_of}", str(TRIALS))
    for option in run.options.values():
        declared = declared_trials(run, option.number)
        if len(declared) != TRIALS:
            yield Problem(option.path, f"{len(declared)} trials", f"{TRIALS} trials")
        for extra in sorted(set(option.trials) - set(declared)):
            yield Problem(option.trials[extra].path, f"a trial beyond the {len(declared)}", "no other trials")


def _locked(recorded: Recorded, name: str, wanted: int) -> Iterator[Problem]:
    """A number of the sequence that may have one value only, wherever it is said."""
    claims = recorded.claims(name)
    if not claims and name != "trials":
        yield Problem(recorded.where, f"{name} {recorded.absence}", str(wanted))
    for claim in claims:
        number = AMOUNT.read(claim.value) if name == "trials" else SEQUENCE[name].read(claim.value)
        short = name == "delay_between_options_s" and recorded.rehearsal
        if (number is not None or name == "trials") and number != wanted and not short:
            yield Problem(recorded.where, f"{name} {shown(claim.value)}{claim.of}", str(wanted))


def _order(recorded: Recorded) -> Iterator[Problem]:
    """Trials follow each other in order; options with the delay between them, and with no room for other work."""
    where = recorded.where
    before: tuple[int, int, datetime] | None = None
    for option, entry in sorted(recorded.options().items()):
        for trial, told in sorted(recorded.trials(option).items()):
            started, ended = _time(told["started_at"]), _time(told["ended_at"])
            name = f"trial {trial} of option {option}"
            if started is None or ended is None or ended < started:
                times = f"{shown(told['started_at'])} to {shown(told['ended_at'])}"
                yield Problem(where, f"{name} from {times}", "the times at which it started and ended")
                continue
            if before is not None:
                gap = (started - before[2]).total_seconds()
                delay = recorded.number("delay_between_options_s") or 0.0
                least = delay if option != before[0] else 0.0
                duration = entry.number("settings.duration_s") or 0.0
                # A trial that is repeated alone runs when the others have ended.
                alone = (told["repeated"] is True or before[1] < 0) and bool(items(recorded["resumed"]))
                most = max(delay, told.number("delay_before_s") or 0.0) + max(duration, _LEAST_ROOM_S)
                if not alone and not least - _CLOCK_S <= gap <= most + _CLOCK_S:
                    span = f"from {least:g} s to {most:g} s (the delay and the duration of a trial)"
                    yield Problem(where, f"{name} {gap:g} s after the trial before it", span)
            before = (option, -1 if told["repeated"] is True else trial, ended)


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.utcoffset() is not None else None


def _or_absent(value: Any, recorded: Recorded) -> str:
    return recorded.absence if value is MISSING else shown(value)


def _row(wanted: dict[str, Any]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in wanted.items())
