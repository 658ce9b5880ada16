"""The commands about made-up sessions: `trace fit`, `trace generate`."""

import json
from pathlib import Path
from typing import Any, Final

import click
import yaml
from kvbench_analysis.plots.sessions import fitted_sessions

from kvbench.commands.options import OUTPUT_FILE, PATH, PICTURE_FILE, config_argument, set_option, skip_option
from kvbench.commands.trace_files import out_option, overwrite_option
from kvbench.config.load import load_config, parse_config
from kvbench.config.run_config import RunConfig, SessionsWorkload
from kvbench.console import make_console
from kvbench.errors import KvbenchError
from kvbench.records.outputs import PARQUET, Kind, check_output, write_output
from kvbench.run.planning.likeness import likeness
from kvbench.run.planning.print import print_bad_lines
from kvbench.run.planning.print_likeness import print_likeness
from kvbench.units import storable
from kvbench.workload.sessions import made_trace
from kvbench.workload.sessions.fit import Fitted, fit
from kvbench.workload.traces.files import trace_files
from kvbench.workload.traces.parquet import encoded, pyarrow
from kvbench.workload.traces.read import read_files

FITTED: Final = Kind("a fitted configuration", (b"# Fitted by kvbench trace fit",))


@click.command("fit")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=PATH)
@click.option("-o", "--out", type=OUTPUT_FILE, help="Write the parameters as a configuration (YAML).")
@overwrite_option
@click.option("--plot", type=PICTURE_FILE, help="A picture of fitted and real (PNG, SVG or PDF by its name).")
@skip_option
@click.option("--json", "as_json", is_flag=True, help="Print parameters and distances as JSON.")
def fit_command(
    paths: tuple[Path, ...], out: Path | None, overwrite: bool, plot: Path | None, skip_bad_lines: bool, as_json: bool
) -> str | None:
    """Estimate the parameters of sessions from the trace of PATHS, and say how near what they make up comes to it.

    Each is a file, a folder of files or a pattern; all are of one format, and have sessions and ids of blocks.
    """
    files = [file for path in paths for file in trace_files(path)]
    output = None if out is None else check_output(out, FITTED, replace=overwrite, inputs=files)
    source = ", ".join(map(str, paths))
    trace = read_files(files, source, skip_bad_lines=skip_bad_lines)
    fitted = fit(trace)
    content = _configuration(fitted)
    compared = likeness(trace, parse_config(content, source))
    if output is not None:
        write_output(output, _as_yaml(content, trace.digest).encode(), FITTED)
    if plot is not None:
        fitted_sessions(compared.as_dict()).save(plot)
    if as_json:
        parameters = {key: _at(content["workload"], key) for key in fitted.from_what}
        click.echo(json.dumps({"parameters": parameters, "likeness": compared.as_dict()}, indent=2))
    else:
        console = make_console()
        print_bad_lines(trace.bad_lines, storable(trace.first_bad_line), console)
        print_likeness(source, fitted, compared, console)
    made = " and ".join(str(path) for path in (out, plot) if path is not None)
    return f"{made} {'are' if out and plot else 'is'} complete" if made else None


@click.command()
@config_argument
@set_option
@click.option("--ranks", type=click.IntRange(min=1), default=1, show_default=True, help="Those of so many ranks.")
@out_option
@overwrite_option
def generate(config: str, overrides: tuple[str, ...], ranks: int, out: Path, overwrite: bool) -> str:
    """Write the requests that the sessions of CONFIG make up, those of all ranks in order of time, as one Parquet file
    of kvbench's own format."""
    pyarrow(f"making {out}")
    output = check_output(out, PARQUET, replace=overwrite, inputs=[config])
    loaded = load_config(config, overrides)
    _check_sessions(loaded, config)
    trace = made_trace(loaded, ranks)
    write_output(output, encoded(trace), PARQUET)
    make_console().print(
        f"{out} holds {len(trace)} requests of {ranks} {'rank' if ranks == 1 else 'ranks'} of {config}, digest "
        f"{trace.digest}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return f"{out} is complete"


def _check_sessions(config: RunConfig, source: str) -> None:
    if not isinstance(config.workload, SessionsWorkload):
        raise KvbenchError(
            f"{source}: only sessions are made up as a trace, and workload.kind is {config.workload.kind}: set it to "
            "sessions"
        )


def _configuration(fitted: Fitted) -> dict[str, Any]:
    """What `kvbench run` and `plan` take: only what was estimated, the rest being defaults."""
    workload = fitted.workload.model_dump(mode="json")
    chosen: dict[str, Any] = {"kind": "sessions"}
    for key in fitted.from_what:
        section, _, name = key.rpartition(".")
        (chosen.setdefault(section, {}) if section else chosen)[name] = _plain(_at(workload, key))
    return {
        "name": "fitted",
        "workload": chosen,
        "cache": {"block_tokens": fitted.workload.id_tokens},
        "pacing": {"mode": "open"},
        "tiers": [{"kind": "file", "capacity_bytes": "auto"}],
        "duration_s": None,
    }


def _at(content: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return (content[section] if section else content)[name]


def _plain(value: Any) -> Any:
    """Numbers as a person writes them."""
    if isinstance(value, dict):
        return {_plain(_number(key)): _plain(number) for key, number in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(key: str) -> float | str:
    try:
        return float(key)
    except ValueError:
        return key


def _as_yaml(content: dict[str, Any], digest: str) -> str:
    head = FITTED.starts[0].decode()
    return f"{head} to a trace of digest {digest}\n" + yaml.safe_dump(
        content, sort_keys=False, default_flow_style=None, width=1000
    )
