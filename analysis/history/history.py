"""The runs that run files are of, as one table in the order of time.

A file's attributes and small tables are read first; rows only of the runs that are asked for.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import pandas as pd
from kvbench_analysis.condensed import operations as condensed
from kvbench_analysis.figures import storage_moves
from kvbench_analysis.figures.storage_moves import DIRECTIONS, Moves
from kvbench_analysis.history.files import Skipped, hdf5_files
from kvbench_analysis.tables.load import Run, load
from kvbench_analysis.tables.virtual import virtual_speed
from kvbench_analysis.tables.window import Window

from kvbench.records.reader import KvbenchError, open_run

RUN_COLUMNS: Final = (
    "path", "run_id", "started_at", "status", "hosts", "filesystems", "ranks", "nodes", "configuration", "fingerprint",
    "kvbench_version", *(f"{way}_{name}" for way in DIRECTIONS for name in Moves._fields),
)  # fmt: skip
_READ: Final = {
    "directories": ("filesystem",),
    "nodes": ("host", "filesystem"),
    "ranks": ("host",),
    "records": storage_moves.COLUMNS,
}
"""Of each file; all others are as good as not there."""
_STUDY: Final = "study-"


@dataclass(frozen=True)
class Wanted:
    """Which runs are asked for; what is None or empty asks for nothing."""

    since: datetime.datetime | None = None
    """Started then or later."""
    before: datetime.datetime | None = None
    """Started earlier than that."""
    host: str = ""
    """A pattern (`node*`) that one of the hosts fits."""
    configuration: str = ""
    """A pattern that the configuration's name fits."""
    fingerprint: str = ""
    """How it begins."""

    def has(self, past: "PastRun") -> bool:
        """Whether `past` is asked for. What does not say when it was made is not where a time is asked for."""
        if self.since is not None and (past.when is None or past.when < self.since):
            return False
        if self.before is not None and (past.when is None or past.when >= self.before):
            return False
        if self.host and not any(fnmatchcase(host, self.host) for host in past.hosts):
            return False
        if self.configuration and not fnmatchcase(past.configuration, self.configuration):
            return False
        return past.fingerprint.startswith(self.fingerprint)


@dataclass(frozen=True)
class PastRun:
    """One run, and where its file is."""

    path: Path
    run_id: str
    started_at: str
    when: datetime.datetime | None
    status: str
    hosts: tuple[str, ...]
    filesystems: tuple[str, ...]
    ranks: int
    nodes: int
    configuration: str
    fingerprint: str
    kvbench_version: str
    moves: Mapping[str, Moves] = field(default_factory=dict)
    """By direction, those that occur."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """What the attributes and the small tables say: no figures. Raises KvbenchError: damaged file."""
        told = run.attributes
        started_at = str(told.get("started_at", ""))
        nodes, directories = _distinct(run, "nodes"), _distinct(run, "directories")
        return cls(
            path=run.path,
            run_id=str(told.get("run_id", "")),
            started_at=started_at,
            when=_moment(started_at),
            status=str(told["status"]),
            hosts=nodes.get("host") or _distinct(run, "ranks").get("host", ()),
            filesystems=directories.get("filesystem") or nodes.get("filesystem", ()),
            ranks=_whole(told["ranks"]),
            nodes=_whole(told.get("nodes")),
            configuration=str(run.config.get("name", "")),
            fingerprint=str(told.get("fingerprint", "")),
            kvbench_version=str(told.get("kvbench_version", "")),
        )

    def row(self) -> dict[str, Any]:
        """As a row of RUN_COLUMNS."""
        plain = {name: getattr(self, name) for name in RUN_COLUMNS if hasattr(self, name)}
        plain |= {"path": str(self.path), "hosts": list(self.hosts), "filesystems": list(self.filesystems)}
        nothing = Moves(0, float("nan"), float("nan"), 0)
        for way in DIRECTIONS:
            plain |= {f"{way}_{name}": value for name, value in self.moves.get(way, nothing)._asdict().items()}
        return plain


@dataclass(frozen=True)
class History:
    """What was found, in the order of time."""

    runs: tuple[PastRun, ...]
    skipped: tuple[Skipped, ...]
    left_out: int
    """Runs that were not asked for."""

    def table(self) -> pd.DataFrame:
        """RUN_COLUMNS: one row per run; figures that there are not are NaN."""
        return pd.DataFrame([past.row() for past in self.runs], columns=list(RUN_COLUMNS))


def history(places: Iterable[Path], wanted: Wanted | None = None, *, figures: bool = True) -> History:
    """The runs of all run files below `places`, or those that are `wanted`; each run once, whatever copies there are.

    Without `figures` no rows are read. What is no run file, or damaged, is in `skipped`. Raises KvbenchError where one
    of `places` is not there.
    """
    wanted = Wanted() if wanted is None else wanted
    runs: list[PastRun] = []
    skipped: list[Skipped] = []
    known: dict[str, Path] = {}
    left_out = 0
    for found in hdf5_files(places):
        if isinstance(found, Skipped):
            skipped.append(found)
            continue
        try:
            run = Run(open_run(found, only=_READ))
            kind = str(run.attributes.get("kind", ""))
            if kind.startswith(_STUDY):
                skipped.append(Skipped(found, "a study and no run: `kvbench study show` prints it"))
                continue
            virtual = virtual_speed(run)
            if virtual is not None:
                skipped.append(Skipped(found, virtual.text))
                continue
            past = PastRun.of(run)
            if past.run_id and past.run_id in known:
                skipped.append(Skipped(found, f"of the same run as {known[past.run_id]}"))
                continue
            known[past.run_id] = found
            if wanted.has(past):
                runs.append(_with_figures(past, run) if figures else past)
            else:
                left_out += 1
        except KvbenchError as error:
            skipped.append(Skipped(found, str(error)))
    return History(tuple(sorted(runs, key=_order)), tuple(skipped), left_out)


def _with_figures(past: PastRun, run: Run) -> PastRun:
    window = Window.of(run.attributes)
    if run.mode == "full":
        return replace(past, moves=storage_moves.storage_moves(run, window))
    totals = condensed.operation_figures(load(run.path), window).totals
    moves = {}
    for row in totals[(totals["storage"] == "storage") & totals["op"].isin(list(DIRECTIONS))].to_dict("records"):
        backed_by = int(row["percentiles_of"])
        moves[str(row["op"])] = Moves(int(row["operations"]), row["gib_per_s"], row["wall_p95_ns"], backed_by)
    return replace(past, moves=moves)


def _order(past: PastRun) -> tuple[bool, datetime.datetime, str]:
    """Those that do not say when they were come last."""
    latest = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return past.when is None, past.when or latest, str(past.path)


def _moment(text: str) -> datetime.datetime | None:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=datetime.UTC)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _distinct(run: Run, table: str) -> dict[str, tuple[str, ...]]:
    """What stands in the columns of `table` that are known, each once."""
    if table not in run.file.tables:
        return {}
    columns = run.columns(run.file.tables[table].columns, table)
    return {name: tuple(dict.fromkeys(map(str, values))) for name, values in columns.items()}
