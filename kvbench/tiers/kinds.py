"""The table of kinds of tiers: what opens a tier of each kind, or the target that its tiers are opened in.

A new kind is one file here, one entry in the table, and its facts in `config.names`.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kvbench.config.names import TIER_KINDS, TierKind
from kvbench.config.run_config import RunConfig
from kvbench.tiers.contract import Tier
from kvbench.tiers.file.device import DeviceTarget, is_block_device
from kvbench.tiers.file.target import DirectoryTarget
from kvbench.tiers.memory import MemoryTier
from kvbench.tiers.modelled import ModelledTier
from kvbench.tiers.null import NullTier
from kvbench.tiers.object.address import SCHEMES
from kvbench.tiers.target import Area, NoTarget, Target, TierSettings


def _in_area(area: Area, settings: TierSettings) -> Tier:
    return area.open_tier(settings)


def _bucket(address: str) -> Target:
    from kvbench.tiers.object.target import BucketTarget  # noqa: PLC0415 - asyncio, which few runs need

    return BucketTarget(address)


class Kind(NamedTuple):
    """How tiers of a kind come about."""

    open_tier: Callable[[Area, TierSettings], Tier] = _in_area
    target: Callable[[str], Target] | None = None
    """From the address of a place under test, the target there; None for a kind that lies nowhere."""
    schemes: tuple[str, ...] = ()
    """What addresses of its targets begin with, where they are no paths: `s3` for `s3://bucket`."""


KINDS: Final[dict[str, Kind]] = {
    "memory": Kind(lambda area, settings: MemoryTier(settings.capacity_bytes, settings.io.io_bytes)),
    "null": Kind(lambda area, settings: NullTier()),
    "gpu": Kind(lambda area, settings: ModelledTier()),
    "file": Kind(target=DirectoryTarget),
    "object": Kind(target=_bucket, schemes=SCHEMES),
}


def register(name: str, kind: Kind, facts: TierKind) -> None:
    """Add a kind to those that a configuration may name."""
    KINDS[name] = kind
    TIER_KINDS[name] = facts


def kind_at(address: str) -> str:
    """The kind whose targets are addressed so: files in a directory, unless it begins with another kind's scheme."""
    scheme, sign, _ = address.partition("://")
    return next((name for name, kind in KINDS.items() if sign and kind.target and scheme in kind.schemes), "file")


def target_at(address: str) -> Target:
    """The target that an address means by itself."""
    make = KINDS[kind_at(address)].target
    assert make is not None
    return make(address)


def target_of(config: RunConfig, address: str | None) -> Target:
    """The target of a configuration's storage; `address` may be None where it needs none."""
    if address is None:
        return NoTarget()
    make = KINDS[config.tiers[-1].kind].target
    if config.tiers[-1].layout.kind == "slab" and is_block_device(address):
        return DeviceTarget(address)
    # A place that no tier uses is looked at and recorded all the same.
    return target_at(address) if make is None else make(address)


def open_tiers(config: RunConfig, capacities: Sequence[int], area: Area) -> list[Tier]:
    """The tiers of a configuration, fastest first; those that keep their objects in the target have them in `area`."""
    shared = config.namespace == "shared"
    sections = zip(config.tiers, capacities, strict=True)
    settings = [TierSettings(section, config.io, capacity, shared) for section, capacity in sections]
    return [KINDS[one.section.kind].open_tier(area, one) for one in settings]
