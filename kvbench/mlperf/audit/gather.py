"""The facts of every run of a tree (`leaf`), out of what `tree` read: what is audited, and nothing judged."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kvbench.mlperf.audit.leaf import (
    DescriptionFacts,
    HostFacts,
    ImageFacts,
    LeafFacts,
    NodesFacts,
    OptionFacts,
    Preload,
    RankFacts,
    TrialFacts,
)
from kvbench.mlperf.option_table import OPTIONS, wanted_settings
from kvbench.mlperf.tree.commands import NOT_NAMED, Command, read_command
from kvbench.mlperf.tree.declared import REQUEST_P95, declared_options, summary_of, summary_options
from kvbench.mlperf.tree.description import Machine, description_of
from kvbench.mlperf.tree.numbers import AMOUNT, MOST
from kvbench.mlperf.tree.parts import Option, Rank, Run, Tree, Trial
from kvbench.mlperf.tree.recorded import MOST_RANKS, Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, number, printable, shown, whole

_STATS: Final = ("summary", "cache_stats")
_PERCENTILES: Final = ("p50", "p95", "p99", "p999", "p9999")
_FIGURES: Final = (
    "aggregated_read_bandwidth_gbps",
    "aggregated_write_bandwidth_gbps",
    "aggregated_avg_throughput_tokens_per_sec",
    "aggregated_storage_throughput_tokens_per_sec",
    REQUEST_P95,
)
DRIVE_GB_PER_S: Final = {"nvme": 32.0, "pcie": 32.0, "sas": 4.8, "sata": 0.6}
"""What the fastest interface of that name carries, in GB/s: four lanes of PCIe 6 (64 GT/s each), two ports of 24G SAS,
SATA 3. A drive gives less; more it cannot."""


def leaves_of(tree: Tree, given: str) -> list[tuple[Run, LeafFacts]]:
    """The runs of `tree`, each with its facts; `given` is what the user calls the tree."""
    return [(run, _leaf(tree, run, given)) for run in tree.runs()]


def _leaf(tree: Tree, run: Run, given: str) -> LeafFacts:
    recorded, metadata, summary = Recorded(run), run.metadata, summary_of(run)
    content = metadata.document.content
    options = tuple(_option(tree, run, each) for each in declared_options(run))
    launched, hosts = _launches(tree, run), _hosts(run, recorded)
    digest = metadata.argument("_validated_pool_hash")
    return LeafFacts(
        tree=printable(given),
        division=run.division,
        submitter=shown(run.submitter),
        system=shown(run.system),
        stamp=shown(run.path.name),
        path=_name(tree, run.path),
        summary_path=_name(tree, run.summaries[0].path) if len(run.summaries) == 1 else "",
        metadata_path=_name(tree, recorded.where),
        has_figures=bool(run.summaries) or any(trial.ranks for _, trial in run.trials()),
        pointer=run.pointer.digest,
        validated_hash=shown(digest) if isinstance(digest, str) else None,
        images=_images(tree, run),
        total_ranks=summary.count("total_ranks"),
        host_count=summary.count("host_count"),
        trials_per_option=summary.count("trials_per_option"),
        trial_failures=_failures(dig(run.summary, "trial_failures")),
        delay_s=recorded.number("delay_between_options_s"),
        ours=recorded.ours,
        rehearsal=recorded.rehearsal,
        map_by_node=any(_maps_by_node(command) for command in metadata.commands),
        options=options,
        commands=len(metadata.commands),
        launches=len(launched),
        preloads=tuple(_preloads(launched)),
        listed_hosts=tuple(shown(host) for host in items(recorded["hosts"])),
        hosts=hosts,
        hosts_seen=whole(dig(content, "system_info", "num_hosts")),
        memory_bytes=_memory(content, hosts),
        memory_key="nodes.memory_bytes" if recorded.ours else "system_info.total_memory_bytes",
        description=_description(tree, run),
        description_problem=run.description.problem or "it has no system_under_test",
    )


def _option(tree: Tree, run: Run, option: int) -> OptionFacts:
    there = run.options.get(option)
    entry = summary_options(run).get(option)
    told = {} if entry is None else entry.content
    duration_s, where = _duration(run, option)
    figures = {name: value for name in _FIGURES if (value := AMOUNT.read(dig(told, name))) is not None}
    return OptionFacts(
        number=option,
        duration_s=duration_s,
        duration_from=where,
        figures=figures,
        partial_failure=failed if isinstance(failed := dig(told, "partial_failure"), bool) else None,
        missing=tuple(shown(path) for path in items(dig(told, "missing_files"))),
        trial_count=whole(dig(told, "trial_count")),
        trials=() if there is None else tuple(_trial(tree, each) for each in _in_order(there)),
    )


def _in_order(option: Option) -> list[Trial]:
    return [trial for _, trial in sorted(option.trials.items())]


def _duration(run: Run, option: int) -> tuple[float | None, str]:
    """(how long a trial was asked to be, where that stands): by what the run says of the option, else by what it says
    of another one, else, in closed, by the rules."""
    recorded = Recorded(run)
    told = {number_: section.number("settings.duration_s") for number_, section in recorded.options().items()}
    if (own := told.get(option)) is not None:
        return own, f"duration {own:g} s by its command or settings"
    if run.division == "closed":
        wanted = number(wanted_settings(option).duration_s) if option in OPTIONS else None
        return wanted, f"duration {wanted:g} s by the rules" if wanted is not None else ""
    others = {value for value in told.values() if value is not None}
    if len(others) == 1:
        (other,) = others
        return other, f"duration {other:g} s by the command of {', '.join(f'option {each}' for each in sorted(told))}"
    return None, ""


def _trial(tree: Tree, trial: Trial) -> TrialFacts:
    return TrialFacts(
        number=trial.number,
        path=_name(tree, trial.path),
        began=min(trial.stamps, default=None),
        ranks=tuple(_rank(tree, rank) for _, rank in sorted(trial.ranks.items()) if rank.file.readable),
        repeated=tuple(_name(tree, rank.path) for rank in trial.ranks.values() if len(rank.results) > 1),
    )


def _rank(tree: Tree, rank: Rank) -> RankFacts:
    content = rank.file.content
    longest, key = _longest_s(rank)
    written = _stat(content, "tier_storage_kv_bytes_written_gb")
    prefills, to_memory = (_count(content, name) for name in ("prefill_writes", "offloads_cpu"))
    memory_served = _stat(content, "tier_cpu_kv_bytes_read_gb") or _stat(content, "tier_gpu_kv_bytes_read_gb")
    return RankFacts(
        number=rank.number,
        path=_name(tree, rank.file.path),
        elapsed_s=AMOUNT.read(dig(content, "summary", "elapsed_time")),
        longest_request_s=longest,
        longest_key=key,
        read_gib=_stat(content, "tier_storage_kv_bytes_read_gb"),
        written_gib=written,
        reads=None if memory_served else _count(content, "decode_reads"),
        writes=_count(content, "offloads_storage"),
        timed_writes=None if prefills is None or to_memory is None else max(0, prefills - to_memory),
        read_device_ms=_percentiles(content, "storage_read_device"),
        write_device_ms=_percentiles(content, "storage_write_device"),
        write_ms=_percentiles(content, "storage_write"),
    )


def _longest_s(rank: Rank) -> tuple[float | None, str]:
    """The longest request, or what a percentile proves: that one was at least that long."""
    found = rank.file.longest_request_s
    if found is not None:
        return found, "summary.qos_metrics.*.latency_ms.max"
    latencies = dig(rank.file.content, "summary", "end_to_end_latency_ms")
    values = [value for name in _PERCENTILES if (value := AMOUNT.read(dig(latencies, name))) is not None]
    return (max(values) / 1e3, "summary.end_to_end_latency_ms") if values else (None, "")


def _stat(content: Any, name: str) -> float | None:
    return AMOUNT.read(dig(content, *_STATS, name))


def _count(content: Any, name: str) -> int | None:
    found = _stat(content, name)
    return None if found is None else int(found)


def _percentiles(content: Any, name: str) -> Mapping[str, float]:
    return {each: value for each in _PERCENTILES if (value := _stat(content, f"{name}_{each}_ms")) is not None}


def _failures(found: Any) -> tuple[str, ...]:
    if isinstance(found, dict):
        return tuple(f"{shown(name)}: {shown(value)}" for name, value in found.items())
    return tuple(shown(each) for each in items(found))


def _maps_by_node(command: Command) -> bool:
    words = command.launcher
    return any(word == "--map-by" and following == "node" for word, following in pairwise(words))


def _launches(tree: Tree, run: Run) -> list[tuple[str, str, Command]]:
    """(path, key, what was launched) of every place that tells how ranks were started."""
    metadata, where = run.metadata, _name(tree, run.metadata.document.path)
    found = [
        (where, f"command_output_files.{place}.command", command) for place, command in enumerate(metadata.commands)
    ]
    if metadata.mpi_params:
        found.append((where, "args.mpi_params", _given(metadata.mpi_params)))
    if isinstance(text := dig(metadata.document.content, "executed_command"), str):
        found.append((where, "executed_command", read_command(text)))
    if isinstance(words := dig(run.sequence.content, "invocation"), list):
        path = _name(tree, run.sequence.path)
        found.append((path, "invocation", _given([word for word in words if isinstance(word, str)])))
    for place, client in enumerate(items(dig(run.description.content, "system_under_test", "clients"))):
        settings = [
            f"{each['name']}={each.get('value', '')}"
            for each in items(dig(client, "environment"))
            if isinstance(each, dict) and isinstance(each.get("name"), str)
        ]
        if settings:
            key = f"system_under_test.clients.{place}.environment"
            found.append((_name(tree, run.description.path), key, _given(settings)))
    return found


def _given(words: Sequence[str]) -> Command:
    return Command(" ".join(words), tuple(words), {}, None, None)


def _preloads(launched: Sequence[tuple[str, str, Command]]) -> Iterator[Preload]:
    for path, key, command in launched:
        for library in command.preloaded:
            if library:
                yield Preload(
                    "a library that the tree does not name" if library == NOT_NAMED else shown(library), path, key
                )


def _images(tree: Tree, run: Run) -> tuple[ImageFacts, ...]:
    found = []
    for pool in tree.pools:
        if not pool.shared and pool.name != run.submitter:
            continue
        for image in pool.images:
            sha = dig(image.recorded.content, "git_sha")
            found.append(
                ImageFacts(
                    path=_name(tree, image.recorded.path),
                    hash=shown(image.digest) if image.digest is not None else "",
                    git_sha=shown(sha) if isinstance(sha, str) else None,
                )
            )
    return tuple(found)


def _hosts(run: Run, recorded: Recorded) -> tuple[HostFacts, ...]:
    if recorded.ours:
        return tuple(
            HostFacts(
                name=shown(node["host"]),
                memory_bytes=node.number("memory_bytes"),
                cores=node.number("cpus"),
                cpu=_text(node["cpu_model"]),
                kernel=_text(node["kernel"]),
            )
            for node in recorded.nodes()
        )
    return tuple(
        HostFacts(
            name=shown(host.name),
            memory_bytes=host.memory_bytes,
            cores=host.cores,
            cpu=_text(host.cpu_model),
            kernel=_text(host.kernel),
        )
        for host in run.metadata.hosts
    )


def _memory(content: Any, hosts: Sequence[HostFacts]) -> tuple[float, float, float] | None:
    """Least, most and total memory of the hosts: as the tool adds it up, else of the hosts that are there."""
    told = [AMOUNT.read(dig(content, "system_info", f"{name}_memory_bytes")) for name in ("min", "max", "total")]
    known = [value for value in told if value is not None]
    if len(known) == len(told):
        return known[0], known[1], known[2]
    each = [host.memory_bytes for host in hosts if host.memory_bytes is not None]
    return (min(each), max(each), sum(each)) if each and len(each) == len(hosts) else None


def _text(value: Any) -> str | None:
    return shown(value) if isinstance(value, str) else None


def _description(tree: Tree, run: Run) -> DescriptionFacts | None:
    if not run.description.readable or dig(run.description.content, "system_under_test") is MISSING:
        return None
    told = description_of(run.description)
    return DescriptionFacts(
        path=_name(tree, run.description.path),
        clients=tuple(_nodes(machine) for machine in told.clients),
        servers=tuple(_nodes(machine) for machine in told.servers),
        location=shown(told.storage_location) if told.storage_location else "",
    )


def _nodes(machine: Machine) -> NodesFacts:
    carrying = [
        network
        for network in machine.networks
        if network.state in (None, "up") and (not network.traffic or "data" in network.traffic)
    ]
    networks = [_all_of(network.gbit_per_s, network.count) for network in carrying]
    drives = [_all_of(DRIVE_GB_PER_S.get((each.interface or "").lower()), each.count) for each in machine.drives]
    return NodesFacts(
        count=machine.quantity if machine.quantity is not None and 0 < machine.quantity <= MOST_RANKS else 1,
        memory_gib=_all_of(machine.memory_gib, 1),
        network_gbit_per_s=_sum(networks),
        drives_gb_per_s=_sum(drives),
    )


def _all_of(each: float | None, count: int | None) -> float | None:
    """What `count` of them come to; None where either is not told, or cannot be."""
    known = each is not None and count is not None and 0 < each < MOST and 0 < count <= MOST_RANKS
    return each * count if known and each is not None and count is not None else None


def _sum(values: Sequence[float | None]) -> float | None:
    """None where there are none, or one is not known: that one may carry anything."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _name(tree: Tree, path: Path) -> str:
    return printable(str(path.relative_to(tree.path))) if path.is_relative_to(tree.path) else printable(path.name)
