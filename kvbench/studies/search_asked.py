"""What a search is to do, checked before anything runs: the key that is varied, bounds, objectives, times. Rank 0."""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvbench.config.load import load_config
from kvbench.config.run_config import PersonaWorkload, RunConfig, SessionsWorkload, TraceWorkload
from kvbench.errors import KvbenchError
from kvbench.records.objectives import Objective
from kvbench.records.search import WAITED, Aim, Asked
from kvbench.run.checks.promised import read_objectives
from kvbench.workload.traces import load_trace

_FARTHEST: Final = 64.0
"""From the first load to the bounds, where they are not given."""
_WARMUP_SHARE: Final = 0.25
"""Of a probe, that comes before it where the configuration has no warm-up."""
_BOUNDS_IN_PROBE: Final = 4.0
"""A probe is at least so many times as long as the longest time that an objective bounds."""
_SERVED_AS_ENGINE: Final = ("load", "look_up")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line of a search; what is None is filled in from the configuration."""

    source: str
    key: str
    objectives: tuple[str, ...]
    aim: Aim
    place: str | None
    engine: str
    overrides: tuple[str, ...]
    low: float | None
    high: float | None
    seconds: float | None
    warmup_s: float | None
    precision: float
    most: int


def ask(wanted: Wanted, ranks: int) -> tuple[Asked, tuple[Objective, ...]]:
    """What is to be done on so many ranks. Raises KvbenchError naming the first thing that is wrong."""
    config = load_config(wanted.source, wanted.overrides, wanted.engine)
    start = _start(config, wanted.key)
    objectives = _objectives(wanted, config)
    seconds = wanted.seconds or config.duration_s
    if seconds is None:
        raise KvbenchError("the length of a probe: duration_s of the configuration is null; give --seconds")
    longest = max((each.bound_s for each in objectives if each.figure in WAITED), default=0.0)
    if seconds < _BOUNDS_IN_PROBE * longest:
        raise KvbenchError(
            f"--seconds: probes of {seconds:g} s are too short for a bound of {longest:g} s: give --seconds "
            f"{_BOUNDS_IN_PROBE * longest:g} or more"
        )
    warmup_s = wanted.warmup_s if wanted.warmup_s is not None else config.warmup_s or seconds * _WARMUP_SHARE
    low, high = _bounds(wanted, start)
    trace = config.workload if isinstance(config.workload, TraceWorkload) else None
    asked = Asked(
        source=wanted.source,
        config=json.dumps(config.model_dump(mode="json"), sort_keys=True),
        trace_digest="" if trace is None else load_trace(trace).digest,
        key=wanted.key,
        objectives=tuple(map(str, objectives)),
        aim=wanted.aim,
        place=wanted.place or "",
        engine=wanted.engine,
        ranks=ranks,
        low=low,
        high=high,
        start=min(max(start, low), high),
        seconds=float(seconds),
        warmup_s=float(warmup_s),
        precision=wanted.precision,
        most=wanted.most,
    )
    if config.has_target and wanted.place is None:
        raise KvbenchError(
            f"{wanted.source} has a {config.tiers[-1].kind} tier: give the directory under test with --dir"
        )
    # What only shows when a probe is made, such as a bound that the key does not take.
    for load in (low, high):
        load_config(wanted.source, (*wanted.overrides, *probe_overrides(asked, load, 0)), wanted.engine)
    return asked, objectives


def probe_overrides(asked: Asked, load: float, seed: int) -> tuple[str, ...]:
    """What a probe at `load` changes in the configuration. Its length is that of the load; nothing is calibrated."""
    value = str(round(load)) if asked.whole else repr(float(load))
    times = f"duration_s={asked.seconds!r}", f"warmup_s={asked.warmup_s!r}"
    return (f"{asked.key}={value}", *times, "calibration.seconds=0", "records=full", f"seed={seed}")


def probe_seed(asked: Asked, number: int) -> int:
    """Each probe has arrivals and sessions of its own; rank r draws from the seed + r."""
    seed: int = json.loads(asked.config)["seed"]
    return (seed + 1_000_003 * (number + 1)) % (2**32 - 2**20)


def comes_by_itself(asked: Asked) -> bool:
    """Whether what is varied comes whether or not it is served, so that a backlog can grow."""
    return asked.key != "workload.users"


def _start(config: RunConfig, key: str) -> float:
    """The load that the configuration has. Raises KvbenchError where it does not heed `key`, and says what it does."""
    if key not in _READERS:
        near = difflib.get_close_matches(key, _READERS, n=1, cutoff=0.4)
        hint = f": did you mean {near[0]}?" if near else ""
        raise KvbenchError(f"--vary: {key} is no load that can be varied{hint} (known: {', '.join(_READERS)})")
    value = _READERS[key](config)
    if isinstance(value, str):
        raise KvbenchError(f"--vary {key}: the workload does not heed it: {value}")
    return value


def _rate(config: RunConfig) -> float | str:
    if config.arrivals.rate is not None:
        return config.arrivals.rate
    return f"arrivals of process {config.arrivals.process} have no rate; set arrivals.process=poisson and arrivals.rate"


def _requests(config: RunConfig) -> float | str:
    if config.pacing.requests_per_s is not None:
        return config.pacing.requests_per_s
    return "only personas in open loop have it; set pacing.mode=open and pacing.requests_per_s, or vary another"


def _speedup(config: RunConfig) -> float | str:
    if not isinstance(config.workload, TraceWorkload | SessionsWorkload):
        return (
            f"only a trace's time, or that of sessions, can run faster; vary workload.users of {config.workload.kind}"
        )
    if config.pacing.mode == "asap":
        return "as fast as possible nobody waits for a time; set pacing.mode to open or closed"
    return config.pacing.speedup


def _users(config: RunConfig) -> float | str:
    workload = config.workload
    if isinstance(workload, TraceWorkload):
        return "a trace has the users that it has; vary pacing.speedup, or arrivals.rate"
    if isinstance(workload, PersonaWorkload) and config.pacing.mode == "open":
        return "in open loop pacing.requests_per_s says what comes; vary that"
    if isinstance(workload, SessionsWorkload) and config.arrivals.process != "trace":
        return f"arrivals of process {config.arrivals.process} say what comes; vary arrivals.rate"
    return float(workload.users)


_READERS: Final[dict[str, Callable[[RunConfig], float | str]]] = {
    "arrivals.rate": _rate,
    "pacing.requests_per_s": _requests,
    "pacing.speedup": _speedup,
    "workload.users": _users,
}


def _objectives(wanted: Wanted, config: RunConfig) -> tuple[Objective, ...]:
    texts: Sequence[str] = wanted.objectives
    where = "--slo"
    if wanted.aim == "max-throughput":
        return ()
    if not texts:
        texts, where = config.objectives, f"{wanted.source}: objectives"
    if not texts:
        raise KvbenchError(
            "no objective: give --slo 'ttft_p95<2s' (repeatable), objectives in the configuration, or --objective "
            "max-throughput"
        )
    objectives = read_objectives(texts, config, where)
    for number, each in enumerate(objectives):
        if each.figure in _SERVED_AS_ENGINE and not config.serves_as_engine:
            raise KvbenchError(
                f"{where}: {each}: only requests that are served as an engine does have look-ups and loads (sessions, "
                "or a trace with workload.serving=engine); bound storage or latency"
            )
        if any(each.name == other.name for other in objectives[:number]):
            raise KvbenchError(f"{where}: {each.name} is bounded twice: give one bound of each")
    return objectives


def _bounds(wanted: Wanted, start: float) -> tuple[float, float]:
    whole = wanted.key == "workload.users"
    for option, value in (("--from", wanted.low), ("--to", wanted.high)):
        if whole and value is not None and (value < 1 or value != round(value)):
            raise KvbenchError(f"{option} {value:g}: users are counted: expected a whole number from 1 on")
    low = wanted.low if wanted.low is not None else min(start, wanted.high or start) / _FARTHEST
    high = wanted.high if wanted.high is not None else max(start, low) * _FARTHEST
    if whole:
        low, high = max(1.0, float(round(low))), float(round(high))
    if low >= high:
        raise KvbenchError(f"--from {low:g} is not below --to {high:g}: between them is searched")
    return low, high


def study_folder(out: Path) -> Path:
    """Where the run files of probes are until their figures are in the study file."""
    return out.with_name(f"{out.stem}-probes")
