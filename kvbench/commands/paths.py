"""The types of every path on a command line, and of every place under test, which need not be one."""

import os
import re
from pathlib import Path
from typing import Any, Final

import click

_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://.*", re.DOTALL)


class GivenPath(click.Path):
    """A path, and not an empty text, which would mean the working directory: a variable of a script that nobody set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("a path is needed, and this is empty (`.` is the working directory)", param, ctx)
        return super().convert(value, param, ctx)


class GivenPlace(GivenPath):
    """A place under test, as text: a path, or an address such as s3://bucket/prefix, which stays as it is."""

    def __init__(self) -> None:
        super().__init__(readable=False)


def is_address(place: str) -> bool:
    """Whether a place under test is no path."""
    return _ADDRESS.fullmatch(place) is not None


def absolute_place(place: str) -> str:
    """A place under test from the root, whatever the working directory is."""
    return place if is_address(place) else str(Path(place).absolute())
