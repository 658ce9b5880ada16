"""Where a command may write: what would destroy something is refused, and what is written is there whole or not at
all."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kvbench.errors import KvbenchError
from kvbench.records import unfinished
from kvbench.records.file import RunFileWriter
from kvbench.records.outputs import HDF5, JSON, PAGE, PICTURES, Kind, check_folder, check_output, write_output

CONTENT = {
    HDF5: b"\x89HDF\r\n\x1a\n and so on",
    PAGE: b"\n<!doctype HTML><title>x</title>",
    JSON: b'{"a": 1}',
    PICTURES[".png"]: b"\x89PNG\r\n\x1a\n...",
    PICTURES[".svg"]: b"<?xml version='1.0'?><svg/>",
    PICTURES[".pdf"]: b"%PDF-1.4",
}
KINDS = list(CONTENT)


def write(path: Path, kind: Kind = PAGE, content: bytes = b"<html>new", **options: object) -> None:
    write_output(check_output(path, kind, **options), content, kind)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("there", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_replaced_by_one_of_its_own_kind_and_by_no_other(tmp_path: Path, kind: Kind, there: Kind) -> None:
    path = tmp_path / "out"
    path.write_bytes(CONTENT[there])
    if kind is there:
        assert check_output(path, kind).file == path
    else:
        with pytest.raises(KvbenchError, match=rf"cannot write {path}: what is there is not {kind.name}, and stays"):
            check_output(path, kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_empty_file_may_become_anything(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "out").touch()
    write(tmp_path / "out", kind, CONTENT[kind])
    assert (tmp_path / "out").read_bytes() == CONTENT[kind]


def test_text_is_no_page_no_picture_and_no_run_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    for kind in KINDS:
        with pytest.raises(KvbenchError, match="stays; give another name, or move it away"):
            check_output(tmp_path / "notes", kind)


@pytest.mark.parametrize("link", ["itself", "symlink", "hard link", "other path"])
def test_a_file_that_is_read_is_not_written_whatever_it_is_called(tmp_path: Path, link: str) -> None:
    source, path = tmp_path / "page.html", tmp_path / "link.html"
    source.write_bytes(CONTENT[PAGE])
    if link == "symlink":
        path.symlink_to(source)
    elif link == "hard link":
        path.hardlink_to(source)
    else:
        path = source if link == "itself" else tmp_path / ".." / tmp_path.name / "page.html"
    with pytest.raises(KvbenchError, match="this command reads it"):
        check_output(path, PAGE, inputs=[tmp_path / "missing", source])


@pytest.mark.parametrize("name", ["new/", "new/.", "..", ".", "", "folder", "folder/"])
def test_a_name_of_a_directory_is_no_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(KvbenchError, match="directory; give the name of a file"):
        check_output(name, PAGE)
    assert names(tmp_path) == {"folder"}


def test_a_pipe_is_written_through_where_that_is_possible_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    content = b"<html>" + bytes(200_000)
    write(pipe, PAGE, content, stream=True)
    reader.join()
    assert read == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def device(folder: Path) -> Path:
    """A device that takes everything, like /dev/null but nobody else's."""
    path = folder / "device"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        path.write_bytes(b"x")
    except PermissionError:
        pytest.skip("needs leave to make a device and to write it (root)")
    return path


def test_a_device_is_written_through_and_stays_a_device(tmp_path: Path) -> None:
    path = device(tmp_path)
    write(path, stream=True)
    assert stat.S_ISCHR(path.stat().st_mode)
    assert names(tmp_path) == {"device"}


@pytest.mark.parametrize("make", [device, lambda folder: os.mkfifo(folder / "device")])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_run_file_is_never_put_in_the_place_of_a_device_or_a_pipe(
    tmp_path: Path, make: Callable[[Path], object], overwrite: bool
) -> None:
    make(tmp_path)
    path = tmp_path / "device"
    with pytest.raises(KvbenchError, match=f"cannot write {path}: it is a (pipe|device); give the name of a file"):
        RunFileWriter(path, overwrite=overwrite)
    assert not stat.S_ISREG(path.stat().st_mode)
    assert names(tmp_path) == {"device"}


def test_nor_where_it_came_there_during_the_run_and_the_results_are_kept(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5", overwrite=True) as writer:
        os.mkfifo(tmp_path / "run.h5")
        with pytest.raises(KvbenchError, match=f"it is a pipe.*; the results are kept in {writer.temporary}"):
            writer.finish()
    assert stat.S_ISFIFO((tmp_path / "run.h5").stat().st_mode)
    assert HDF5.begins(writer.temporary.read_bytes())


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "page.html", tmp_path / "latest.html"
    link.symlink_to(Path("there") / "page.html")
    for content in (b"<html>first", b"<html>second"):
        write(link, content=content)
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert names(target.parent) == {"page.html"}


def test_a_link_into_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "not mounted" / "page.html")
    with pytest.raises(KvbenchError, match=r"it is a link to .*, and the directory of that does not exist"):
        check_output(tmp_path / "link", PAGE)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(KvbenchError, match="Too many levels of symbolic links"):
        check_output(tmp_path / "loop", PAGE)


def test_the_folder_of_a_file_is_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "deep" / "page.html")
    assert (tmp_path / "new" / "deep" / "page.html").read_bytes() == b"<html>new"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KvbenchError, match=r"cannot write into .*/file: it is not a directory"):
        check_folder(tmp_path / "file")
    check_folder(tmp_path)
    check_folder(tmp_path / "not there yet")


def test_on_a_full_disk_the_file_that_failed_is_named_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    write(path)

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if offset + len(data) > 1000:
            raise OSError(28, "No space left on device")
        return os_pwrite(descriptor, data, offset)

    os_pwrite = os.pwrite
    monkeypatch.setattr("kvbench.records.unfinished.os.pwrite", pwrite)
    with pytest.raises(KvbenchError, match=f"cannot write {path}: No space left on device"):
        write(path, content=b"<html>" + bytes(5000))
    assert names(tmp_path) == {"page.html"}
    assert path.read_bytes() == b"<html>new"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 10_000])
def test_a_file_of_any_size_has_its_content_and_nothing_of_the_mark(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    write_output(check_output(tmp_path / "file", None), content, None)
    assert (tmp_path / "file").read_bytes() == content
    assert names(tmp_path) == {"file"}


def test_until_it_is_whole_a_file_begins_with_a_mark_whatever_is_written_and_where(tmp_path: Path) -> None:
    file = unfinished.UnfinishedFile(tmp_path / "run.h5", "20260101-000000-abcdef")
    content = os.urandom(200)
    for start in (150, 40, 0, 60):
        file.seek(start)
        file.write(content[start : start + 50])
    file.seek(0)
    file.write(content)
    assert unfinished.marked_by(file.temporary.read_bytes()) == "20260101-000000-abcdef"
    file.seek(10)
    found = bytearray(500)
    assert file.readinto(found) == 190
    assert found[:190] == content[10:]
    assert file.seek(0, os.SEEK_END) == 200
    file.complete(to_device=False)
    file.close()
    assert file.error is None
    assert file.temporary.read_bytes() == content


def test_a_file_whose_temporary_name_was_deleted_is_written_all_the_same(tmp_path: Path) -> None:
    with RunFileWriter(tmp_path / "run.h5") as writer:
        writer.temporary.unlink()
        writer.finish()
    assert names(tmp_path) == {"run.h5"}
    assert HDF5.begins((tmp_path / "run.h5").read_bytes())
