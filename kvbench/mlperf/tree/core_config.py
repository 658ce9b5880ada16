"""The hash of the configuration that a run was stamped with, `core-config-v1` (Rules.md 2.1.6, provenance stamps)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def core_hash(values: Mapping[str, Any]) -> str:
    """SHA-256 of the values by their keys as JSON, of which 16 hexadecimal digits are kept."""
    plain_values = {key: plain(value) for key, value in values.items()}
    text = json.dumps(plain_values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def plain(value: Any) -> Any:
    """7, 7.0 and "7" are one value."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            return plain(float(text)) if set(text) & set(".eE") else int(text)
        except (ValueError, OverflowError):
            return text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [plain(each) for each in value] if isinstance(value, list) else value
