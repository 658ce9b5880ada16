"""A folder that a command makes is there whole or not at all, and takes the place of nothing."""

from pathlib import Path

import pytest

from kvbench.errors import KvbenchError
from kvbench.records.new_folder import check_new_folder, new_folder
from kvbench.run.output import unfinished_files


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "new" / "folder"
    if there:
        place.mkdir(parents=True)
    with new_folder(place) as folder:
        (folder / "file").write_text("content")
        assert place.exists() == there
        assert [found.state for found in unfinished_files.find(place.parent)] == ["in use"]
    assert names(tmp_path) == {"new", "new/folder", "new/folder/file"}


def test_a_folder_that_a_link_leads_to_is_filled_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link") as folder:
        (folder / "file").write_text("content")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == {"real", "real/file", "link"}


def test_nothing_is_left_of_what_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("content")
            (folder / "missing" / "file").write_text("content")

    with pytest.raises(KvbenchError, match=r"cannot write into .*/folder: No such file"):
        fail()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder"):
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


def test_what_has_come_meanwhile_stays(tmp_path: Path) -> None:
    def be_late() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text("content")
            (tmp_path / "folder").mkdir()
            (tmp_path / "folder" / "mine").write_text("precious")

    with pytest.raises(KvbenchError, match=r"cannot write into .*/folder: Directory not empty"):
        be_late()
    assert names(tmp_path) == {"folder", "folder/mine"}


def test_what_is_no_empty_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    refused = {
        tmp_path / "full": "it is not empty; give the name of a new folder",
        tmp_path / "full" / "mine": "it is not a directory; give another",
        tmp_path / "link": "it is a link that leads nowhere",
        Path(): "it is the working directory",
    }
    before = names(tmp_path)
    for path, reason in refused.items():
        with pytest.raises(KvbenchError, match=reason):
            check_new_folder(path)
        with pytest.raises(KvbenchError, match=reason), new_folder(path):
            raise AssertionError("not begun")
    assert names(tmp_path) == before


def test_a_place_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with (
        pytest.raises(KvbenchError, match=r"cannot make .*/file for folder: "),
        new_folder(tmp_path / "file" / "folder"),
    ):
        raise AssertionError("not begun")
