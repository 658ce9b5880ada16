"""Where commands write: none destroys what it reads, another kind of file, a device or a pipe, whatever it is told."""

import ast
import os
import re
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from every_command import RUN_FILE, SPILL, makers_of_files, makers_of_folders, placed
from kvbench_command import QUICK, Command, Ended, overrides, remains

from kvbench.cluster.comm import SerialComm

Call = Callable[..., Ended]
Start = Callable[..., Command]
FILES = list(makers_of_files(Path(), Path()))
FOLDERS = list(makers_of_folders(Path(), Path(), Path()))
MAKES_HDF5 = {"run", "recover", "search", "study copy-path"}


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("search", "study_copy_path", "mlperf_run"):
        monkeypatch.setattr(f"kvbench.commands.{module}.get_world", SerialComm)


@pytest.fixture
def make(kvbench: Call, folder: Path, spills: Path) -> Callable[[str, object], Ended]:
    """Have a command make `output`, with leave to replace what is there."""

    def call(command: str, output: object) -> Ended:
        return kvbench(*placed(makers_of_files(folder, spills)[command], output))

    return call


Make = Callable[[str, object], Ended]


def refused(ended: Ended, path: Path) -> str:
    """The one message of a command that would not write `path`."""
    assert ended.code == 1, ended.out
    (message,) = ended.messages
    assert f"cannot write {path}: " in message
    return message


@pytest.mark.parametrize("command", FILES)
def test_no_command_replaces_a_file_of_another_kind(make: Make, command: str, tmp_path: Path) -> None:
    page, other = tmp_path / "mine", tmp_path / "mine.h5"
    page.write_text("<!DOCTYPE html><p>precious")
    other.write_bytes(RUN_FILE.read_bytes())
    path = page if command in MAKES_HDF5 else other
    before = path.read_bytes()
    assert "and stays; give another name, or move it away" in refused(make(command, path), path)
    assert path.read_bytes() == before
    assert not [name for name in remains(tmp_path) if name.endswith(".partial")]


@pytest.mark.parametrize("command", FILES)
def test_no_command_puts_a_file_in_the_place_of_a_device(make: Make, command: str, tmp_path: Path) -> None:
    path = tmp_path / "device"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs leave to make a device (root)")
    ended = make(command, path)
    if command == "report":
        assert (ended.code, ended.out, ended.err) == (0, "", f"{path}\n")
    else:
        assert "it is a device; give the name of a file" in refused(ended, path)
    assert stat.S_ISCHR(path.stat().st_mode)


@pytest.mark.parametrize("command", FILES)
def test_no_command_puts_a_file_in_the_place_of_a_pipe(make: Make, command: str, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()), daemon=True)
    reader.start()
    ended = make(command, path)
    if command == "report":
        reader.join()
        assert ended.code == 0
        assert read[0].startswith("<!DOCTYPE html>")
    else:
        assert "it is a pipe; give the name of a file" in refused(ended, path)
        path.write_text("for the reader")
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("command", FILES)
@pytest.mark.parametrize("name", ["new/", "there/", ""])
def test_a_name_that_ends_in_a_slash_is_no_file(make: Make, command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    ended = make(command, f"{tmp_path}/{name}" if name else "")
    assert ended.code == 2
    expected = "that names a directory; give the name of a file" if name else "a path is needed, and this is empty"
    assert expected in " ".join(ended.err.split())
    assert "new" not in remains(tmp_path)


def test_a_report_never_replaces_a_run_file(kvbench: Call, tmp_path: Path) -> None:
    run, link, hard = tmp_path / "run.h5", tmp_path / "link.html", tmp_path / "hard.html"
    run.write_bytes(RUN_FILE.read_bytes())
    link.symlink_to(run)
    hard.hardlink_to(run)
    for path in (run, link, hard):
        assert "this command reads it" in refused(kvbench("report", run, "-o", path), path)
    assert run.read_bytes() == RUN_FILE.read_bytes()
    assert link.is_symlink()


def test_a_recovery_never_replaces_a_spill_file(kvbench: Call, tmp_path: Path) -> None:
    spill = tmp_path / SPILL.name
    spill.write_bytes(SPILL.read_bytes())
    ended = kvbench("recover", tmp_path, "-o", spill, "--overwrite")
    assert "this command reads it" in refused(ended, spill)
    assert spill.read_bytes() == SPILL.read_bytes()


@pytest.mark.parametrize("which", ["configuration", "trace"])
def test_a_run_never_replaces_what_it_reads(kvbench: Call, folder: Path, tmp_path: Path, which: str) -> None:
    source = tmp_path / which
    if which == "trace":
        source.write_text('{"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}\n')
        replay = (f"workload={{kind: trace, path: {source}}}", "pacing.mode=asap", "cache.block_tokens=512")
        words = ["smoke", *overrides(*replay)]
    else:
        tiers = "[{kind: memory, capacity_bytes: 32MiB}, {kind: file, capacity_bytes: 64MiB}]"
        source.write_text(f"io: {{threads: 1}}\ntiers: {tiers}\n")
        words = [str(source)]
    before = source.read_bytes()
    ended = kvbench("run", *words, "--dir", folder, "--out", source, "--overwrite", "--no-spill", *overrides(*QUICK))
    assert "this command reads it" in ended.err
    assert source.read_bytes() == before


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_is_not_taken_for_a_folder(kvbench: Call, folder: Path, spills: Path, command: str) -> None:
    path = spills / "mine"
    path.write_text("precious")
    ended = kvbench(*placed(makers_of_folders(folder, spills, spills)[command], path))
    assert ended.code == 1
    assert f"cannot write into {path}: it is not a directory" in ended.err
    assert path.read_text() == "precious"
    assert remains(spills) == ["mine"]


def test_a_scaling_study_deletes_no_file_that_is_not_a_run_file(make: Make, tmp_path: Path) -> None:
    mine = tmp_path / "table-runs" / "strong-1x1-0.h5"
    mine.parent.mkdir()
    mine.write_text("precious")
    refused(make("study scaling", tmp_path / "table.csv"), mine)
    assert mine.read_text() == "precious"


def test_pictures_that_find_no_room_are_not_left_half_and_are_what_is_named(
    kvbench: Call, mounted: Callable[[str, str], Path], tmp_path: Path
) -> None:
    place = mounted("tmpfs", "size=64k")
    ended = kvbench("report", RUN_FILE, "-o", tmp_path / "page.html", "--png", place)
    assert ended.code == 1
    (message,) = ended.messages
    assert message.startswith(f"kvbench: cannot write {place}/")
    assert message.endswith(".png: No space left on device")
    assert f"{place}/{message.rpartition('/')[2].partition(':')[0]}" not in [str(path) for path in place.iterdir()]
    assert all(path.read_bytes().endswith(b"IEND\xaeB`\x82") for path in place.iterdir())
    assert (tmp_path / "page.html").exists()


def test_tables_that_find_no_room_are_not_left_half(
    kvbench: Call, mounted: Callable[[str, str], Path], tmp_path: Path
) -> None:
    place = mounted("tmpfs", "size=64k")
    ended = kvbench("export", RUN_FILE, "-o", place / "tables")
    assert ended.code == 1
    (message,) = ended.messages
    assert message.startswith(f"kvbench: cannot write into {place}/tables: No space left on device")
    assert not list(place.iterdir())


def test_tables_go_into_no_folder_that_holds_something(kvbench: Call, tmp_path: Path) -> None:
    place = tmp_path / "tables"
    place.mkdir()
    (place / "mine").write_text("precious")
    ended = kvbench("export", RUN_FILE, "-o", place)
    assert ended.code == 1
    assert f"cannot write into {place}: it is not empty; give the name of a new folder" in ended.err
    assert remains(tmp_path) == ["tables", "tables/mine"]


def test_tables_of_no_run_file_leave_no_folder(kvbench: Call, tmp_path: Path) -> None:
    (tmp_path / "run.h5").write_text("no run file")
    ended = kvbench("export", tmp_path / "run.h5", "-o", tmp_path / "tables")
    assert ended.code == 1
    (message,) = ended.messages
    assert f"{tmp_path}/run.h5 is no HDF5 file" in message
    assert remains(tmp_path) == ["run.h5"]


def test_tables_say_what_they_need(kvbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    ended = kvbench("export", RUN_FILE, "-o", tmp_path / "tables")
    assert ended.code == 1
    assert "making parquet files needs pyarrow, which is not installed: pip install" in ended.err
    assert remains(tmp_path) == []


MAY_MAKE_FILES = {
    "analysis/plots/figure.py": "a picture in memory",
    "kvbench/mlperf/package/code_pool.py": "in the folder of a package",
    "kvbench/mlperf/package/package.py": "a folder of its own, and its move into the tree",
    "kvbench/mlperf/package/report_pdf.py": "in that folder",
    "kvbench/mlperf/package/source_copy.py": "in that folder",
    "kvbench/mlperf/trials/measuring.py": "the folder of a trial gets its name",
    "kvbench/mlperf/trials/surroundings.py": "the kernel's switch",
    "kvbench/records/file.py": "the run file gets its name, where it may",
    "kvbench/records/new_folder.py": "a folder gets its name",
    "kvbench/records/outputs.py": "every other file of a command",
    "kvbench/tiers/file/probe.py": "in a folder of its own",
    "kvbench/tiers/file/nixl_transfers.py": "an object gets its name, below the folder of a run",
    "kvbench/timed_io/_python.py": "likewise",
    "kvbench/workload/trace_samples.py": "for tests",
}


def makes_files(path: Path) -> bool:
    """Whether a module writes a file by name, or gives one a name, in a usual way."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        whole = ast.unparse(node)
        by_mode = name == "open" and re.search(r"""['"][wxa]b?['"]""", whole) and "orders_end" not in whole
        renames = name == "replace" and len(node.args) == 1 and not node.keywords
        if by_mode or renames or name in {"write_text", "write_bytes", "rename", "savefig", "copytree", "copyfile"}:
            return True
        if name == "to_csv" and node.args:
            return True
    return False


def test_no_module_makes_files_past_the_one_that_looks_where_they_go() -> None:
    root = Path(__file__).parents[2]
    sources = [path for top in ("kvbench", "analysis") for path in (root / top).rglob("*.py")]
    assert {str(path.relative_to(root)) for path in sources if makes_files(path)} == set(MAY_MAKE_FILES)
