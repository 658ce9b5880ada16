"""The metadata file of a leaf that `mlpstorage` wrote: kv_cache_STAMP_metadata.json.

Many values in it are defaults of the tool that nobody used: `parameters`, their flat copies and most of `args` say 100
users and 60 s in runs of 200 and 300 s. What ran stands in the commands, and in newer files also in
`parameters.options`, `.sequence` and `.features`; of `args` only what is known to be true can be asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kvbench.mlperf.tree.commands import Command, read_command
from kvbench.mlperf.tree.document import Document
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, number, whole

TRUE_ARGUMENTS: Final = frozenset(
    {
        "cache_dir",
        "results_dir",
        "hosts",
        "seed",
        "trials",
        "inter_option_delay",
        "mpi_params",
        "systemname",
        "orgname",
        "num_processes",
        "num_client_hosts",
        "config",
        "config_file",
        "_validated_pool_hash",
    }
)
"""Of `args`, what the run really used; null is no claim."""
_MOST_OPTIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Host:
    """A host as the tool found it before the run; None for what is not recorded."""

    name: str | None
    memory_bytes: int | None
    cores: int | None
    cpu_model: str | None
    kernel: str | None
    os_name: str | None
    disks: tuple[str, ...]
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a metadata file says."""

    document: Document
    commands: tuple[Command, ...]
    """Of all trials, in the order of the file."""
    options: Mapping[int, Any]
    """What each option was run with, by its number, in the reference tool's names; empty in older files."""
    sequence: Any
    """seed, trials, inter_option_delay_s and config of newer files; MISSING in older ones."""
    features: Any
    """Switches that were passed on (newer files); MISSING in older ones."""
    hosts: tuple[Host, ...]

    def argument(self, name: str) -> Any:
        """An argument of TRUE_ARGUMENTS; MISSING where it is absent or null."""
        assert name in TRUE_ARGUMENTS, f"{name} may be a default that nobody used"
        value = dig(self.document.content, "args", name)
        return MISSING if value is None else value

    @property
    def mpi_params(self) -> tuple[str, ...]:
        """Words that the submitter gave to the launcher."""
        given = self.argument("mpi_params")
        words = given.split() if isinstance(given, str) else items(given)
        return tuple(word for word in words if isinstance(word, str))

    @property
    def stamp(self) -> str | None:
        """run_datetime, YYYYMMDD_HHmmss, local."""
        return _text(dig(self.document.content, "run_datetime"))

    @property
    def provenance_name(self) -> str | None:
        """The name of the stamp file that the leaf should have; None where it never had one."""
        return _text(dig(self.document.content, "provenance_file"))

    @property
    def result_directory(self) -> str | None:
        """Where the leaf was written."""
        return _text(dig(self.document.content, "result_dir"))

    @property
    def runtime_s(self) -> float | None:
        """How long the whole sequence took."""
        return number(dig(self.document.content, "runtime"))

    @property
    def started_at(self) -> datetime | None:
        """When it began; local, without a zone."""
        return _time(dig(self.document.content, "invocation_start_time"))

    @property
    def ended_at(self) -> datetime | None:
        """When it ended; local, without a zone."""
        return _time(dig(self.document.content, "invocation_end_time"))

    def preloaded(self) -> dict[str, list[Command]]:
        """The libraries that commands preload, each with the commands that do."""
        found: dict[str, list[Command]] = {}
        for command in self.commands:
            for library in command.preloaded:
                found.setdefault(library, []).append(command)
        return found


def metadata_of(document: Document) -> Metadata:
    """What `document` says; nothing of anything where it cannot be read."""
    content = document.content
    texts = [dig(entry, "command") for entry in items(dig(content, "command_output_files"))]
    return Metadata(
        document=document,
        commands=tuple(read_command(text) for text in texts if isinstance(text, str)),
        options=_options(dig(content, "parameters", "options")),
        sequence=dig(content, "parameters", "sequence"),
        features=dig(content, "parameters", "features"),
        hosts=tuple(_host(host) for host in items(dig(content, "system_info", "hosts"))),
    )


def _options(found: Any) -> dict[int, Any]:
    if not isinstance(found, dict):
        return {}
    numbers = [name for name in found if isinstance(name, str) and name.isascii() and name.isdecimal()]
    return {int(name): found[name] for name in numbers[:_MOST_OPTIONS] if len(name) <= 9}


def _host(host: Any) -> Host:
    return Host(
        name=_text(dig(host, "hostname")),
        memory_bytes=whole(dig(host, "memory", "total")),
        cores=whole(dig(host, "cpu", "num_cores")),
        cpu_model=_text(dig(host, "cpu", "model")),
        kernel=_text(dig(host, "system", "kernel_version")),
        os_name=_text(dig(host, "system", "os_release", "PRETTY_NAME")),
        disks=_names(dig(host, "disks"), "device_name"),
        interfaces=_names(dig(host, "network"), "interface_name"),
    )


def _names(entries: Any, key: str) -> tuple[str, ...]:
    return tuple(name for entry in items(entries) if isinstance(name := dig(entry, key), str))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
