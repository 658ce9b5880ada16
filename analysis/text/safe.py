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
    """Text that came from a file: control characters could drive the terminal. `lines` lets ends of lines through.

    Bytes of a file's name that are no text appear as escapes (`\\xff`).
    """
    return Text("".join(_shown(c, lines) for c in str(value)), style)


def _shown(character: str, lines: bool) -> str:
    if character.isprintable() or (lines and character == "\n"):
        return character
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else "?"
