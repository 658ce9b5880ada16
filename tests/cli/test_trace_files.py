"""Commands that make a trace of others, and what `trace info` says of it then."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kvbench_command import Ended

from kvbench.workload.trace_samples import write_samples
from kvbench.workload.traces import read_trace

Call = Callable[..., Ended]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_samples(tmp_path_factory.mktemp("samples"), np.random.default_rng(7))


def rows(ended: Ended) -> dict[str, str]:
    """What `trace info` prints, by its labels."""
    assert ended.code == 0, ended.err
    return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in ended.out.splitlines() if line.strip())


def test_a_converted_trace_has_the_figures_and_the_digest_of_the_one_before(
    kvbench: Call, samples: dict[str, Path], tmp_path: Path
) -> None:
    for name, path in samples.items():
        out = tmp_path / f"{name}.parquet"
        ended = kvbench("trace", "convert", path, "-o", out)
        digest = read_trace(path).digest
        assert (ended.code, ended.out) == (0, f"{out} holds 100 requests of {path}, digest {digest}\n")
        before, after = rows(kvbench("trace", "info", path)), rows(kvbench("trace", "info", out))
        for own in ("trace", "format", "sorted by time"):
            before.pop(own, None)
            after.pop(own, None)
        assert after == before


def test_several_paths_are_one_trace(kvbench: Call, tmp_path: Path) -> None:
    line = {"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}
    for name, time in (("a", 30), ("b", 10), ("c", 20)):
        (tmp_path / name).write_text(json.dumps(line | {"timestamp": time}))
    ended = kvbench("trace", "convert", tmp_path / "[ab]", tmp_path / "c", "-o", tmp_path / "out.parquet")
    assert ended.code == 0, ended.err
    assert read_trace(tmp_path / "out.parquet").arrival_ns.tolist() == [0, 10_000_000, 20_000_000]


def test_a_sample_is_drawn_of_requests_or_of_sessions(kvbench: Call, samples: dict[str, Path], tmp_path: Path) -> None:
    out, again = tmp_path / "out.parquet", tmp_path / "again.parquet"
    for path in (out, again):
        assert kvbench("trace", "sample", samples["bailian"], "-n", "10", "--seed", "3", "-o", path).code == 0
    assert len(read_trace(out)) == 10
    assert out.read_bytes() == again.read_bytes()
    words = ("--by", "session", "-o", out, "--overwrite")
    assert kvbench("trace", "sample", samples["agentic"], "-n", "1", *words).code == 0
    assert len(read_trace(out)) in {25, 75}
    ended = kvbench("trace", "sample", samples["azure"], "-n", "1", *words)
    assert (ended.code, ended.messages) == (1, [f"kvbench: {samples['azure']} has no sessions: draw requests"])


def test_a_slice_is_of_times_or_of_numbers(kvbench: Call, samples: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for words, requests in (
        (("--from", "1", "--to", "2"), 10),
        (("--to", "0.35"), 4),
        (("--requests", "90:"), 10),
        (("--requests", ":7"), 7),
        (("--requests", "20:24"), 4),
    ):
        assert kvbench("trace", "slice", samples["kvbench"], *words, "-o", out, "--overwrite").code == 0
        assert len(read_trace(out)) == requests
    ended = kvbench("trace", "slice", samples["kvbench"], "--from", "100", "-o", out, "--overwrite")
    assert ended.code == 1
    assert "no request of 100, over 9.900 s, lies in that part" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --from, --to or both, or else --requests"),
        (("--from", "1", "--requests", "1:2"), "give --from, --to or both, or else --requests"),
        (("--requests", "5"), "'5' is not like 100:200"),
        (("--requests", "-1:2"), "'-1:2' is not like 100:200"),
        (("--from", "nan"), "'nan' is not a finite number"),
    ],
)
def test_a_part_that_is_not_said_clearly_is_a_wrong_command_line(
    kvbench: Call, samples: dict[str, Path], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    ended = kvbench("trace", "slice", samples["kvbench"], *words, "-o", tmp_path / "out.parquet")
    assert ended.code == 2
    assert message in " ".join(ended.err.split())


def test_what_is_there_is_replaced_only_with_leave_and_never_what_is_read(
    kvbench: Call, samples: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    assert kvbench("trace", "convert", samples["azure"], "-o", out).code == 0
    before = out.read_bytes()
    ended = kvbench("trace", "convert", samples["mooncake"], "-o", out)
    assert (ended.code, out.read_bytes()) == (1, before)
    assert "exists: give another name, or --overwrite to replace it" in ended.err
    for source in (out, tmp_path, tmp_path / "*.parquet"):
        ended = kvbench("trace", "slice", source, "--requests", "1:", "-o", out, "--overwrite")
        assert (ended.code, out.read_bytes()) == (1, before)
        assert "this command reads it" in ended.err


def test_bad_lines_that_were_left_out_are_told(kvbench: Call, tmp_path: Path) -> None:
    path, out = tmp_path / "trace", tmp_path / "out.parquet"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1]}\noops\n')
    assert "line 2: " in kvbench("trace", "convert", path, "-o", out).err
    assert not out.exists()
    ended = kvbench("trace", "convert", path, "-o", out, "--skip-bad-lines")
    assert "holds 1 requests of" in ended.out
    assert "1 bad lines left out" in ended.out


def test_a_folder_is_replayed_as_a_run(kvbench: Call, samples: dict[str, Path], tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    traces.mkdir()
    (traces / "a.json").write_bytes(samples["agentic"].read_bytes())
    config = tmp_path / "replay.yaml"
    config.write_text(
        "workload: {kind: trace, path: traces}\npacing: {mode: asap}\n"
        "model: {layers: 1, kv_heads: 1, head_dim: 64}\ncache: {layout: block, block_tokens: 128}\n"
        "tiers: [{kind: 'null', capacity_bytes: 1GiB}]\n"
        "calibration: {seconds: 0}\nio: {threads: 2, arena_bytes: 8MiB}\nduration_s: null\n",
        encoding="utf-8",
    )
    ended = kvbench("run", config, "--out", tmp_path / "run.h5", "--no-spill")
    assert ended.code == 0, ended.err
