"""systems/SYSTEM.yaml of mlpstorage: the clients and the storage, as whoever submitted describes them.

Whatever is not said, or is no number, is None; nothing is guessed from a model's name.
"""

from dataclasses import dataclass
from typing import Any

from kvbench.mlperf.tree.document import Document
from kvbench.mlperf.tree.untrusted import dig, items, number, whole


@dataclass(frozen=True, slots=True)
class Network:
    """Interfaces of one kind in a machine."""

    kind: str | None
    gbit_per_s: float | None
    """Of each."""
    count: int | None
    state: str | None
    traffic: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drives:
    """Drives of one kind in a machine."""

    vendor: str | None
    model: str | None
    interface: str | None
    media: str | None
    capacity_gb: float | None
    """Of each."""
    count: int | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Machines that are alike."""

    title: str | None
    quantity: int | None
    cpu_model: str | None
    cores: int | None
    memory_gib: float | None
    """Of each."""
    networks: tuple[Network, ...]
    drives: tuple[Drives, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A described system."""

    document: Document
    clients: tuple[Machine, ...]
    servers: tuple[Machine, ...]
    """The nodes of the storage product."""
    storage_location: str | None
    usable_capacity_tib: float | None


def description_of(document: Document) -> Description:
    """What a system description says."""
    system = dig(document.content, "system_under_test")
    solution = dig(system, "solution")
    return Description(
        document=document,
        clients=_machines(dig(system, "clients")),
        servers=_machines(dig(system, "product_nodes")),
        storage_location=_text(dig(solution, "architecture", "storage_location")),
        usable_capacity_tib=number(dig(solution, "usable_capacity_tib")),
    )


def _machines(entries: Any) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            title=_text(dig(entry, "friendly_description")),
            quantity=whole(dig(entry, "quantity")),
            cpu_model=_text(dig(entry, "chassis", "cpu_model")),
            cores=whole(dig(entry, "chassis", "cpu_cores")),
            memory_gib=number(dig(entry, "chassis", "memory_capacity")),
            networks=tuple(_network(each) for each in items(dig(entry, "networking"))),
            drives=tuple(_drives(each) for each in items(dig(entry, "drives"))),
        )
        for entry in items(entries)
    )


def _network(entry: Any) -> Network:
    return Network(
        kind=_text(dig(entry, "type")),
        gbit_per_s=number(dig(entry, "speed")),
        count=whole(dig(entry, "unit_count")),
        state=_text(dig(entry, "state")),
        traffic=tuple(each for each in items(dig(entry, "traffic")) if isinstance(each, str)),
    )


def _drives(entry: Any) -> Drives:
    return Drives(
        vendor=_text(dig(entry, "vendor_name")),
        model=_text(dig(entry, "model_name")),
        interface=_text(dig(entry, "interface")),
        media=_text(dig(entry, "media_type")),
        capacity_gb=number(dig(entry, "capacity_in_GB")),
        count=whole(dig(entry, "unit_count")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
