"""Bandwidth against what the described network and drives can carry, and what was written against memory."""

from collections.abc import Iterator, Sequence
from typing import Final

from kvbench.mlperf.audit.arithmetic import gib_per_s
from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited
from kvbench.mlperf.audit.leaf import DescriptionFacts, LeafFacts, NodesFacts, OptionFacts
from kvbench.mlperf.audit.questions.preloads import keeps_the_page_cache
from kvbench.units import GIB

SPEED: Final = "page-cache-speed"
WORKING_SET: Final = "working-set"
READ: Final = "aggregated_read_bandwidth_gbps"
WRITE: Final = "aggregated_write_bandwidth_gbps"
_GIVE: Final = 1.02


def bounds_gib_per_s(description: DescriptionFacts) -> list[tuple[str, float]]:
    """(what, GiB/s) that each described part can carry at most, between storage and clients; only what is described.

    Where the storage is remote, all bytes pass the clients' network, the servers' network and drives. Where it is local
    they come from the clients' drives, and where it is both, from either.
    """
    networks, drives = _total(description.clients, "network_gbit_per_s"), _total(description.clients, "drives_gb_per_s")
    at_servers = _total(description.servers, "network_gbit_per_s"), _total(description.servers, "drives_gb_per_s")
    found: list[tuple[str, float | None]] = []
    if description.location == "remote":
        found = [
            ("the network of the clients", _network(networks)),
            ("the network of the servers", _network(at_servers[0])),
            ("the drives of the servers", _drives(at_servers[1])),
        ]
    elif description.location == "local":
        found = [("the drives of the clients", _drives(drives))]
    elif description.location and networks is not None and drives is not None:
        both = gib_per_s(networks) + drives * 1e9 / GIB
        found = [("the network and the drives of the clients together", both)]
    return [(what, carries) for what, carries in found if carries is not None]


def page_cache_speed(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option that is faster than what is described can carry."""
    if leaf.description is None:
        yield NotAudited(SPEED, f"no system description that can be read ({leaf.description_problem})")
        return
    bounds = bounds_gib_per_s(leaf.description)
    if not bounds:
        yield NotAudited(
            SPEED, "the system description tells neither where the storage is nor what network or drives carry"
        )
        return
    what, carries = min(bounds, key=lambda bound: bound[1])
    unknown = [option.number for option in leaf.options if not {READ, WRITE} <= set(option.figures)]
    if unknown:
        yield NotAudited(SPEED, "no bandwidth in the summary", tuple(unknown))
    for option in leaf.options:
        for name, key in (("read", READ), ("write", WRITE)):
            found = option.figures.get(key)
            if found is not None and found > carries * _GIVE:
                yield Finding(
                    "distorts",
                    SPEED,
                    f"option {option.number}: {name} {found:.4g} GiB/s, where {what} can carry "
                    f"{carries:.4g} as described",
                    f"{1 - carries / found:.0%} of it at least did not come over that, but out of a cache; or the "
                    "description is not that of what ran",
                    (
                        Evidence(leaf.summary_path, f"options.{option.number}.{key}", f"{found:.6g}"),
                        Evidence(leaf.description.path, what, f"{carries:.6g} GiB/s"),
                    ),
                    (option.number,),
                )


def working_set(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option that writes less than the memory of the hosts, or of the servers, holds."""
    hosts, servers = hosts_memory_gib(leaf), servers_memory_gib(leaf)
    if hosts is None and servers is None:
        yield NotAudited(WORKING_SET, "neither the description nor the metadata tells the memory of hosts or servers")
        return
    kept_by_clients = keeps_the_page_cache(leaf)
    unknown = []
    for option in leaf.options:
        written = written_gib(option)
        if written is None:
            unknown.append(option.number)
            continue
        for whose, memory in (("hosts", hosts), ("servers", servers)):
            if memory is not None and written < memory[0]:
                kept = whose == "hosts" and kept_by_clients
                yield Finding(
                    "distorts" if kept else "notable",
                    WORKING_SET,
                    f"option {option.number}: a trial writes {written:.4g} GiB, and the memory of the {whose} holds "
                    f"{memory[0]:.4g}",
                    "all of it fits there, and reads can have come from it"
                    + (
                        ""
                        if kept or whose == "servers"
                        else "; by the rules the page cache of the hosts is dropped before each read"
                    ),
                    (
                        Evidence(leaf.summary_path, f"options.{option.number}.{WRITE}", f"{option.figures[WRITE]:.6g}"),
                        memory[1],
                    ),
                    (option.number,),
                )
    if unknown:
        yield NotAudited(WORKING_SET, "no written bandwidth, or no duration", tuple(unknown))
    for whose, memory in (("hosts", hosts), ("servers", servers)):
        if memory is None:
            yield NotAudited(WORKING_SET, f"the memory of the {whose} is not described")


def written_gib(option: OptionFacts) -> float | None:
    """What all ranks wrote to storage in a trial, in the mean, by the summary."""
    rate = option.figures.get(WRITE)
    return None if rate is None or option.duration_s is None else rate * option.duration_s


def hosts_memory_gib(leaf: LeafFacts) -> tuple[float, Evidence] | None:
    """The memory of all client hosts, and where that stands: as the tool saw it, else as described."""
    if leaf.memory_bytes is not None:
        total = leaf.memory_bytes[2] / GIB
        return total, Evidence(leaf.metadata_path, leaf.memory_key, f"{leaf.memory_bytes[2]:.0f} in all")
    if leaf.description is None or (total_described := _total(leaf.description.clients, "memory_gib")) is None:
        return None
    return total_described, Evidence(leaf.description.path, "clients' memory_capacity", f"{total_described:.6g} in all")


def servers_memory_gib(leaf: LeafFacts) -> tuple[float, Evidence] | None:
    """The memory of all nodes of the product as described, likewise."""
    if leaf.description is None or (total := _total(leaf.description.servers, "memory_gib")) is None:
        return None
    return total, Evidence(leaf.description.path, "product_nodes' memory_capacity", f"{total:.6g} in all")


def _total(nodes: Sequence[NodesFacts], name: str) -> float | None:
    """Over all nodes; None where one of them does not tell."""
    values = [getattr(each, name) for each in nodes]
    if not values or any(value is None for value in values):
        return None
    return float(sum(value * each.count for value, each in zip(values, nodes, strict=True)))


def _network(gbit_per_s: float | None) -> float | None:
    return None if not gbit_per_s else gib_per_s(gbit_per_s)


def _drives(gb_per_s: float | None) -> float | None:
    return None if not gb_per_s else gb_per_s * 1e9 / GIB
