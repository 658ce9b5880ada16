"""The part of systems/SYSTEM.yaml that mlpstorage defines, with the keys of v3.0 as published: what was recorded of the
clients, and a place for all that nobody can detect. `kvbench mlperf audit` reads it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kvbench.mlperf.rules.access import TO_FILL_IN
from kvbench.mlperf.tree.untrusted import items
from kvbench.units import GIB

_INTERFACE: Final = re.compile(r"(?P<name>\S+) (?:(?P<mbit>\d+) Mb/s|of unknown speed), MTU .*")
_PORT: Final = re.compile(r"\S+ port \S+ (?P<gbit>[\d.]+) Gb/sec.*")
"""What `network_links` says of an interface, and of a port of InfiniBand."""


def system_under_test(sequence: Mapping[str, Any], clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What stands under `system_under_test`, of the content of kvbench_sequence.json and its `clients`: nodes that are
    alike once, with their `hosts`."""
    return {
        "solution": {
            "submission_name": sequence.get("system"),
            "friendly_description": TO_FILL_IN,
            "architecture": {
                "storage_location": TO_FILL_IN,
                "benchmark_API": "file",
                **_to_fill_in("product_API", "client_footprint", "client_installation"),
            },
            "capabilities": {
                "multi_host": len(items(sequence.get("nodes"))) > 1 or TO_FILL_IN,
                **_to_fill_in("simultaneous_write", "simultaneous_read", "remap_time_in_seconds"),
            },
            **_to_fill_in("usable_capacity_tib", "availability"),
        },
        **_to_fill_in("deployment", "total_rack_units"),
        "clients": [_client(client) for client in clients],
        "product_nodes": [
            {
                **_to_fill_in("friendly_description", "quantity"),
                "chassis": _chassis(),
                "networking": [{**_to_fill_in("type", "speed", "unit_count"), "state": "up", "traffic": [TO_FILL_IN]}],
                "drives": [_drives()],
                "operating_system": _to_fill_in("name", "version"),
            }
        ],
    }


def _client(client: Mapping[str, Any]) -> dict[str, Any]:
    memory, model, kernel = (client.get(name) for name in ("memory_bytes", "cpu_model", "kernel"))
    known = {"cpu_model": model, "memory_capacity": round(memory / GIB) if isinstance(memory, int) else None}
    return {
        "friendly_description": "benchmark client",
        "quantity": len(items(client.get("hosts"))),
        "chassis": _chassis() | {name: value for name, value in known.items() if value},
        "networking": list(_networking(items(client.get("network")))),
        "drives": [_drives()],
        "operating_system": {"name": TO_FILL_IN, "version": f"{TO_FILL_IN}, kernel {kernel}" if kernel else TO_FILL_IN},
    }


def _chassis() -> dict[str, Any]:
    names = ("model_name", "cpu_model", "cpu_qty", "cpu_cores", "memory_capacity", "rack_units")
    power = _to_fill_in("unit_count", "inlet_voltage", "nameplate_power_watts", "efficiency")
    return _to_fill_in(*names) | {"power": {"min_psus_active": TO_FILL_IN, "psus_configured": [power]}}


def _drives() -> dict[str, Any]:
    return _to_fill_in("vendor_name", "model_name", "interface", "media_type", "capacity_in_GB", "unit_count")


def _networking(links: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Interfaces that are alike once; speeds in Gbit/s. A port of InfiniBand stands beside its interface, if any."""
    found = Counter(_kind(link) for link in links if isinstance(link, str))
    for (kind, speed), number in found.items():
        yield {"type": kind, "speed": speed, "state": "up", "unit_count": number, "traffic": [TO_FILL_IN]}


def _kind(link: str) -> tuple[str, float | str]:
    if port := _PORT.fullmatch(link):
        return "infiniband", _plain(float(port["gbit"]))
    interface = _INTERFACE.fullmatch(link)
    if interface is None:
        return TO_FILL_IN, TO_FILL_IN
    kind = "infiniband" if interface["name"].startswith("ib") else "ethernet"
    return kind, TO_FILL_IN if interface["mbit"] is None else _plain(int(interface["mbit"]) / 1000)


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value


def _to_fill_in(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, TO_FILL_IN)
