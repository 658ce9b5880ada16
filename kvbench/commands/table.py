"""The table of commands: the words that call each, where it is, and what it is for. A new command is one file and one
entry here.

Modules are named and not imported: each rank of a run comes through here, hundreds of them at once on a node that has
few processors, and needs none but its own. So a command's module imports at its top whatever the command needs.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from kvbench.cluster.signals import at_once


class Entry(NamedTuple):
    """A command, or a group of them, which has no place."""

    summary: str
    """The first sentences of its help, for the list of commands."""
    place: str = ""
    """`module:function`, where the function is a click command."""

    def command(self) -> click.Command:
        """The command itself; its module is imported."""
        module, name = self.place.split(":")
        with at_once():
            command: click.Command = getattr(import_module(module), name)
        return command


COMMANDS: Final[dict[str, Entry]] = {
    "clean": Entry(
        "List the cache files and unfinished outputs that killed runs left in DIR, then delete them.",
        "kvbench.commands.clean:clean",
    ),
    "compare": Entry(
        "Compare the same workload on two or more targets: A.h5 ... --vs B.h5 ... [--vs C.h5 ...].",
        "kvbench.commands.analysis:compare",
    ),
    "configs": Entry("List the configurations that come with kvbench.", "kvbench.commands.look:configs"),
    "datasize": Entry(
        "Say how many bytes of storage and memory CONFIG needs per rank, per node and in all, without running it.",
        "kvbench.commands.look:datasize",
    ),
    "doctor": Entry(
        "Check this node, and DIRECTORY if given; exit 1 if a run would fail.", "kvbench.commands.look:doctor"
    ),
    "export": Entry(
        "Write every table of RUN_FILE into a new folder of Parquet files, for programs that query more than memory "
        "holds.",
        "kvbench.commands.export:export",
    ),
    "history": Entry(
        "List the runs of all run files below FOLDERS, in order of time: when, where and what, and how fast storage "
        "was.",
        "kvbench.commands.history:history",
    ),
    "mlperf": Entry("MLPerf Storage, KV cache: the trials of a submission."),
    "mlperf audit": Entry(
        "Say what the figures in TREEs cover and what they do not, with the evidence: what the rules do not ask.",
        "kvbench.commands.mlperf_audit:audit",
    ),
    "mlperf check": Entry(
        "Check TREE, a submission of one submitter or a merged tree of many, by every rule of sections 2.1 and 6.",
        "kvbench.commands.mlperf_tree:check",
    ),
    "mlperf package": Entry(
        "Make the submission tree OUT/SUBMITTER of RESULTS, a results directory of `kvbench mlperf run`.",
        "kvbench.commands.mlperf_package:package_command",
    ),
    "mlperf run": Entry(
        "Run the options of the rules, three trials each, and write the results of every rank and the run summary.",
        "kvbench.commands.mlperf_run:run",
    ),
    "mlperf table": Entry(
        "Print the results of the systems in TREEs: headline figures and clients of each option, what breaks rules, "
        "and what an audit found.",
        "kvbench.commands.mlperf_tree:table",
    ),
    "model": Entry("A storage in a file: how long its operations take, from run files, for predictions."),
    "model fit": Entry(
        "Estimate from RUN_FILES how long operations of their storage take, by what is done, size and how much is in "
        "flight, for `kvbench plan --storage`.",
        "kvbench.commands.model_storage:fit_command",
    ),
    "model show": Entry(
        "Print what FILE, a storage model, says: times by operation, size and load, what was measured, and where.",
        "kvbench.commands.model_storage:show_command",
    ),
    "plan": Entry(
        "Decide all that the requests of CONFIG ask of the cache, and count it: hits, and bytes of every tier. "
        "Nothing is read or written. With --storage, predict how long it would take on a storage that is not here.",
        "kvbench.commands.plan:plan_command",
    ),
    "recover": Entry(
        "Make a run file of what a run that was killed has left: spill files, or directories that hold them.",
        "kvbench.commands.recover:recover",
    ),
    "report": Entry(
        "Write one self-contained HTML page about RUN_FILES: the answer, distributions, contention, timeline, "
        "warnings.",
        "kvbench.commands.analysis:report",
    ),
    "run": Entry(
        "Run the benchmark that CONFIG (a YAML file or the name of a shipped one) describes.",
        "kvbench.commands.run:run",
    ),
    "search": Entry(
        "Find the highest load of CONFIG that meets its objectives, with an interval: run after run at other loads.",
        "kvbench.commands.search:search",
    ),
    "study": Entry(
        "Experiments: what a host copy costs, how a workload scales, how far engines are from the storage, what faster "
        "parts would change."
    ),
    "study copy-path": Entry(
        "Measure what a second copy of the data costs, one rank alone and all ranks at once, for every read path.",
        "kvbench.commands.study_copy_path:copy_path",
    ),
    "study engines": Entry(
        "Serve the requests of CONFIG as several engines would, on one storage, and say how far each is from its "
        "limit.",
        "kvbench.commands.study_engines:engines",
    ),
    "study scaling": Entry(
        "Run the workload of CONFIG on more and more ranks and nodes, and fit the Universal Scalability Law.",
        "kvbench.commands.study_scaling:scaling",
    ),
    "study show": Entry("Print what STUDY_FILE says.", "kvbench.commands.study_show:show"),
    "study whatif": Entry(
        "Predict what faster storage, processors or copies, or more cores would change for the requests of CONFIG.",
        "kvbench.commands.study_whatif:whatif",
    ),
    "summary": Entry(
        "Print the figures of RUN_FILE: bandwidth, latency and its parts, per tier, rank and node, or a study's table.",
        "kvbench.commands.analysis:summary",
    ),
    "trace": Entry("Look at traces, and make others of them."),
    "trace convert": Entry(
        "Write the trace of PATHS, whatever its format, as one Parquet file of kvbench's own format.",
        "kvbench.commands.trace_files:convert",
    ),
    "trace fit": Entry(
        "Estimate the parameters of sessions from the trace of PATHS, and say how near what they make up comes to it.",
        "kvbench.commands.trace_sessions:fit_command",
    ),
    "trace generate": Entry(
        "Write the requests that the sessions of CONFIG make up, those of all ranks in order of time, as one Parquet "
        "file of kvbench's own format.",
        "kvbench.commands.trace_sessions:generate",
    ),
    "trace info": Entry(
        "Print requests, span, sessions, token and reuse statistics of the trace at PATH.",
        "kvbench.commands.look:info",
    ),
    "trace sample": Entry(
        "Write requests drawn at random from the trace at PATH, or whole sessions, as a Parquet file.",
        "kvbench.commands.trace_files:sample",
    ),
    "trace slice": Entry(
        "Write the requests of a part of the trace at PATH, by time or by number, as a Parquet file.",
        "kvbench.commands.trace_files:cut",
    ),
}
"""By the words that call them."""


class _Below(Mapping[str, click.Command]):
    """The commands that are called by the words `above` and one more; each is imported when it is taken."""

    def __init__(self, above: str) -> None:
        self._above = above

    def __getitem__(self, word: str) -> click.Command:
        if " " in word:
            raise KeyError(word)
        words = self._above + word
        entry = COMMANDS[words]
        return entry.command() if entry.place else CommandGroup(word, above=f"{words} ", help=entry.summary)

    def __iter__(self) -> Iterator[str]:
        below = (words.removeprefix(self._above) for words in COMMANDS if words.startswith(self._above))
        return (word for word in below if " " not in word)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def summaries(self) -> dict[str, click.Command]:
        """Commands with a text and nothing else, to be listed."""
        return {word: click.Command(word, help=COMMANDS[self._above + word].summary) for word in self}


class CommandGroup(click.Group):
    """The commands of the table that are called by the words `above` and one more."""

    def __init__(self, *arguments: Any, above: str = "", **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self._below = _Below(above)
        self.commands = self._below  # type: ignore[assignment]  # nothing is added to it

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # As click does it, but for importing them all, which takes seconds.
        click.Group(commands=self._below.summaries()).format_commands(ctx, formatter)
