"""The command that audits submission trees: mlperf audit. Parse, call, print."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from kvbench.commands.options import OUTPUT_FILE, PATH, either
from kvbench.errors import KvbenchError
from kvbench.mlperf.audit.audit import LeafAudit, audit_trees
from kvbench.mlperf.audit.markdown import as_markdown
from kvbench.mlperf.audit.page import as_html
from kvbench.mlperf.audit.shown import TITLE, as_json
from kvbench.mlperf.tree.code_hash import image_hashes
from kvbench.mlperf.tree.untrusted import Unreadable
from kvbench.records.outputs import JSON, PAGE, Kind, check_output, write_output

_MARKDOWN: Final = Kind("an audit in Markdown", (f"# {TITLE}".encode(),))
_FORMS: Final[Mapping[str, tuple[Kind, Callable[[Sequence[LeafAudit]], str]]]] = {
    **dict.fromkeys(("", ".md", ".txt"), (_MARKDOWN, as_markdown)),
    ".html": (PAGE, as_html),
    ".json": (JSON, as_json),
}
"""By the ending of a file's name; its content is of a kind that may be replaced."""


@click.command()
@click.argument("trees", nargs=-1, required=True, type=PATH, metavar="TREE...")
@click.option("--json", "to_json", is_flag=True, help="Print the audit as JSON.")
@click.option("-o", "--out", type=OUTPUT_FILE, help="Write it to this file: Markdown, or .html or .json.")
@click.option(
    "--upstream", type=PATH, help="A checkout of the benchmark's code as its authors published it, to compare."
)
def audit(trees: tuple[Path, ...], to_json: bool, out: Path | None, upstream: Path | None) -> str | None:
    """Say what the figures in TREEs cover and what they do not, with the evidence: what the rules do not ask."""
    either("--json", to_json, "-o", out)
    if out is None:
        found = audit_trees(trees, _hashes(upstream))
        click.echo(as_json(found) if to_json else as_markdown(found), nl=False)
        return None
    kind, form = _FORMS.get(out.suffix.lower(), _FORMS[""])
    for tree in trees:
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(tree)):
            raise KvbenchError(f"cannot write {out}: it lies in {tree}, which this command reads; give another name")
    output = check_output(out, kind)
    if out.suffix.lower() not in _FORMS:
        raise KvbenchError(f"cannot write {out}: an audit is Markdown (.md, .txt), a page (.html) or .json; name it so")
    write_output(output, form(audit_trees(trees, _hashes(upstream))).encode(), kind)
    click.echo(out)
    return f"{out} is complete"


def _hashes(checkout: Path | None) -> tuple[str, ...]:
    """The hashes of upstream's code in a checkout, by both readings of the rules; none without one."""
    if checkout is None:
        return ()
    if not checkout.is_dir():
        raise KvbenchError(f"{checkout} is no directory: give a checkout of the benchmark's code")
    try:
        return image_hashes(checkout)
    except Unreadable as error:
        raise KvbenchError(f"cannot take the hash of {checkout}: {error}") from error
