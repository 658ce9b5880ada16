"""The spill file of a rank: what was written is read back, and of a damaged file what came before the damage."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, TimedBy
from kvbench.records.spill import writer as spill
from kvbench.records.spill.reader import Ending, SpillFile, check_rows
from kvbench.records.spill.writer import FACTS, RECORDS, REQUESTS, SAMPLES, SpillWriter

SAMPLE_DTYPE = np.dtype([("node", "<i4"), ("t_ns", "<i8")])
HEADER = {"run_id": "20260101-000000-abcdef", "rank": 3}


def records(count: int, first: int = 0) -> npt.NDArray[Any]:
    rows = np.zeros(count, RECORD_DTYPE)
    rows["nbytes"] = np.arange(first, first + count)
    rows["rank"] = 3
    return rows


def requests(count: int, first: int = 0) -> npt.NDArray[Any]:
    rows = np.zeros(count, REQUEST_DTYPE)
    rows["request"] = np.arange(first, first + count)
    rows["rank"] = 3
    return rows


@dataclass
class Content:
    """All that a spill file holds."""

    header: dict[str, Any]
    records: list[int]
    requests: list[int]
    samples: list[int]
    facts: list[dict[str, Any]]
    ending: Ending | None


def read(path: Path, upto: int | None = None) -> Content:
    with SpillFile(path, SAMPLE_DTYPE) as file:
        content = Content(file.header, [], [], [], [], None)
        for frame in file.frames(upto):
            if frame.kind == FACTS:
                content.facts.append(frame.facts)
            elif frame.kind == RECORDS:
                content.records += frame.rows["nbytes"].tolist()
            elif frame.kind == REQUESTS:
                content.requests += frame.rows["request"].tolist()
            else:
                assert frame.kind == SAMPLES
                content.samples += frame.rows["t_ns"].tolist()
        content.ending = file.ending
    return content


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kvbench-20260101-000000-abcdef-rank-3.spill"


@pytest.fixture
def writer(path: Path) -> Iterator[SpillWriter]:
    made = SpillWriter(path, HEADER, SAMPLE_DTYPE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a file of five rounds."""
    path = tmp_path_factory.mktemp("spill") / "whole.spill"
    writer = SpillWriter(path, HEADER, SAMPLE_DTYPE)
    for number in range(5):
        writer.add_facts({"number": number})
        writer.add_samples(np.array([(0, number)], SAMPLE_DTYPE))
        writer.take_records(records(7, 7 * number))
        writer.take_requests(requests(3, 3 * number))
        writer.flush()
    writer.close()
    return path.read_bytes()


def check_prefix(content: Content) -> None:
    """What was read are the first rows of `whole`, in order, and nothing else."""
    assert content.header == HEADER
    assert content.records == list(range(35))[: len(content.records)]
    assert content.requests == list(range(15))[: len(content.requests)]
    assert content.samples == list(range(5))[: len(content.samples)]
    told = [facts["number"] for facts in content.facts if facts]
    assert told == list(range(5))[: len(told)]


def test_what_was_written_is_read_back_in_its_order(writer: SpillWriter, path: Path) -> None:
    writer.add_facts({"clock": [1, 2]})
    writer.take_records(records(5))
    writer.flush()
    writer.add_samples(np.array([(0, 77)], SAMPLE_DTYPE))
    writer.take_requests(requests(4))
    writer.take_records(records(20_000, 5))
    writer.flush()
    content = read(path)
    assert content.header == HEADER
    assert content.records == list(range(20_005))
    assert content.requests == list(range(4))
    assert content.samples == [77]
    assert content.facts[0] == {"clock": [1, 2]}
    assert content.ending == Ending(path.stat().st_size, 0, "")
    assert writer.kept_bytes == path.stat().st_size
    assert writer.keeping


def test_the_pulse_is_written_in_each_round(path: Path) -> None:
    ticks = iter(range(100))
    writer = SpillWriter(path, HEADER, SAMPLE_DTYPE, lambda: {"tick": next(ticks)})
    for _ in range(3):
        writer.flush()
    writer.close()
    assert read(path).facts == [{"tick": 0}, {"tick": 1}, {"tick": 2}]


def test_only_whole_rounds_are_read_when_so_many_bytes_are_asked_for(writer: SpillWriter, path: Path) -> None:
    writer.take_records(records(3))
    writer.flush()
    kept = writer.kept_bytes
    writer.take_records(records(3, 3))
    writer.flush()
    assert read(path, kept).records == [0, 1, 2]
    assert read(path, kept).ending == Ending(kept, 0, "")


def test_an_existing_file_is_not_touched(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        SpillWriter(path, HEADER, SAMPLE_DTYPE)
    assert path.read_text() == "precious"


def test_the_file_is_for_its_owner_alone(writer: SpillWriter, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_removing_takes_only_the_file_that_was_made(writer: SpillWriter, path: Path) -> None:
    path.rename(path.with_suffix(".mine"))
    path.write_text("precious")
    writer.remove()
    assert path.read_text() == "precious"
    assert path.with_suffix(".mine").exists()


def test_removing_a_file_that_is_gone_is_no_error(writer: SpillWriter, path: Path) -> None:
    path.unlink()
    writer.remove()


def test_a_file_that_is_removed_is_gone(writer: SpillWriter, path: Path) -> None:
    writer.take_records(records(3))
    writer.flush()
    writer.remove()
    assert not path.exists()


# A filesystem that becomes full


def test_a_file_that_somebody_deletes_is_written_anew_with_all_that_it_held(writer: SpillWriter, path: Path) -> None:
    writer.take_records(records(5))
    writer.take_requests(requests(3))
    writer.flush()
    path.unlink()
    assert not writer.is_there
    writer.take_records(records(5, 5))
    writer.flush()
    assert writer.is_there
    assert writer.keeping
    content = read(path)
    assert content.records == list(range(10))
    assert content.requests == list(range(3))
    assert content.ending == Ending(path.stat().st_size, 0, "")
    assert writer.kept_bytes == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_anew_goes_on_without_a_name(writer: SpillWriter, path: Path) -> None:
    writer.take_records(records(5))
    writer.flush()
    path.unlink()
    path.parent.rmdir()
    writer.take_records(records(5, 5))
    writer.flush()
    assert (writer.keeping, writer.is_there) == (True, False)
    with SpillFile(path, SAMPLE_DTYPE, writer.descriptor) as file:
        found = [nbytes for frame in file.frames(kinds=[RECORDS]) for nbytes in frame.rows["nbytes"].tolist()]
    assert found == list(range(10))
    path.parent.mkdir()
    writer.remove()


def test_what_finds_no_room_to_be_written_anew_is_not_left_half(
    writer: SpillWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.take_records(records(5))
    writer.flush()
    path.unlink()

    def copy_file(source: int, target: int) -> None:
        os.write(target, b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kvbench.records.spill.writer.copy_file", copy_file)
    writer.flush()
    assert writer.keeping
    assert not path.exists()


def test_another_file_under_the_name_of_a_deleted_one_is_left_alone(writer: SpillWriter, path: Path) -> None:
    path.unlink()
    path.write_text("mine")
    writer.flush()
    writer.remove()
    assert path.read_text() == "mine"


def fail_after(nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the filesystem have room for so many bytes more, and write short before it is full."""
    left = nbytes
    real = os.pwritev

    def pwritev(fd: int, buffers: list[Any], offset: int) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = b"".join(bytes(buffer) for buffer in buffers)[:left]
        left -= len(data)
        return real(fd, [data], offset)

    monkeypatch.setattr("kvbench.records.spill.writer.os.pwritev", pwritev)


@pytest.mark.parametrize("room", [0, 1, 31, 32, 33, 500, 2000])
def test_a_full_filesystem_leaves_the_rounds_before(
    writer: SpillWriter, path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.take_records(records(3))
    writer.flush()
    kept = writer.kept_bytes
    fail_after(room, monkeypatch)
    writer.take_records(records(40, 3))
    writer.flush()
    writer.take_records(records(40, 43))
    writer.flush()
    assert not writer.keeping
    assert writer.error is not None
    assert writer.error.errno == errno.ENOSPC
    assert writer.kept_bytes == kept
    assert read(path, kept).records == [0, 1, 2]
    assert read(path).records == [0, 1, 2]


def test_a_file_that_became_full_says_that_there_was_more(
    writer: SpillWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        fail_after(100, full)
        writer.take_records(records(9000))
        full.setattr("kvbench.records.spill.writer.os.pwritev", os.pwritev)
    content = read(path)
    assert content.records == []
    assert content.ending is not None


def test_rows_of_a_file_that_is_full_in_the_middle_of_a_round_are_not_kept(
    writer: SpillWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        fail_after(1_000_000, full)
        writer.take_records(records(20_000))
        writer.flush()
    assert read(path).records == []
    assert not writer.keeping


def test_an_error_of_the_device_at_the_end_of_a_round_is_seen(
    writer: SpillWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.take_records(records(3))
    writer.flush()

    def fdatasync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr("kvbench.records.spill.writer.os.fdatasync", fdatasync)
        writer.take_records(records(3, 3))
        writer.flush()
    content = read(path)
    assert content.records == [0, 1, 2]
    assert content.facts[-1] == {"stopped": os.strerror(errno.EIO)}
    assert not writer.keeping


# Foreign and damaged files


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(length=st.integers(0, 1_000_000))
def test_a_file_cut_off_anywhere_gives_the_rows_before(whole: bytes, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.spill"
    length %= len(whole) + 1
    path.write_bytes(whole[:length])
    if length < whole.index(spill.FRAME_MAGIC, 10):
        with pytest.raises(KvbenchError, match=str(path)):
            read(path)
        return
    content = read(path)
    check_prefix(content)
    assert content.ending is not None
    assert content.ending.good_bytes + content.ending.left_bytes == length
    assert (content.ending.reason == "") == (content.ending.left_bytes == 0)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(bits=st.lists(st.integers(0, 10_000_000), min_size=1, max_size=4, unique=True))
def test_a_file_with_flipped_bits_gives_only_true_rows(whole: bytes, tmp_path: Path, bits: list[int]) -> None:
    path = tmp_path / "flipped.spill"
    damaged = bytearray(whole)
    places = {bit % (8 * len(whole)) for bit in bits}
    for bit in places:
        damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    if min(places) // 8 < whole.index(spill.FRAME_MAGIC, 10):
        with pytest.raises(KvbenchError, match=str(path)):
            read(path)
        return
    content = read(path)
    check_prefix(content)
    assert content.ending is not None
    assert content.ending.reason


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=300), st.booleans())
def test_any_other_file_is_an_error_message(tmp_path: Path, content: bytes, begins_well: bool) -> None:
    path = tmp_path / "other.spill"
    path.write_bytes((spill.MAGIC if begins_well else b"") + content)
    with pytest.raises(KvbenchError, match=r"other\.spill is no kvbench spill file, or is damaged"):
        read(path)


def test_frames_in_another_order_are_not_believed(whole: bytes, path: Path) -> None:
    starts = [index for index in range(len(whole)) if whole[index : index + 4] == spill.FRAME_MAGIC]
    frames = [whole[start:end] for start, end in zip(starts, [*starts[1:], len(whole)], strict=True)]
    path.write_bytes(whole[: starts[0]] + b"".join([frames[0], frames[2], frames[1], *frames[3:]]))
    content = read(path)
    assert content.ending == Ending(starts[1], len(whole) - starts[1], "the head of the frame is damaged")


def test_a_frame_of_another_file_is_not_believed(whole: bytes, writer: SpillWriter, path: Path) -> None:
    writer.flush()
    writer.close()
    other = path.with_name("other.spill")
    second = SpillWriter(other, {**HEADER, "rank": 4}, SAMPLE_DTYPE)
    second.flush()
    second.close()
    mine, theirs = path.read_bytes(), other.read_bytes()
    assert len(mine) == len(theirs)
    start = mine.rindex(spill.FRAME_MAGIC)
    path.write_bytes(mine[:start] + theirs[start:])
    content = read(path)
    assert content.ending == Ending(start, len(mine) - start, "the checksum of the frame is wrong")


def framed(kind: int, number: int, payload: bytes, seed: int = 0) -> tuple[bytes, int]:
    head = spill.FRAME.pack(spill.FRAME_MAGIC, kind, number, len(payload), 0)[: spill.HASHED_BYTES]
    digest = spill.checksum(head, payload, seed)
    return head + digest.to_bytes(8, "little") + payload, digest


def crafted(*frames: tuple[int, bytes]) -> bytes:
    """A file whose checksums are right, whatever is in it."""
    layouts = {"records": RECORD_DTYPE, "requests": REQUEST_DTYPE, "samples": SAMPLE_DTYPE}
    told = {name: spill.layout_of(dtype) for name, dtype in layouts.items()}
    content, seed = framed(spill.HEADER, 0, spill.json_bytes({**HEADER, "layouts": told}))
    for number, (kind, payload) in enumerate(frames, start=1):
        content += framed(kind, number, payload, seed)[0]
    return spill.MAGIC + content


@pytest.mark.parametrize(
    ("kind", "payload", "message"),
    [
        (9, b"", "unknown kind 9"),
        (FACTS, b"[]", "is not a JSON object"),
        (FACTS, b"{", "is not JSON"),
        (FACTS, b"[" * 100_000, "is not JSON"),
        (FACTS, b'{"n": ' + b"9" * 10_000 + b"}", "is not JSON"),
        (FACTS, b"\xff", "is not JSON"),
        (RECORDS, bytes(111), "does not hold whole rows"),
    ],
)
def test_a_frame_that_kvbench_does_not_write_is_an_error_message(
    path: Path, kind: int, payload: bytes, message: str
) -> None:
    path.write_bytes(crafted((kind, payload)))
    if kind == 9:
        with SpillFile(path, SAMPLE_DTYPE) as file:
            assert list(file.frames(kinds=[RECORDS])) == []
    with pytest.raises(KvbenchError, match=message), SpillFile(path, SAMPLE_DTYPE) as file:
        list(file.frames(kinds=[kind]))


def test_a_frame_that_claims_more_than_there_is_takes_no_memory(path: Path) -> None:
    head = spill.FRAME.pack(spill.FRAME_MAGIC, RECORDS, 1, 2**63, 0)
    path.write_bytes(crafted() + head + bytes(1000))
    ending = read(path).ending
    assert ending is not None
    assert ending.reason == "the head of the frame is damaged"


def test_rows_of_another_layout_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvbench.records.spill.writer.RECORD_DTYPE", np.dtype([("t_start_ns", "<i8")]))
    SpillWriter(path, HEADER, SAMPLE_DTYPE).close()
    with pytest.raises(KvbenchError, match="rows of another layout"):
        read(path)


def test_a_newer_version_is_named(whole: bytes, path: Path) -> None:
    path.write_bytes(whole[:7] + b"\x02" + whole[8:])
    with pytest.raises(KvbenchError, match="version 2, and this kvbench reads version 1"):
        read(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "no kvbench spill file"),
    ],
)
def test_what_is_no_file_is_an_error_message(path: Path, make: Callable[[Path], Any], message: str) -> None:
    make(path)
    with pytest.raises(KvbenchError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("column", "value"), [("op", len(Op)), ("tier", 2), ("phase", 3), ("path", 8), ("timed_by", len(TimedBy))]
)
def test_codes_without_a_name_are_refused(path: Path, column: str, value: int) -> None:
    rows = records(4)
    check_rows(path, rows, rank=3, tiers=2)
    rows[column][2] = value
    with pytest.raises(KvbenchError, match=f"{path}.* holds the {column} {value}"):
        check_rows(path, rows, rank=3, tiers=2)


def test_rows_of_another_rank_are_refused(path: Path) -> None:
    check_rows(path, requests(2), rank=3, tiers=1)
    check_rows(path, requests(0), rank=5, tiers=1)
    with pytest.raises(KvbenchError, match="is of rank 5"):
        check_rows(path, requests(2), rank=5, tiers=1)
