"""Values that came from a file, made fit for a console and for JSON. Chooses no words and computes no figure."""

import math
from typing import Any

from rich.text import Text


def plain(value: Any) -> Any:
    """`value` with numpy scalars as Python ones, and None for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def safe_text(value: Any, style: str = "", *, lines: bool = False) -> Text:
    """Text that came from a file: control characters could drive the terminal. `lines` lets ends of lines through."""
    return Text("".join(c if c.isprintable() or (lines and c == "\n") else "?" for c in str(value)), style)
