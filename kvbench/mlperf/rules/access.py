"""Rules 6.4 and 6.5: where cache and results lie, how objects are moved, what stands between them and a device."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from kvbench.mlperf.rules.preloads import preloads, voids
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown
from kvbench.units import format_bytes

TO_FILL_IN: Final = "TO BE FILLED IN BY HAND"
"""How `package` marks what nobody can detect."""

_NFS: Final = re.compile(r"nfs\d?", re.ASCII)
_GATEWAY: Final = re.compile(
    r"(?:fuse\.)?(?:s3fs|rclone|mountpoint-s3|goofys|geesefs|gcsfuse|blobfuse2?|s3ql)", re.ASCII
)
_NFS_OPTIONS: Final = ("vers", "rsize", "wsize")
_MOST_RESIDENT: Final = 0.01
"""Part of what is read that may be in the page cache: the kernel keeps a page that is in use as it drops the others."""


def _no_filesystems(run: Run) -> str:
    recorded = Recorded(run)
    if items(recorded["filesystems"]):
        return ""
    return f"the filesystem of the cache {recorded.absence}"


@rule("6.4.1", "kvcachePosixCacheDir", Run)
def kvcache_posix_cache_dir(run: Run) -> Iterator[Problem]:
    """Cache and results directories are set, and on different filesystems."""
    recorded = Recorded(run)
    where = recorded.where
    for name in ("cache_directory", "results_directory"):
        value = recorded[name]
        if value is MISSING and not recorded.ours:
            yield Problem(where, f"{name} {recorded.absence}", "a directory", "not recorded")
        elif not isinstance(value, str) or not value:
            yield Problem(where, f"{name} {recorded.absence if value is MISSING else shown(value)}", "a directory")
    yield from _elsewhere(run, recorded["cache_directory"])
    yield from _inside(recorded)
    places = items(recorded["filesystems"])
    compared = 0
    for place in places:
        cache, results = dig(place, "cache"), dig(place, "results")
        if isinstance(cache, dict) and isinstance(results, dict):
            compared += 1
            if _same_filesystem(cache, results):
                host = shown(dig(place, "host"))
                found = f"cache and results on one filesystem on {host}: {_name(cache)}"
                yield Problem(where, found, "different filesystems")
    if not compared:
        found = f"the filesystems of the cache and the results {recorded.absence}"
        yield Problem(where, found, "different filesystems", "violation" if recorded.ours else "not recorded")


@rule("6.4.2", "kvcachePosixIoModel", Run)
def kvcache_posix_io_model(run: Run) -> Iterator[Problem]:
    """An object per entry, brought to the device as it is written, out of the page cache before it is read."""
    recorded = Recorded(run)
    dropped = recorded["page_cache_dropped"]
    if dropped is MISSING:
        found = f"page_cache_dropped {recorded.absence}"
        yield Problem(recorded.where, found, "true", "violation" if recorded.ours else "not recorded")
    elif dropped is not True:
        yield Problem(recorded.where, f"page_cache_dropped {shown(dropped)}", "true")
    for library, where in preloads(run).items():
        if (effect := voids(library)) is not None:
            found = f"{shown(library)} preloaded {where}: {effect}"
            yield Problem(recorded.where, found, "objects that are synced, and read without the page cache")
    for _, trial in run.trials():
        records = trial.records
        if records is None or not records.readable:
            continue
        for keys, wanted in ((("cache", "layout"), "entry"), (("io", "drop_page_cache"), True)):
            if (found := dig(records.config, *keys)) != wanted:
                yield Problem(records.path, f"{'.'.join(keys)} {shown(found)}", shown(wanted))
        if (sync := dig(records.config, "io", "sync")) not in (MISSING, "object"):
            yield Problem(records.path, f"io.sync {shown(sync)}", "objects that are synced as they are written")
        kinds = [dig(tier, "kind") for tier in items(dig(records.config, "tiers"))]
        if kinds and kinds[-1] != "file":
            yield Problem(records.path, f"storage of the kind {shown(kinds[-1])}", "files")
        nbytes = sum(rank.reads.nbytes for rank in records.ranks.values())
        resident = sum(rank.resident_bytes for rank in records.ranks.values())
        if nbytes and not any(rank.looked_at_bytes for rank in records.ranks.values()):
            found = f"nobody looked whether the {format_bytes(nbytes)} read from storage were in the page cache"
            yield Problem(records.path, found, "objects that are not in the page cache", "not recorded")
        if resident > _MOST_RESIDENT * nbytes:
            yield Problem(
                records.path,
                f"{format_bytes(resident)} of the {format_bytes(nbytes)} read from storage were in the page cache",
                "objects that are not in the page cache",
            )


@rule("6.5.1", "kvcacheObjectViaGateway", Run, nothing=_no_filesystems)
def kvcache_object_via_gateway(run: Run) -> Iterator[Problem]:
    """Object stores are reached as files, and the software of the gateway or of the NFS client is named."""
    cache = Recorded(run)["cache_directory"]
    if isinstance(cache, str) and "://" in cache:
        yield Problem(Recorded(run).where, f"cache directory {shown(cache)}", "a directory of a mounted filesystem")
    for host, storage in _between(run):
        software = dig(run.description.content, "client_software")
        if not _is_said(software):
            found = f"client_software {shown(software)} for {shown(storage.get('type'))} on {host}"
            yield Problem(run.description.path, found, "the gateway's or NFS client's software and its version")


@rule("6.5.2", "kvcacheObjectLatencyScope", Run, nothing=_no_filesystems)
def kvcache_object_latency_scope(run: Run) -> Iterator[Problem]:
    """For gateways and NFS, whose latency is that of the mount, the mount options are recorded."""
    for host, storage in _between(run):
        options = storage.get("options")
        told = options if isinstance(options, str) else ""
        names = {option.partition("=")[0] for option in told.split(",") if option}
        absent = [n for n in _NFS_OPTIONS if n not in names] if _NFS.fullmatch(str(storage.get("type"))) else []
        if not names or absent:
            found = f"mount options {shown(options) if names else 'not recorded'} on {host}"
            wanted = f"with {', '.join(absent)}" if absent else "the options of the mount"
            yield Problem(Recorded(run).where, found, wanted)


def _elsewhere(run: Run, cache: Any) -> Iterator[Problem]:
    """Ranks whose cache is not in the directory that the sequence says."""
    if not isinstance(cache, str) or not cache.startswith("/"):
        return
    for _, trial in run.trials():
        for rank in trial.ranks.values():
            own = rank.file["kvbench.cache_directory"]
            if isinstance(own, str) and not PurePosixPath(own).is_relative_to(cache):
                yield Problem(rank.file.path, f"cache directory {shown(own)}", f"one in {shown(cache)}")


def _inside(recorded: Recorded) -> Iterator[Problem]:
    """A cache in the directory of the results, or results in the cache: they cannot be on different filesystems."""
    caches = {claim.value: claim.of for claim in recorded.claims("cache_directory") if isinstance(claim.value, str)}
    results = {claim.value for claim in recorded.claims("results_directory") if isinstance(claim.value, str)}
    told = recorded.run.metadata.result_directory
    for cache, of in caches.items():
        for directory in sorted({*results, *((told,) if told and not recorded.ours else ())}):
            if _is_below(cache, directory) or _is_below(directory, cache):
                found = f"cache directory {shown(cache)}{of}, results in {shown(directory)}"
                yield Problem(recorded.where, found, "neither in the other: different filesystems")
                break


def _is_below(path: str, directory: str) -> bool:
    return path.startswith("/") and directory.startswith("/") and PurePosixPath(path).is_relative_to(directory)


def _between(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """(host, storage) wherever the cache lies behind a gateway or an NFS client."""
    for place in items(Recorded(run)["filesystems"]):
        storage = dig(place, "cache")
        if isinstance(storage, dict):
            kind = str(storage.get("type"))
            if _NFS.fullmatch(kind) or _GATEWAY.fullmatch(kind):
                yield shown(dig(place, "host")), storage


def _is_said(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_is_said(item) for item in value.values())
    return isinstance(value, str) and bool(value.strip()) and TO_FILL_IN not in value


def _same_filesystem(cache: dict[str, Any], results: dict[str, Any]) -> bool:
    """One mount point, or one device (or export) at two: `tmpfs` and the like name no device."""
    if cache.get("mount_point") == results.get("mount_point"):
        return True
    device = cache.get("device")
    return isinstance(device, str) and "/" in device and device == results.get("device")


def _name(storage: dict[str, Any]) -> str:
    return " ".join(shown(storage.get(key)) for key in ("type", "device", "mount_point"))
