"""The type of every path on a command line."""

import os
from typing import Any

import click


class GivenPath(click.Path):
    """A path, and not an empty text, which would mean the working directory: a variable of a script that nobody set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("a path is needed, and this is empty (`.` is the working directory)", param, ctx)
        return super().convert(value, param, ctx)
