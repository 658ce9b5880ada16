"""Traces whose ids are more than memory may hold: the same as others, of bounded memory, and nothing left behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trace_rows import bailian, written

from kvbench.config.run_config import RunConfig
from kvbench.workload.trace_info import trace_info
from kvbench.workload.traces import Trace, id_store, read_trace, reuse
from kvbench.workload.traces import trace as trace_module
from kvbench.workload.traces.formats import FORMATS
from kvbench.workload.traces.id_store import IdStore, gathered, id_pieces, piece_sizes
from kvbench.workload.traces.parquet import encode, encoded
from kvbench.workload.traces.parts import part_of
from kvbench.workload.traces.stream import TraceStream

Make = Callable[..., RunConfig]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, and ids that go there from the first 100 bytes on."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(id_store, "_is_in_memory", lambda _: False)
    monkeypatch.setattr(id_store, "MEMORY_BYTES", 100)
    monkeypatch.setattr(id_store, "_BUFFER_BYTES", 64)
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done piece by piece has many of them."""
    monkeypatch.setattr(id_store, "PIECE_IDS", 7)
    monkeypatch.setattr(trace_module, "PIECE_IDS", 7)
    monkeypatch.setattr(reuse, "PART_IDS", 64)
    monkeypatch.setattr(reuse, "_PIECE_IDS", 50)


def in_a_file(trace: Trace) -> bool:
    """Whether the ids are mapped: whoever holds them last is no array of numbers of its own."""
    holder: object = trace.hash_ids
    while isinstance(holder, np.ndarray) and holder.base is not None:
        holder = holder.base
    return type(holder).__name__ == "mmap" or (isinstance(holder, memoryview) and type(holder.obj).__name__ == "mmap")


@pytest.fixture(scope="module")
def usual(samples: dict[str, Path]) -> dict[str, Trace]:
    """The samples, read as ever."""
    return {name: read_trace(path) for name, path in samples.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.usefixtures("small_pieces")
def test_a_trace_in_a_file_is_the_same_trace(
    samples: dict[str, Path], usual: dict[str, Trace], place: Path, name: str
) -> None:
    before, trace = usual[name], read_trace(samples[name])
    assert in_a_file(trace) == (len(before.hash_ids) > 0)
    assert trace.digest == before.digest
    for mine, its in zip(trace.to_arrays()[0], before.to_arrays()[0], strict=True):
        assert np.array_equal(mine, its)
    assert trace_info(trace) == trace_info(before)
    drawn = np.array([50, 3, 3, 4, 5, 20])
    assert trace.take(drawn).hash_ids.tolist() == before.take(drawn).hash_ids.tolist()
    rising = np.array([3, 4, 20, 50])
    assert part_of(trace, rising).digest == part_of(before, rising).digest
    assert b"".join(encoded(trace)) == encode(before)
    assert list(place.iterdir()) == [], "files have no names"


@pytest.mark.usefixtures("small_pieces")
def test_a_folder_of_files_is_the_same_trace(samples: dict[str, Path], tmp_path: Path, place: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(3):
        rows = [bailian(10 * number + chat, -1, chat + number / 4) for chat in range(9)]
        written(folder, *rows, name=f"{number}.jsonl")
    trace = read_trace(folder)
    assert in_a_file(trace)
    one = written(
        tmp_path, *sorted((bailian(0, -1, chat + number / 4) for number in range(3) for chat in range(9)), key=str)
    )
    assert trace.hash_ids.tolist() == [1, 2] * 27 == read_trace(one).hash_ids.tolist()


def test_information_is_the_same_part_by_part(usual: dict[str, Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    with_ids = [trace for trace in usual.values() if len(trace.hash_ids)]
    whole = [trace_info(trace) for trace in with_ids]
    for ids in (2, 16, 300):
        monkeypatch.setattr(reuse, "PART_IDS", ids)
        assert [trace_info(trace) for trace in with_ids] == whole


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_pieces_are_of_the_sizes_that_are_said_and_of_all_ids_in_order(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(id_store, "PIECE_IDS", most)
    rng = np.random.default_rng(5)
    for _ in range(50):
        counts = rng.integers(0, 9, rng.integers(0, 12)) * rng.integers(0, 2)
        starts = rng.integers(0, 90, len(counts))
        ids = rng.integers(0, 2**63, 100).astype(np.uint64)
        pieces = list(id_pieces(ids, starts, counts))
        assert [len(piece) for piece in pieces] == list(piece_sizes(counts))
        assert all(0 < len(piece) <= most for piece in pieces)
        wanted = [number for start, count in zip(starts, counts, strict=True) for number in ids[start : start + count]]
        assert np.concatenate([*pieces, ids[:0]]).tolist() == wanted
        assert gathered(ids, starts, counts, "t").tolist() == wanted


def test_ids_of_any_sign_are_kept_modulo_2_to_64(place: Path) -> None:
    store = IdStore("t")
    for ids in ([1, 2**64 - 1], [-1, -(2**63)], np.arange(30, dtype=np.uint64), []):
        store.extend(ids)
    assert len(store) == 34
    assert store.finish().tolist() == [1, 2**64 - 1, 2**64 - 1, 2**63, *range(30)]


def test_a_disk_that_is_full_is_one_error_that_says_where(place: Path, samples: dict[str, Path]) -> None:
    """A limit of the size of files stands in for a full disk."""
    program = (
        "import resource, signal, sys\n"
        "from kvbench.workload.traces import id_store, read_trace\n"
        "from kvbench.errors import KvbenchError\n"
        "id_store.MEMORY_BYTES = 100\n"
        "id_store._is_in_memory = lambda _: False\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    read_trace(sys.argv[1])\n"
        "except KvbenchError as error:\n"
        "    print(error)\n"
    )
    path = str(samples["agentic"])
    told = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"cannot keep the trace {path}")
    assert f"in a temporary file in {place}: File too large (set TMPDIR to a folder on a disk" in told
    assert len(told.splitlines()) == 1


def test_what_is_in_memory_is_no_place_and_where_there_is_no_other_ids_stay(
    place: Path, samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert id_store.temporary_place() == place
    monkeypatch.setattr(id_store, "_is_in_memory", lambda folder: folder == str(place))
    assert id_store.temporary_place() == Path("/var/tmp")
    monkeypatch.setattr(id_store, "_is_in_memory", lambda _: True)
    assert id_store.temporary_place() is None
    assert not in_a_file(read_trace(samples["mooncake"]))


def test_the_filesystem_says_whether_it_is_memory() -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as mountinfo:
        table = {line.split(" ")[4]: line.split(" - ")[1].split(" ")[0] for line in mountinfo}
    for folder in ("/dev/shm", "/proc"):
        if folder in table:
            assert id_store._is_in_memory(folder) == (table[folder] == "tmpfs")


def test_a_parquet_file_may_come_through_a_pipe(samples: dict[str, Path], tmp_path: Path, place: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = samples["kvbench"].read_bytes()
    with subprocess.Popen(["cp", str(samples["kvbench"]), str(pipe)]):
        trace = read_trace(pipe)
    assert trace.digest == read_trace(samples["kvbench"]).digest
    with TraceStream(samples["kvbench"]) as stream:
        assert stream.seekable().read() == content
        assert stream.seekable() is stream.seekable()
    assert list(place.iterdir()) == []


GROWING = """
import sys
from pathlib import Path
from kvbench.workload.traces import read_trace
from kvbench.workload.trace_info import trace_info
from kvbench.workload.traces.parquet import encoded

def own_mib():
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024

from kvbench.workload.traces import id_store
before = own_mib()
most = 0
extend = id_store.IdStore.extend
def watched(self, ids):
    global most
    extend(self, ids)
    most = max(most, own_mib())
id_store.IdStore.extend = watched
trace = read_trace(sys.argv[1])
trace.take(__import__("numpy").arange(len(trace))[::-1])
for piece in encoded(trace):
    most = max(most, own_mib())
print(len(trace.hash_ids), max(most, own_mib()) - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_ids(tmp_path: Path) -> None:
    """200 MiB of ids: read, turned around and written, in less than that."""
    if id_store.temporary_place() is None:
        pytest.skip("all folders for temporary files are in memory here")
    blocks, requests = 25_000, 1050
    ids = ",".join(map(str, range(blocks)))
    path = tmp_path / "trace.jsonl"
    with path.open("w") as file:
        for number in range(requests):
            file.write(
                f'{{"chat_id":{number},"parent_chat_id":-1,"timestamp":{number},"input_length":{16 * blocks},'
                f'"output_length":1,"type":"text","turn":1,"hash_ids":[{ids}]}}\n'
            )
    done = subprocess.run([sys.executable, "-c", GROWING, str(path)], capture_output=True, text=True, check=True)
    held, grown_mib = map(float, done.stdout.split())
    assert held == blocks * requests
    assert grown_mib < 150 < held * 8 / 2**20
