"""Trace files that are pipes, or packed: what is in them is read as from a plain file, and what cannot be is named."""

import bz2
import gzip
import lzma
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from kvbench.errors import KvbenchError
from kvbench.workload.traces import read_trace, sniff_format
from kvbench.workload.traces.stream import HEAD_BYTES, TraceStream

FORMATS = ("mooncake", "azure", "burstgpt", "sharegpt", "agentic", "lmcache", "baseten")


def several_frames(content: bytes) -> bytes:
    """zstd as `cat a.zst b.zst` makes it."""
    half = len(content) // 2
    return zstandard.compress(content[:half]) + zstandard.compress(content[half:])


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": several_frames,
}


@contextmanager
def pipe_with(folder: Path, content: bytes, piece: int = 1 << 20) -> Iterator[Path]:
    """The path of a pipe into which somebody writes `content`, `piece` bytes at a time."""
    path = folder / "pipe"
    os.mkfifo(path)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(content), piece):
                file.write(content[start : start + piece])

    writer = threading.Thread(target=write)
    writer.start()
    yield path
    writer.join()
    path.unlink()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("piece", [10, 1 << 20])
def test_a_pipe_is_recognised_and_read_as_the_file_is(
    samples: dict[str, Path], tmp_path: Path, name: str, piece: int
) -> None:
    with pipe_with(tmp_path, samples[name].read_bytes(), piece) as pipe:
        trace = read_trace(pipe)
    plain = read_trace(samples[name])
    assert (trace.format, trace.digest, len(trace)) == (name, plain.digest, len(plain))
    assert trace.source == str(pipe)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pack", PACKINGS.values(), ids=PACKINGS.keys())
def test_a_packed_trace_is_read_as_the_plain_one_is(
    samples: dict[str, Path], tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(pack(samples[name].read_bytes()))
    assert sniff_format(path) == name
    assert read_trace(path).digest == read_trace(samples[name]).digest
    with pipe_with(tmp_path, path.read_bytes(), 100) as pipe:
        assert read_trace(pipe).digest == read_trace(samples[name]).digest


@pytest.mark.parametrize("length", [0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 3 * HEAD_BYTES + 5])
def test_looking_at_the_head_takes_nothing_away(tmp_path: Path, length: int) -> None:
    content = bytes(number % 251 for number in range(length))
    for packed in (content, gzip.compress(content)):
        path = tmp_path / "file"
        path.write_bytes(packed)
        with TraceStream(path) as stream:
            assert stream.head == content[:HEAD_BYTES]
            assert stream.content() == content


@pytest.mark.parametrize(
    ("start", "name", "command"),
    [(b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"), (b"PK\x03\x04", "zip", "unzip -p")],
)
def test_what_cannot_be_unpacked_is_named_with_the_command_that_can(
    tmp_path: Path, start: bytes, name: str, command: str
) -> None:
    path = tmp_path / "trace"
    path.write_bytes(start + bytes(100))
    with pytest.raises(KvbenchError, match=rf"{path} is packed with {name}, .*<\({command} FILE\)"):
        read_trace(path)


def test_zstd_that_cannot_be_unpacked_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "kvbench.workload.traces.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "trace"
    path.write_bytes(zstandard.compress(b"{}"))
    with pytest.raises(KvbenchError, match=r"packed with zstd, .*pip install 'kvbench\[zstd\]', or unpack it first"):
        read_trace(path)


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_packed_trace_is_an_error_even_when_bad_lines_are_skipped(
    samples: dict[str, Path], tmp_path: Path, name: str, damage: str
) -> None:
    packed = bytearray(PACKINGS[name](samples["mooncake"].read_bytes()))
    middle = len(packed) // 2
    if damage == "cut":
        del packed[middle:]
    else:
        packed[middle : middle + 40] = bytes(40)
    path = tmp_path / "trace"
    path.write_bytes(packed)
    with pytest.raises(KvbenchError, match=rf"cannot read trace {path}: damaged, or not whole, as {name}"):
        read_trace(path, "mooncake", skip_bad_lines=True)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_no_trace(device: str) -> None:
    with pytest.raises(KvbenchError, match=rf"trace {device} is a device \({device}\), no file and no pipe"):
        read_trace(device, "mooncake", skip_bad_lines=True)


def test_a_pipe_that_nobody_writes_to_is_an_empty_trace(tmp_path: Path) -> None:
    with pipe_with(tmp_path, b"") as pipe, pytest.raises(KvbenchError, match=f"trace {pipe} is empty"):
        read_trace(pipe)
