"""The three options of the rules, as the shipped presets configs/mlperf/option-{1,2,3}.yaml say; no number is here."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from kvbench.config.load import load_config
from kvbench.config.run_config import RunConfig
from kvbench.mlperf.tree.numbers import AMOUNT
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, number, whole
from kvbench.units import GIB

OPTIONS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class OptionSettings:
    """A row of the option table (Rules.md, table KVCache-1), per client. MISSING where a value is not known."""

    model: Any
    users: Any
    duration_s: Any
    gpu_gb: Any
    cpu_gb: Any
    max_concurrent_allocs: Any
    generation: Any

    def as_dict(self) -> dict[str, Any]:
        """The values by their names."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@cache
def option_preset(option: int) -> RunConfig:
    """The shipped configuration of an option."""
    path = resources.files("kvbench_configs").joinpath("mlperf").joinpath(f"option-{option}.yaml")
    return load_config(str(path))


@cache
def wanted_settings(option: int) -> OptionSettings:
    """The row of the table, read from the preset."""
    return settings_of(option_preset(option).model_dump(mode="json"))


def settings_of(config: Any) -> OptionSettings:
    """The row that a run's configuration (as JSON, from anywhere) comes to."""
    per_token = number(dig(config, "workload", "generation_ms_per_token"))
    return OptionSettings(
        model=dig(config, "model"),
        users=dig(config, "workload", "users"),
        duration_s=dig(config, "duration_s"),
        gpu_gb=_tier_gib(config, "gpu"),
        cpu_gb=_tier_gib(config, "memory"),
        max_concurrent_allocs=dig(config, "io", "max_concurrent_allocs"),
        generation=MISSING if per_token is None else "none" if per_token == 0 else f"{per_token:g} ms per token",
    )


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with its tiers as a mapping, for `differences`; without how many records are kept, which is no workload.

    The sizes of the tiers of memory are left out: they stand in the option table.
    """
    tiers = {
        str(place): {
            key: value for key, value in tier.items() if dig(tier, "kind") == "file" or key != "capacity_bytes"
        }
        for place, tier in enumerate(items(config.get("tiers")))
        if isinstance(tier, Mapping)
    }
    return {key: value for key, value in config.items() if key not in {"records", "tiers"}} | {"tiers": tiers}


def same(found: Any, wanted: Any) -> bool:
    """Whether two values are the same setting: numbers by value, all else exactly."""
    left, right = number(found), number(wanted)
    return left == right if left is not None and right is not None else type(found) is type(wanted) and found == wanted


def differences(found: Any, wanted: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, found, wanted) of every value in which two configurations differ."""
    different: list[tuple[str, Any, Any]] = []
    names = dict.fromkeys([*wanted, *(found if isinstance(found, Mapping) else ())])
    for name in names:
        left, right = dig(found, name), wanted.get(name, MISSING)
        if isinstance(right, Mapping) and isinstance(left, Mapping):
            different += differences(left, right, f"{prefix}{name}.")
        elif not same(left, right):
            different.append((f"{prefix}{name}", left, right))
    return different


def bad_values(found: Any, wanted: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of what is no number in a configuration, and should be: since it is NaN, Infinity or below
    zero, or since `wanted` has a number there. null is let be, which many settings may be."""
    if isinstance(found, Mapping | list):
        inside = found.items() if isinstance(found, Mapping) else enumerate(found)
        return [bad for key, value in inside for bad in bad_values(value, dig(wanted, key), f"{prefix}{key}.")]
    should_be = any(isinstance(value, int | float) and not isinstance(value, bool) for value in (found, wanted))
    return [(prefix[:-1], found)] if should_be and found is not None and AMOUNT.problem(found) is not None else []


def _tier_gib(config: Any, kind: str) -> Any:
    tiers = dig(config, "tiers")
    if not isinstance(tiers, list):
        return MISSING
    sizes = [whole(dig(tier, "capacity_bytes")) for tier in items(tiers) if dig(tier, "kind") == kind]
    return MISSING if None in sizes else sum(size for size in sizes if size is not None) / GIB
