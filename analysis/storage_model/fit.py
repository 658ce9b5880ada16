"""From run files to a storage model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from kvbench_analysis.storage_model.rates import Observed, estimate, observe
from kvbench_analysis.storage_model.spans import Spans, spans_of
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.reader import KvbenchError
from kvbench.records.storage_model import FORMAT, STATIONS, Service, Source, StorageModel

RESAMPLES: Final = 20
_BLOCKS: Final = 10
"""Of time, of each run."""
_FEWEST: Final = 20
"""Operations of a kind and size, to say anything of it."""
_OCTAVE: Final = 4
"""Sizes are told apart that differ by more than this part of an octave."""
_Key = tuple[str, str, int]


def fit(runs: Sequence[Run], kvbench_version: str, tier: int | None = None, seed: int = 1) -> StorageModel:
    """A model of the tier number `tier` (None: the last) of `runs`, which must be of one storage. `kvbench_version`: of
    whoever fits. Raises KvbenchError where runs are of several storages, or say too little."""
    check_alike(runs, tier)
    number = _tier_of(runs[0], tier)
    parts = [
        _Part(spans, position, *_blocks(spans, position))
        for position, run in enumerate(runs)
        for spans in spans_of(run, _tier_of(run, tier))
        if len(spans.kind)
    ]
    rng = np.random.default_rng(seed)
    keys = sorted({key for part in parts for key in part.kinds()})
    services = [service for key in keys if (service := _service(key, parts, rng)) is not None]
    if not any(service.station == "storage" and service.nbytes for service in services):
        names = ", ".join(str(run.path) for run in runs)
        raise KvbenchError(f"{names}: no {_FEWEST} operations alike moved bytes on the storage: measure longer")
    return StorageModel(
        kvbench_storage_model=FORMAT,
        kvbench_version=kvbench_version,
        tier=str(runs[0].tiers["name"][number]),
        tier_kind=str(runs[0].tiers["kind"][number]),
        sources=tuple(_source(run, _tier_of(run, tier)) for run in runs),
        services=tuple(sorted(services, key=lambda each: (STATIONS.index(each.station), each.kind, each.nbytes))),
    )


def check_alike(runs: Sequence[Run], tier: int | None) -> None:
    """Raise KvbenchError where runs cannot be fitted together."""
    of_first: tuple[str, ...] | None = None
    for run in runs:
        if run.sampled_1_in() > 1:
            raise KvbenchError(
                f"{run.path} holds 1 in {run.sampled_1_in()} rows, from which nobody can tell what ran beside what: "
                "repeat the run with records: full"
            )
        source = _source(run, _tier_of(run, tier))
        same = (
            source.filesystem, source.layout, source.engine, source.twin, source.read_path, source.write_path,
            source.sync,
        )  # fmt: skip
        if of_first is None:
            of_first = same
        for ours, theirs in zip(same, of_first, strict=True):
            if ours != theirs:
                raise KvbenchError(
                    f"{run.path} has {ours or 'none'} where {runs[0].path} has {theirs or 'none'}: fit runs of one "
                    "storage, that were moved in one way (filesystem, layout, engine, paths, sync)"
                )


def _tier_of(run: Run, tier: int | None) -> int:
    tiers = run.tiers
    number = len(tiers) - 1 if tier is None else tier
    if not 0 <= number < len(tiers):
        known = ", ".join(f"{at} {name}" for at, name in enumerate(tiers["name"]))
        raise KvbenchError(f"{run.path} has no tier {number}: its tiers are {known}")
    return number


@dataclass(frozen=True)
class _Part:
    """The spans of one station in one run."""

    spans: Spans
    run: int
    block: NDArray[np.intp]
    size: NDArray[np.int64]

    def kinds(self) -> set[_Key]:
        """Kinds and sizes that there are."""
        kinds = self.spans.kind.astype(str)
        return {
            (self.spans.station, str(kind), int(size))
            for kind in np.unique(kinds)
            if kind
            for size in np.unique(self.size[kinds == kind])
        }

    def chosen(self, key: _Key) -> NDArray[np.bool_]:
        """Those of a kind and size."""
        station, kind, size = key
        if station != self.spans.station:
            return np.zeros(len(self.size), np.bool_)
        return np.asarray((self.spans.kind == kind) & (self.size == size), np.bool_)


def _blocks(spans: Spans, position: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Of each span, the block of time that it is of, and the class of its size."""
    first, last = int(spans.start_ns.min()), int(spans.end_ns.max())
    block = (spans.start_ns - first) * _BLOCKS // max(1, last - first + 1) + position * _BLOCKS
    return block.astype(np.intp), _size_class(spans.nbytes)


def _size_class(nbytes: NDArray[np.int64]) -> NDArray[np.int64]:
    rounded = np.round(np.log2(np.maximum(1, nbytes)) * _OCTAVE).astype(np.int64)
    return np.where(nbytes > 0, rounded + 1, 0)


def _service(key: _Key, parts: Sequence[_Part], rng: np.random.Generator) -> Service | None:
    of_kind = [(part, chosen) for part in parts if (chosen := part.chosen(key)).any()]
    counts = [int(chosen.sum()) for _, chosen in of_kind]
    if sum(counts) < _FEWEST:
        return None
    seen = [observe(part.spans, chosen, part.block, part.run) for part, chosen in of_kind]
    observed = Observed(*(np.concatenate([getattr(one, field.name) for one in seen]) for field in fields(Observed)))
    found = estimate(observed, RESAMPLES, rng)
    times_ns = np.concatenate([part.spans.parts_ns[chosen] for part, chosen in of_kind])
    split = times_ns[times_ns.min(axis=1) >= 0].sum(axis=0)
    nbytes = np.concatenate([part.spans.nbytes[chosen] for part, chosen in of_kind])
    names = ("device", "host", "runq") if split.sum() else ()
    return Service(
        station=key[0],
        kind=key[1],
        nbytes=round(float(nbytes.mean()), 1),
        operations=sum(counts),
        levels=_rounded(found.levels, 6),
        most=found.most,
        seconds=tuple(_rounded(row, 5) for row in found.seconds),
        works=tuple(_rounded(row, 5) for row in found.works),
        shares={name: round(float(part / split.sum()), 4) for name, part in zip(names, split, strict=False)},
    )


def _rounded(values: NDArray[np.float64], digits: int) -> tuple[float, ...]:
    return tuple(float(f"{value:.{digits}g}") for value in values.tolist())


def _source(run: Run, tier: int) -> Source:
    config: dict[str, Any] = run.config
    io = config.get("io") if isinstance(config.get("io"), dict) else {}
    assert isinstance(io, dict)
    attributes, storages = run.attributes, run.storages
    first = {} if storages.empty else storages.iloc[0].to_dict()
    hosts = () if run.nodes.empty else tuple(map(str, run.nodes["host"].tolist()))

    def text(name: str, default: str = "") -> str:
        return str(attributes.get(name, default))

    return Source(
        file=run.path.name,
        run_id=text("run_id"),
        fingerprint=text("fingerprint"),
        started_at=text("started_at"),
        kvbench_version=text("kvbench_version"),
        name=str(config.get("name", "")),
        hosts=hosts,
        filesystem=str(first.get("filesystem", "")),
        mount_options=str(first.get("mount_options", "")),
        device=str(first.get("device", "")),
        layout=text("layout", "file"),
        engine=str(io.get("engine", "sync")),
        twin=text("twin"),
        read_path=text("read_path"),
        write_path=text("write_path"),
        sync=text("sync", "object"),
        ranks=int(attributes.get("ranks", 1)),
        threads=int(io.get("threads", 1)),
        operations=int(np.count_nonzero(run.columns(["tier"])["tier"] == tier)),
    )


def model_as_dict(model: StorageModel) -> dict[str, Any]:
    """What `kvbench model show --json` prints: the file itself."""
    content: dict[str, Any] = json.loads(model.to_bytes())
    return content
