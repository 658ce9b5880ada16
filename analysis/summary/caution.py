"""One warning of a summary."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caution:
    """One warning: `code` is stable and for programs, `message` is for people."""

    code: str
    message: str
