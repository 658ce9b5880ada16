"""Where a leaf comes from: its code, its hosts, and other leaves that belong to it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import combinations
from typing import Final

from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited, few
from kvbench.mlperf.audit.leaf import HostFacts, ImageFacts, LeafFacts

CODE: Final = "code"
HOSTS: Final = "hosts"
TWIN: Final = "twin-leaf"
DROPPED: Final = "dropped-runs"
_TWINS_S: Final = 60.0
_MEMORY: Final = 0.02
"""Memory of hosts of one kind differs by what firmware takes; this share is more."""


def code(leaf: LeafFacts, upstream: Sequence[str] = ()) -> Iterator[Answer]:
    """Whether the image that ran is in the tree, and is upstream's where `upstream`, its hashes, are known."""
    claimed = [(".mlps-code-image", leaf.pointer), ("args._validated_pool_hash", leaf.validated_hash)]
    named = {name: value for name, value in claimed if value is not None}
    if not named:
        yield NotAudited(CODE, "no pointer to an image of the code, and no hash in the metadata")
        return
    evidence = [
        Evidence(f"{leaf.path}/.mlps-code-image" if name.startswith(".") else leaf.metadata_path, name, value)
        for name, value in named.items()
    ]
    values = set(named.values())
    image = next((image for image in leaf.images if image.hash in values), None)
    if len(values) > 1:
        what = "pointer and metadata name two different images of the code"
        yield Finding(
            "notable", CODE, what, "what ran is one of the two; the tree does not tell which", tuple(evidence)
        )
    elif image is None:
        there = [Evidence(each.path, "hash", each.hash) for each in leaf.images]
        yield Finding(
            "notable",
            CODE,
            f"the code that ran, {next(iter(values))[:8]}, is in no pool of this tree",
            "what produced the figures cannot be read, nor compared with upstream's",
            few([*evidence, *there]),
        )
    elif image.git_sha is None:
        yield NotAudited(CODE, f"{image.path} names no commit: what ran cannot be told from upstream's by that")
    if not upstream:
        yield NotAudited(CODE, "no hash of upstream's code was given (--upstream)")
    elif not values & set(upstream):
        evidence.append(Evidence("--upstream", "hash", " or ".join(dict.fromkeys(upstream))))
        effect = "the figures are of code that was changed, or of another version"
        yield Finding("notable", CODE, "the code that ran is not upstream's as given", effect, tuple(evidence))


def same_commit(leaves: Sequence[LeafFacts]) -> Iterator[tuple[LeafFacts, Finding]]:
    """Images of one commit whose hashes differ, among all leaves: the files of one at least are not the commit's."""
    images: dict[str, dict[str, tuple[LeafFacts, ImageFacts]]] = {}
    for leaf in leaves:
        for image in leaf.images:
            if image.git_sha is not None:
                images.setdefault(image.git_sha, {}).setdefault(image.hash, (leaf, image))
    for sha, by_hash in images.items():
        if len(by_hash) < 2:
            continue
        evidence = [
            Evidence(f"{leaf.submitter}: {image.path}", "hash", f"{image.hash}, git_sha {sha[:12]}")
            for leaf, image in by_hash.values()
        ]
        for leaf in leaves:
            mine = [image for image in leaf.images if image.git_sha == sha]
            if mine:
                yield (
                    leaf,
                    Finding(
                        "notable",
                        CODE,
                        f"{len(by_hash)} images of commit {sha[:8]} have different hashes",
                        "the files of all but one at most are not those of the commit alone: added, changed or left "
                        "out; which, the images would show",
                        few(evidence),
                    ),
                )


def hosts(leaf: LeafFacts) -> Iterator[Answer]:
    """Hosts of a run that are not alike, or not as described."""
    if leaf.memory_bytes is not None and leaf.memory_bytes[0] < leaf.memory_bytes[1] * (1 - _MEMORY):
        least, most, _ = leaf.memory_bytes
        evidence = (Evidence(leaf.metadata_path, leaf.memory_key, f"{least:.0f} to {most:.0f}"),)
        yield _differ(f"memory of the hosts from {least / 2**30:.4g} to {most / 2**30:.4g} GiB", evidence)
    for name, words in (("cpu", "processors"), ("cores", "numbers of cores"), ("kernel", "kernels")):
        groups: dict[object, list[HostFacts]] = {}
        for host in leaf.hosts:
            if (value := getattr(host, name)) is not None:
                groups.setdefault(value, []).append(host)
        if len(groups) > 1:
            among = tuple(
                Evidence(leaf.metadata_path, "hosts", f"{', '.join(h.name for h in group[:4])}: {value}")
                for value, group in groups.items()
            )
            yield _differ(f"{len(groups)} different {words} among the hosts", among)
    yield from _counts(leaf)
    seen = leaf.hosts_seen or leaf.host_count
    if not leaf.hosts:
        yield NotAudited(HOSTS, "the metadata describes no host")
    elif seen is not None and len(leaf.hosts) < seen:
        yield NotAudited(
            HOSTS, f"{len(leaf.hosts)} of {seen} hosts are described in the metadata; of the others only memory"
        )


def _counts(leaf: LeafFacts) -> Iterator[Answer]:
    claims = []
    if leaf.host_count is not None:
        claims.append((leaf.host_count, Evidence(leaf.summary_path, "host_count", str(leaf.host_count))))
    if leaf.listed_hosts:
        count = len(set(leaf.listed_hosts))
        claims.append((count, Evidence(leaf.metadata_path, "args.hosts", f"{count} names")))
    if leaf.hosts_seen is not None:
        claims.append((leaf.hosts_seen, Evidence(leaf.metadata_path, "system_info.num_hosts", str(leaf.hosts_seen))))
    if leaf.description is not None and leaf.description.clients:
        count = sum(each.count for each in leaf.description.clients)
        claims.append((count, Evidence(leaf.description.path, "clients' quantity", str(count))))
    if len({count for count, _ in claims}) > 1:
        what = "the number of hosts is told in different ways"
        effect = "figures per host depend on which is true"
        yield Finding("notable", HOSTS, what, effect, tuple(evidence for _, evidence in claims))


def _differ(what: str, evidence: tuple[Evidence, ...]) -> Finding:
    return Finding("notable", HOSTS, what, "clients are not alike; a sum over them says less of any one", evidence)


def twins(leaves: Sequence[LeafFacts]) -> Iterator[tuple[LeafFacts, Finding]]:
    """Leaves of one system whose stamps are next to each other, or one of which holds no figures."""
    for first, second in combinations(leaves, 2):
        if (first.division, first.submitter, first.system) != (second.division, second.submitter, second.system):
            continue
        apart = _apart_s(first, second)
        if apart is None or apart > _TWINS_S or first.tree != second.tree:
            continue
        holder, other = (first, second) if first.has_figures else (second, first)
        if holder.has_figures and other.has_figures:
            what, effect = f"two leaves began {apart:.0f} s apart", "only one of them can have had the hosts for itself"
        else:
            pointer = "the pointer to the code and nothing else" if other.pointer is not None else "no figures"
            what = f"a twin of {other.stamp}, {apart:.0f} s apart, which holds {pointer}"
            effect = (
                "the code that these figures are of is named in the twin alone"
                if holder.pointer is None and other.pointer is not None
                else "one run left two leaves"
            )
        evidence = (
            Evidence(holder.path, ".mlps-code-image", holder.pointer or "absent"),
            Evidence(other.path, ".mlps-code-image", other.pointer or "absent"),
        )
        yield holder, Finding("notable", TWIN, what, effect, evidence)


def other_runs(leaves: Sequence[LeafFacts]) -> Iterator[tuple[LeafFacts, Finding]]:
    """Of each system with several runs, that there are others than the last, which is the one that is published."""
    systems: dict[tuple[str, ...], list[LeafFacts]] = {}
    for leaf in leaves:
        if leaf.has_figures:
            systems.setdefault((leaf.tree, leaf.division, leaf.submitter, leaf.system), []).append(leaf)
    for runs in systems.values():
        last = max(runs, key=lambda leaf: leaf.stamp)
        rest = [leaf for leaf in runs if leaf is not last]
        if rest:
            key = "aggregated_read_bandwidth_gbps"
            evidence = [
                Evidence(
                    leaf.path, "read GiB/s", ", ".join(_figure(leaf, key, option.number) for option in leaf.options)
                )
                for leaf in (last, *rest)
            ]
            what = f"{len(rest)} other run{'s' if len(rest) > 1 else ''} of this system in the tree"
            yield last, Finding("notable", DROPPED, what, "the tables show the latest without an error", few(evidence))


def _figure(leaf: LeafFacts, key: str, number: int) -> str:
    option = next(option for option in leaf.options if option.number == number)
    return f"option {number} {option.figures[key]:.4g}" if key in option.figures else f"option {number} -"


def _apart_s(first: LeafFacts, second: LeafFacts) -> float | None:
    try:
        times = [datetime.strptime(leaf.stamp, "%Y%m%d_%H%M%S") for leaf in (first, second)]
    except ValueError:
        return None
    return abs((times[0] - times[1]).total_seconds())
