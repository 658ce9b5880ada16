"""`kvbench run --precondition`: rounds of writes before the load, of which nothing is left when that begins."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from kvbench_command import QUICK, Command, Ended, attributes, column, overrides, remains

from kvbench.engine.engine import Load
from kvbench.records.schema import Op, Phase
from kvbench.run import precondition
from kvbench.run.steady_state import verdict
from kvbench.units import MIB, SECTOR_BYTES

Call = Callable[..., Ended]
Start = Callable[..., Command]
ROUNDS = ("--precondition-round", "0.2")


def ran(kvbench: Call, folder: Path, out: Path, *options: object, settings: tuple[str, ...] = ()) -> Ended:
    return kvbench(
        "run", "smoke", "--dir", folder, "--out", out, "--no-spill", *overrides(*QUICK, *settings), *options, *ROUNDS
    )


def written_before(run_file: Path) -> tuple[int, int]:
    """Bytes and number of the writes before the load, by the records."""
    phase, op = column(run_file, "records/phase"), column(run_file, "records/op")
    chosen = (phase == Phase.PRECONDITION) & (op == Op.WRITE)
    return int(column(run_file, "records/nbytes")[chosen].sum()), int(chosen.sum())


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("io.engine=uring", "io.depth=8"),
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                ("io.sync=end",),
                ("io.sync=batch",),
                ("tiers.1.layout.kind=bucket", "tiers.1.layout.bucket_bytes=8MiB"),
                ("io.read_path=numpy",),
                ("workload.mode=decode",),
            )
        ),
    ],
)
def test_the_capacity_is_written_so_often_and_the_load_begins_on_empty_storage(
    kvbench: Call, folder: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    out = tmp_path / "run.h5"
    ended = ran(kvbench, folder, out, "--precondition", "1.5x", settings=settings)
    assert ended.code == 0, ended.err
    assert remains(folder) == []
    told = attributes(out)
    capacity = json.loads(told["tiers_json"])[1]["capacity_bytes"]
    assert (told["precondition"], told["precondition_capacity_bytes"]) == ("1.5x", capacity)
    assert 1.5 * capacity <= told["precondition_bytes"] < 1.5 * capacity + 2 * 16 * MIB
    assert column(out, "precondition/nbytes").sum() == told["precondition_bytes"]
    if settings != ("workload.mode=decode",):
        writes = column(out, "precondition/operations").sum()
        headers = writes * SECTOR_BYTES if settings == ("io.read_path=numpy",) else 0
        assert written_before(out) == (told["precondition_bytes"] + headers, writes)
    assert told["precondition_s"] == pytest.approx(column(out, "precondition/wall_ns").sum() / 1e9)
    phase, op = column(out, "records/phase"), column(out, "records/op")
    before = phase == Phase.PRECONDITION
    ends = column(out, "records/t_start_ns") + column(out, "records/wall_ns")
    assert ends[before].max() <= told["measure_start_ns"], "all of it was over"
    if settings != ("workload.mode=decode",):
        deleted = before & (op == Op.DELETE)
        assert deleted.sum() == written_before(out)[1], "what was written was deleted"


@pytest.mark.slow
def test_the_rounds_stand_in_the_file_with_the_verdict_on_each_and_summary_and_report_say_it(
    kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    ended = ran(kvbench, folder, out, "--precondition", "steady", "--precondition-rounds", 7)
    assert ended.code == 0, ended.err
    told = attributes(out)
    with h5py.File(out) as file:
        rounds = {name: file[f"precondition/{name}"][:] for name in file["precondition"]}
    number = len(rounds["round"])
    assert 5 <= number <= 7
    assert rounds["round"].tolist() == list(range(1, number + 1))
    assert (rounds["wall_ns"] >= 0.19e9).all()
    figures = rounds["nbytes"] / rounds["wall_ns"]
    for place in range(number):
        found = verdict(figures[: place + 1].tolist())
        assert np.array_equal(
            [found.excursion, found.slope], [rounds["excursion"][place], rounds["slope"][place]], equal_nan=True
        )
        assert found.steady == rounds["steady"][place]
    reached = np.flatnonzero(rounds["steady"])
    assert told["precondition_steady_round"] == (reached[0] + 1 if len(reached) else 0)
    assert number == (reached[0] + 1 if len(reached) else 7), "it ends with the first steady window"
    state = "steady state reached after round" if len(reached) else "steady state not reached"
    printed = kvbench("summary", out).out
    assert "preconditioned (steady): " in printed
    assert state in printed
    figures_json = json.loads(kvbench("summary", out, "--json").out)
    codes = {warning["code"] for warning in figures_json["warnings"]}
    assert ("not-steady" in codes) is not bool(len(reached))
    assert len(figures_json["preconditioning"]["rounds"]) == number
    kvbench("report", out, "-o", tmp_path / "report.html", "--png", tmp_path / "png")
    assert (tmp_path / "png" / "precondition.png").is_file()
    assert "Before the load" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_work_of_the_load_is_the_same_as_without(kvbench: Call, folder: Path, tmp_path: Path) -> None:
    with_it, without = tmp_path / "a.h5", tmp_path / "b.h5"
    assert ran(kvbench, folder, with_it, "--precondition", "1x").code == 0
    assert kvbench("run", "smoke", "--dir", folder, "--out", without, "--no-spill", *overrides(*QUICK)).code == 0
    assert attributes(with_it)["fingerprint"] == attributes(without)["fingerprint"]
    assert "precondition" not in attributes(without)
    with h5py.File(without) as file:
        assert "precondition" not in file


@pytest.mark.parametrize("when", [1, 3])
def test_an_interrupt_keeps_what_was_recorded(
    kvbench: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    begin, begun = Load.begin, []

    def asked(load: Load, timeline: object) -> None:
        begun.append(1)
        if len(begun) == when:
            signal.raise_signal(signal.SIGINT)
        begin(load, timeline)  # type: ignore[arg-type]

    monkeypatch.setattr(Load, "begin", asked)
    out = tmp_path / "run.h5"
    ended = ran(kvbench, folder, out, "--precondition", "steady")
    assert (ended.code, ended.verdict[-1:]) == (1, ["kvbench: interrupted"])
    assert attributes(out)["status"] == "interrupted"
    assert len(column(out, "precondition/round")) == when - 1
    assert remains(folder) == []


def test_full_storage_ends_the_run_with_one_message_and_keeps_what_was_recorded(
    kvbench: Call, mounted: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """What is free when the run begins is taken by somebody else."""
    place = mounted("tmpfs", "size=120m")
    out = tmp_path / "run.h5"
    other = place / "others"

    own = precondition._own_capacity

    def taken(*words: object) -> int:
        if not other.exists():
            other.write_bytes(bytes(60 * MIB))
        return own(*words)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precondition, "_own_capacity", taken)
        ended = ran(kvbench, place, out, "--precondition", "1x")
    assert ended.code == 1
    (message,) = ended.messages
    assert "No space left on device; free space there" in message
    assert attributes(out)["status"] == "failed"
    assert written_before(out)[1] > 0
    assert remains(place) == ["others"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--precondition", "2"), "expected steady, or how often the capacity is written, as 2x (given: 2)"),
        (("--precondition", "steady", "--precondition-rounds", "0"), "is not in the range"),
        ((), "--precondition-round and --precondition-rounds go with --precondition"),
    ],
)
def test_what_cannot_be_is_refused(
    kvbench: Call, folder: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    ended = ran(kvbench, folder, tmp_path / "run.h5", *options)
    assert ended.code == 2
    assert said in ended.err
    assert remains(folder) == []


def test_a_run_without_storage_has_nothing_to_bring_to_a_steady_state(kvbench: Call, tmp_path: Path) -> None:
    ended = kvbench("run", "null", "--out", tmp_path / "run.h5", "--precondition", "2x")
    assert ended.messages == [
        "kvbench: --precondition 2x writes to storage, and the last tier of this configuration is a null tier: leave "
        "it out, or add a file tier"
    ]


@pytest.mark.slow
def test_all_ranks_end_each_round_together(start_run: Start, folder: Path, tmp_path: Path) -> None:
    options = ("--ranks", 3, "--precondition", "1x", *ROUNDS)
    ended = start_run(*QUICK, options=options).ended()
    assert ended.code == 0, ended.err
    out = tmp_path / "run.h5"
    told = attributes(out)
    capacity = json.loads(told["tiers_json"])[1]["capacity_bytes"]
    assert told["precondition_capacity_bytes"] == 3 * capacity
    assert 3 * capacity <= told["precondition_bytes"]
    assert written_before(out)[0] == told["precondition_bytes"]
    phase, op, rank = (column(out, f"records/{name}") for name in ("phase", "op", "rank"))
    chosen = (phase == Phase.PRECONDITION) & (op == Op.WRITE)
    per_rank = [int(column(out, "records/nbytes")[chosen & (rank == number)].sum()) for number in range(3)]
    assert min(per_rank) >= capacity
    starts = column(out, "precondition/t_start_ns")
    assert (np.diff(starts) >= column(out, "precondition/wall_ns")[:-1]).all(), "no round before the last is over"
    assert remains(folder) == []
