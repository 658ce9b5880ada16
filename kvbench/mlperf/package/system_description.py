"""systems/<system>.yaml: what a sequence recorded of the machines, and a place for what nobody can detect."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from kvbench.mlperf.package.system_under_test import system_under_test
from kvbench.mlperf.rules.access import TO_FILL_IN
from kvbench.mlperf.tree.untrusted import MISSING, dig, items
from kvbench.units import format_bytes

_HEAD: Final = f"""\
# The system under test: the clients and their storage as `kvbench mlperf run` found them.
# Replace every {TO_FILL_IN!r}; `kvbench mlperf check` asks for client_software behind NFS or a gateway.
# What mlpstorage defines stands under system_under_test: memory_capacity in GiB, speed in Gbit/s, traffic with data or
# management; leave out drives and ports that a machine does not have.
"""
_STORAGE_BY_HAND: Final = (
    "vendor",
    "product",
    "version",
    "nodes",
    "drives",
    "usable_capacity",
    "protection",
    "rack_units",
    "power_watts",
)


def describe(sequence: Mapping[str, Any]) -> dict[str, Any]:
    """The description of the system that `sequence` (the content of kvbench_sequence.json) ran on.

    Nodes that are alike but for their names stand once, with all their names.
    """
    nodes = [_client(node) for node in items(sequence.get("nodes"))]
    places = [
        {**_storage(dig(place, "cache")), "hosts": [str(dig(place, "host"))]}
        for place in items(sequence.get("filesystems"))
    ]
    description: dict[str, Any] = {
        "system": sequence.get("system"),
        "submitter": sequence.get("submitter"),
        "division": sequence.get("division"),
        "benchmark": "kv_cache",
        "software": {
            "kvbench": sequence.get("kvbench_version"),
            "git_sha": sequence.get("git_sha"),
            "mpi": sequence.get("mpi"),
        },
        "clients": {
            "total": sequence.get("total_ranks"),
            "per_node": sequence.get("npernode"),
            "nodes": _alike(nodes),
        },
        "storage": {"mounts": _alike(places)} | dict.fromkeys(_STORAGE_BY_HAND, TO_FILL_IN),
        "client_software": TO_FILL_IN,
        "network_fabric": TO_FILL_IN,
        "availability": TO_FILL_IN,
        "notes": TO_FILL_IN,
        "system_under_test": system_under_test(sequence, _alike(nodes)),
    }
    if sequence.get("rehearsal") is not False:
        description = {"rehearsal": True} | description
    return description


def as_yaml(description: Mapping[str, Any]) -> str:
    """The text of the file."""
    return _HEAD + yaml.safe_dump(dict(description), sort_keys=False, allow_unicode=True, width=120)


def _client(node: Any) -> dict[str, Any]:
    memory = dig(node, "memory_bytes")
    known = {
        "cpu_model": dig(node, "cpu_model"),
        "cpus": dig(node, "cpus"),
        "memory": format_bytes(memory) if isinstance(memory, int) else MISSING,
        "memory_bytes": memory,
        "kernel": dig(node, "kernel"),
        "network": dig(node, "network") or MISSING,
    }
    return {name: TO_FILL_IN if value is MISSING else value for name, value in known.items()} | {
        "hosts": [str(dig(node, "host"))]
    }


def _storage(place: Any) -> dict[str, Any]:
    names = {"filesystem": "type", "device": "device", "mount_point": "mount_point", "mount_options": "options"}
    found = {name: dig(place, key) for name, key in names.items()}
    size = dig(place, "total_bytes")
    found["size"] = format_bytes(size) if isinstance(size, int) and size > 0 else MISSING
    return {name: TO_FILL_IN if value is MISSING else value for name, value in found.items()}


def _alike(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries with their hosts; those that differ in nothing else are one."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        rest = {key: value for key, value in entry.items() if key != "hosts"}
        for other in found:
            if {key: value for key, value in other.items() if key != "hosts"} == rest:
                other["hosts"] = [*other["hosts"], *entry["hosts"]]
                break
        else:
            found.append(dict(entry))
    return found
