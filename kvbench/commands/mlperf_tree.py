"""The commands that read submission trees: mlperf check, mlperf table. Parse, call, print."""

import json
import sys
from pathlib import Path

import click

from kvbench.commands.options import PATH
from kvbench.console import make_console
from kvbench.errors import KvbenchError
from kvbench.mlperf.audit.audit import audit
from kvbench.mlperf.check.checker import WHERE_RUNS_ARE, check_tree
from kvbench.mlperf.check.print import print_verdict
from kvbench.mlperf.check.results_table import FORMATS, table_rows


@click.command()
@click.argument("tree", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(tree: Path, as_json: bool) -> None:
    """Check TREE, a submission of one submitter or a merged tree of many, by every rule of sections 2.1 and 6.

    All violations are reported; exit 1 if there is any, or no run to check.
    """
    verdict = check_tree(tree)
    if as_json:
        click.echo(json.dumps(verdict.as_dict(), indent=2))
    else:
        print_verdict(verdict, make_console())
    if not verdict.passed:
        sys.exit(1)


@click.command()
@click.argument("trees", nargs=-1, required=True, type=PATH, metavar="TREE...")
@click.option("--format", "form", type=click.Choice(["md", "csv", "html"]), default="md", show_default=True)
def table(trees: tuple[Path, ...], form: str) -> None:
    """Print the results of the systems in TREEs: headline figures and clients of each option, what breaks rules,
    and what an audit found."""
    verdicts = [check_tree(tree) for tree in trees]
    audits = audit([(verdict.tree, str(tree)) for tree, verdict in zip(trees, verdicts, strict=True)])
    marks = {(one.path, option.number): one.marks(option.number) for one in audits for option in one.leaf.options}
    click.echo(FORMATS[form](table_rows(verdicts, marks)), nl=False)
    if empty := [str(tree) for tree, verdict in zip(trees, verdicts, strict=True) if not verdict.runs]:
        raise KvbenchError(f"no run of the KV cache in {', '.join(empty)}: {WHERE_RUNS_ARE}")
