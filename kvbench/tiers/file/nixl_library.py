"""The transfer library NIXL as it is installed here: its version, its backends, and whether one can be used as asked.

It is loaded when it is asked for, and not before. What an agent is used for: `nixl_agent`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from kvbench.config.sections import Nixl
from kvbench.errors import KvbenchError

OLDEST: Final = (1, 5)
_INSTALL: Final = (
    "install kvbench[nixl], or only what is needed, `pip install --no-deps nixl nixl-cu13` (or nixl-cu12, as the "
    "node's CUDA is); or use --set io.engine=sync"
)
_MEMORY: Final = "DRAM_SEG"
_FILES: Final = "FILE_SEG"
_USUAL_QUEUE: Final = 256
"""Requests that POSIX has the kernel's queue made for where nothing else is said."""
_LONGEST_QUEUE: Final = 1024


@dataclass(frozen=True)
class Library:
    """NIXL, loaded."""

    api: Any
    """The module `nixl`."""
    errors: tuple[type[Exception], ...]
    """What its calls raise, as far as that is no mistake of ours."""
    version: str
    """With that of the package for the node's CUDA: `1.5.1 (nixl-cu13 1.5.1)`."""

    def agent(self, name: str) -> Any:
        """An agent with no backend and no threads. Raises one of `errors`."""
        return self.api.nixl_agent(name, self.api.nixl_agent_config(enable_prog_thread=False, backends=[]))


def is_installed() -> bool:
    """Whether there is such a package, of whatever version; loads nothing."""
    try:
        version("nixl")
    except PackageNotFoundError:
        return False
    return True


@cache
def load() -> Library:
    """Raises KvbenchError where it is not installed, too old, or does not load."""
    try:
        found = version("nixl")
    except PackageNotFoundError:
        raise KvbenchError(f"io.engine=nixl: the package nixl is not installed: {_INSTALL}") from None
    if _numbers(found) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise KvbenchError(f"io.engine=nixl: nixl {found} is installed, and {oldest} or newer is needed: {_INSTALL}")
    # It prints what it does and what goes wrong; kvbench tells what goes wrong itself.
    os.environ.setdefault("NIXL_LOG_LEVEL", "FATAL")
    try:
        api = import_module("nixl")
        bindings = import_module("nixl._bindings")
    except ImportError as error:
        raise KvbenchError(f"io.engine=nixl: nixl {found} cannot be loaded ({error}): {_INSTALL}") from error
    raised = [kind for kind in vars(bindings).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    # The module only stands for that of the node's CUDA (nixl_cu13), which is a package of its own.
    own = bindings.__name__.partition(".")[0].replace("_", "-")
    try:
        found += f" ({own} {version(own)})"
    except PackageNotFoundError:
        found += f" ({own})"
    return Library(api, (*raised, RuntimeError), found)


def _numbers(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    parts = [part for part in text.split(".")[:2] if part.isdecimal()]
    return tuple(map(int, parts))


def file_backends() -> dict[str, bool]:
    """Every backend of the package: whether it loads here, and moves bytes between memory and files. Raises
    KvbenchError."""
    agent = load().agent("kvbench-look")
    return {name: _moves_files(agent, name) for name in sorted(agent.get_plugin_list())}


def _moves_files(agent: Any, backend: str) -> bool:
    return {_MEMORY, _FILES} <= set(agent.get_plugin_mem_types(backend))


def options_of(section: Nixl, depth: int) -> dict[str, str]:
    """What the backend is made with, as NIXL has it: text. The queue of POSIX is made longer where `depth` is more than
    it usually holds, unless the configuration says how long it is."""
    options = {name: _as_text(value) for name, value in section.options.items()}
    if section.backend == "POSIX" and depth > _USUAL_QUEUE:
        options.setdefault("kernel_queue_size", str(min(depth, _LONGEST_QUEUE)))
    return options


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def uses_ring(backend: str, options: Mapping[str, str]) -> bool:
    """Whether its requests are made on a ring of the kernel, whose workers then are threads of the process."""
    return backend == "POSIX" and options.get("use_uring") == "true"


def check_nixl(section: Nixl, depth: int) -> None:
    """Raise KvbenchError where NIXL or this backend cannot be used here, with what there is."""
    library = load()
    backend, options = section.backend, options_of(section, depth)
    agent = library.agent("kvbench-check")
    if backend not in agent.get_plugin_list() or not _moves_files(agent, backend):
        raise KvbenchError(f"io.nixl.backend: {_why_not(agent, backend)}; those that move files here: {_usable()}")
    known = agent.get_plugin_params(backend)
    unknown = sorted(set(options) - set(known)) if known else []
    if unknown:
        raise KvbenchError(
            f"io.nixl.options: {backend} has no {', '.join(unknown)}; it has "
            + ", ".join(f"{name} ({value})" if value else name for name, value in sorted(known.items()))
        )
    try:
        agent.create_backend(backend, options)
    except library.errors as error:
        given = ", ".join(f"{name}={value}" for name, value in sorted(options.items())) or "no options"
        raise KvbenchError(
            f"io.engine=nixl: NIXL's backend {backend} does not start with {given}: {error}; set NIXL_LOG_LEVEL=ERROR "
            "to see why, change io.nixl.options, or use --set io.engine=sync"
        ) from error


def _why_not(agent: Any, backend: str) -> str:
    if backend not in agent.get_plugin_list():
        return f"nixl {load().version} has no backend {backend}"
    if not agent.get_plugin_mem_types(backend):
        return f"the backend {backend} does not load here: libraries that it needs are missing"
    return f"the backend {backend} moves no files"


def _usable() -> str:
    return ", ".join(name for name, usable in file_backends().items() if usable) or "none"


def tell() -> None:
    """Print what is there, or end the program with why nothing is."""
    try:
        print(describe())
    except KvbenchError as error:
        raise SystemExit(str(error)) from error


def describe() -> str:
    """What is there, in a line: version, and backends. Raises KvbenchError."""
    backends = file_backends()
    others = ", ".join(name for name, usable in backends.items() if not usable)
    usable = ", ".join(name for name, usable in backends.items() if usable) or "none"
    return (
        f"nixl {load().version}; backends for files: {usable}; not for files, or not loading here: {others or 'none'}"
    )
