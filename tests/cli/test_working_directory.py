"""What lies in the working directory is imported neither by ranks nor by what starts them, in whatever way."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, Command, attributes, overrides, remains

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment, without_relative_imports
from kvbench.run.order import Order
from kvbench.studies.one_run import PROGRAM, arguments_of

pytestmark = pytest.mark.slow

Start = Callable[..., Command]

SHORT = ("duration_s=0.2", "pacing={mode: asap}")

PLANTED = ("click", "h5py", "json", "mpi4py", "numpy", "psutil", "pydantic", "typing", "yaml", "kvbench/errors")
"""Modules that kvbench imports, some of them before all others."""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A working directory with modules that leave a file behind when they are imported, and a folder called kvbench, as
    the parent of a clone has."""
    made = tmp_path / "trap"
    (made / "kvbench").mkdir(parents=True)
    (made / "sprung").mkdir()
    for name in PLANTED:
        code = f"open({str(made / 'sprung' / name.replace('/', '-'))!r}, 'w').close()\nraise ImportError({name!r})\n"
        (made / f"{name}.py").write_text(code, encoding="utf-8")
    return made


@pytest.fixture
def start_in_trap(start: Start, trap: Path) -> Start:
    """Start a command in that directory."""

    def begin(*words: object, environment: Mapping[str, str] | None = None) -> Command:
        return start("env", "-C", trap, *words, environment=environment)

    return begin


def a_run(out: Path, *options: object) -> tuple[object, ...]:
    """A run of two seconds at the most, as words behind `kvbench`."""
    return ("run", "null", "--out", out, *overrides(*SHORT), *options)


@pytest.mark.parametrize("entry", ["", "relative"], ids=["PYTHONPATH with an empty entry", "and a relative one"])
def test_ranks_that_kvbench_starts_import_nothing_from_there(
    start_in_trap: Start, trap: Path, tmp_path: Path, entry: str
) -> None:
    out = tmp_path / "run.h5"
    path = f"{entry and '.'}:/nowhere"
    ended = start_in_trap(*KVBENCH, *a_run(out, "--ranks", 2), environment={"PYTHONPATH": path}).ended()
    assert remains(trap / "sprung") == []
    assert ended.code == 0, ended.err
    assert attributes(out)["status"] == "complete"


def test_ranks_under_a_launcher_import_nothing_from_there(
    start_in_trap: Start, trap: Path, tmp_path: Path, mpirun: Mpirun
) -> None:
    out = tmp_path / "run.h5"
    environment = mpirun_environment(mpirun, {})
    ended = start_in_trap(*mpirun_command(mpirun, 2), *KVBENCH, *a_run(out), environment=environment).ended()
    assert remains(trap / "sprung") == []
    assert ended.code == 0, ended.err
    assert attributes(out)["kvbench_version"]


@pytest.mark.parametrize("is_package", [False, True], ids=["a folder", "a package"])
def test_a_folder_called_kvbench_is_not_taken_for_the_package(
    start_in_trap: Start, trap: Path, tmp_path: Path, mpirun: Mpirun, is_package: bool
) -> None:
    if is_package:
        (trap / "kvbench" / "__init__.py").touch()
    for name in PLANTED:
        # What Python itself imports to find the module, only -P would keep from there.
        (trap / f"{name}.py").unlink()
    out = tmp_path / "run.h5"
    module = (sys.executable, "-m", "kvbench")
    environment = mpirun_environment(mpirun, {})
    ended = start_in_trap(*mpirun_command(mpirun, 2), *module, *a_run(out), environment=environment).ended()
    assert ended.code == 0, ended.err
    assert attributes(out)["kvbench_version"]


def test_the_runs_of_a_study_import_nothing_from_there(start_in_trap: Start, trap: Path, tmp_path: Path) -> None:
    order = Order("null", None, tmp_path / "run.h5", SHORT)
    code = (
        "import sys, json; from kvbench.cluster.launch.start import start_ranks; "
        "sys.exit(start_ranks(2, json.loads(sys.argv[1]), program=json.loads(sys.argv[2])))"
    )
    ended = start_in_trap(
        sys.executable, "-P", "-c", code, json.dumps(arguments_of(order)), json.dumps(PROGRAM)
    ).ended()
    assert remains(trap / "sprung") == []
    assert ended.code == 0, ended.err
    assert attributes(tmp_path / "run.h5")["status"] == "complete"


def test_the_doctor_tries_libraries_without_importing_what_lies_there(start_in_trap: Start, trap: Path) -> None:
    ended = start_in_trap(*KVBENCH, "doctor").ended()
    assert remains(trap / "sprung") == []
    assert ended.code == 0, ended.out


def test_of_pythonpath_only_absolute_entries_are_passed_on() -> None:
    assert without_relative_imports({"PYTHONPATH": ":/a:.:lib:/b:", "PATH": ":/c"}) == {
        "PYTHONPATH": "/a:/b",
        "PATH": ":/c",
    }
    assert without_relative_imports({"PATH": "/c"}) == {"PATH": "/c"}
