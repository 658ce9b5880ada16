"""Storage models: what is fitted to storages whose times are known, what a file says between and beyond its points."""

import json
from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pytest
from known_storage import SecondsAt, known_run, times, write_runs
from kvbench_analysis.storage_model.fit import fit

from kvbench.errors import KvbenchError
from kvbench.records.schema import Op
from kvbench.records.storage_model import StorageModel, read_storage_model, times_at

KIB, MIB = 2**10, 2**20


def latency(in_flight: int) -> float:
    """A storage of 2 ms, whatever else is in flight."""
    return 0.002


def bandwidth(in_flight: int) -> float:
    """One that needs 1 ms for an object, and divides its time among all."""
    return 0.001 * in_flight


def both(in_flight: int) -> float:
    """Half a millisecond for each, and 0.25 ms divided among all."""
    return 0.0005 + 0.00025 * in_flight


def fitted(
    folder: Path, seconds_at: SecondsAt, threads: tuple[int, ...] = (1, 4, 16), constant: bool = False, seed: int = 3
) -> StorageModel:
    rng = np.random.default_rng(seed)
    runs = {
        f"{op.name}-{each}": known_run(
            rng, threads=each, nbytes=MIB, seconds_at=seconds_at, op=op, constant=constant, blocks=max(40, 8 * each)
        )
        for each in threads
        for op in (Op.READ, Op.WRITE)
    }
    folder.mkdir(exist_ok=True)
    return fit([ka.load(path) for path in write_runs(folder, runs)], "0.2.0")


@pytest.mark.slow
@pytest.mark.parametrize("seconds_at", [latency, bandwidth, both])
@pytest.mark.parametrize("constant", [False, True])
def test_the_times_of_a_known_storage_are_found(tmp_path: Path, seconds_at: SecondsAt, constant: bool) -> None:
    found = times_at(fitted(tmp_path, seconds_at, constant=constant).of("storage", "read"), MIB, 16).seconds[0]
    for in_flight in (1, 4, 16):
        assert found[in_flight - 1] == pytest.approx(seconds_at(in_flight), rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("seconds_at", [latency, bandwidth, both])
def test_times_between_the_loads_that_were_measured_are_found_too(tmp_path: Path, seconds_at: SecondsAt) -> None:
    found = times_at(fitted(tmp_path, seconds_at).of("storage", "read"), MIB, 16).seconds[0]
    for in_flight in (2, 8):
        assert found[in_flight - 1] == pytest.approx(seconds_at(in_flight), rel=0.12)


@pytest.mark.slow
def test_works_are_those_of_the_storage(tmp_path: Path) -> None:
    drawn = times_at(fitted(tmp_path, both).of("storage", "read"), MIB, 16).works[3]
    assert drawn[13] == pytest.approx(np.log(2), rel=0.15), "the median of an exponential distribution of mean 1"
    steady = fitted(tmp_path / "constant", latency, constant=True).of("storage", "read")
    assert times_at(steady, MIB, 16).works == pytest.approx(1, rel=0.01)


@pytest.mark.slow
def test_the_truth_lies_in_the_range_of_the_resamples(tmp_path: Path) -> None:
    inside = 0
    for seed in range(6):
        model = fitted(tmp_path / str(seed), both, threads=(4,), seed=seed)
        low, high = np.quantile(times_at(model.of("storage", "read"), MIB, 4).seconds[1:, 3], [0, 1])
        inside += low <= both(4) <= high
    assert inside >= 4


def test_more_load_makes_nothing_faster_and_what_is_between_lies_between(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    runs = {}
    for threads in (1, 8):
        for nbytes in (128 * KIB, MIB):

            def seconds_at(in_flight: int, size: int = nbytes) -> float:
                return size / MIB * both(in_flight)

            runs[f"{threads}-{nbytes}"] = known_run(rng, threads=threads, nbytes=nbytes, seconds_at=seconds_at)
    services = fit([ka.load(path) for path in write_runs(tmp_path, runs)], "0.2.0").of("storage", "read")
    small, middle, large = (times_at(services, nbytes, 32) for nbytes in (128 * KIB, 362 * KIB, MIB))
    for one in (small, middle, large):
        assert (np.diff(one.seconds[0]) >= -1e-12).all()
    assert (small.seconds[0] < middle.seconds[0]).all()
    assert (middle.seconds[0] < large.seconds[0]).all()
    # Size and time in proportion: exact between two sizes, as logarithms are linear then.
    assert middle.seconds[0, 7] == pytest.approx(362 / 1024 * both(8), rel=0.1)
    # Beyond the highest load that was measured, all together are as fast as there.
    assert small.seconds[0, 31] == pytest.approx(4 * small.seconds[0, 7], rel=0.05)


def test_a_file_says_what_was_written(tmp_path: Path) -> None:
    model = fitted(tmp_path, both, threads=(2,))
    path = tmp_path / "known.storage"
    path.write_bytes(model.to_bytes())
    assert read_storage_model(path) == model
    assert path.read_bytes().startswith(b'{"kvbench_storage_model":1,')
    assert [source.file for source in model.sources] == ["READ-2.h5", "WRITE-2.h5"]
    assert model.sources[0].filesystem == "ext4"
    assert model.sources[0].threads == 2


def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path: Path) -> None:
    content = fitted(tmp_path, both, threads=(2,)).to_bytes()
    facts = json.loads(content)
    bad = tmp_path / "bad.storage"
    (tmp_path / "other").write_text("{}")
    for text, message in (
        (content[: len(content) // 2], "is damaged"),
        (content.replace(b'model":1,', b'model":2,', 1), "of format 2, and this kvbench reads format 1"),
        (b"", "is no storage model but another file"),
        (b"{}", "is no storage model but another file"),
        ((tmp_path / "READ-2.h5").read_bytes(), "but a run file"),
        (content.replace(b'"most":', b'"mist":', 1), r"is damaged: services\.0"),
        (json.dumps(facts | {"services": []}, separators=(",", ":")).encode(), "is damaged"),
        (content.replace(b'"levels":[', b'"levels":[1e999,', 1), "is damaged"),
        (content.replace(b'"levels":[', b'"levels":[-1,', 1), "is damaged"),
    ):
        bad.write_bytes(text)
        with pytest.raises(KvbenchError, match=message):
            read_storage_model(bad)
    with pytest.raises(KvbenchError, match="cannot read"):
        read_storage_model(tmp_path / "none.storage")


def test_runs_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    one, other = (
        known_run(rng, threads=2, nbytes=MIB, seconds_at=both, read_path=path) for path in ("buffered", "direct")
    )
    paths = write_runs(tmp_path, {"one": one, "other": other})
    with pytest.raises(KvbenchError, match=r"has direct where .* has buffered"):
        fit([ka.load(path) for path in paths], "0.2.0")
    with pytest.raises(KvbenchError, match="has no tier 3: its tiers are 0 file"):
        fit([ka.load(paths[0])], "0.2.0", 3)
    few = known_run(rng, threads=2, nbytes=MIB, seconds_at=both, requests=1, blocks=5)
    with pytest.raises(KvbenchError, match="no 20 operations alike moved bytes"):
        fit([ka.load(path) for path in write_runs(tmp_path, {"few": few})], "0.2.0")


def test_the_written_out_simulation_is_right_where_it_can_be_told() -> None:
    rng = np.random.default_rng(1)
    _, end = times(rng, 12, 4, latency, constant=True)
    assert end == pytest.approx(3 * 0.002)
    _, end = times(rng, 12, 4, bandwidth, constant=False)
    assert 0.003 < end < 0.04
