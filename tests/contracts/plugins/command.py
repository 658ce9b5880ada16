"""A command: `kvbench greet NAME`."""

import click

from kvbench.commands.table import COMMANDS, Entry


@click.command()
@click.argument("name")
def greet(name: str) -> None:
    """Say hello to NAME."""
    click.echo(f"hello {name}")


COMMANDS["greet"] = Entry("Say hello to NAME.", f"{__name__}:greet")
