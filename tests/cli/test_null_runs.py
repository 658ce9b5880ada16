"""Runs on a null tier: without a directory, without a byte, and saying so."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import Ended, attributes, column, overrides, remains

from kvbench.records.schema import Op

Call = Callable[..., Ended]
QUICK = overrides("duration_s=0.3", "pacing={mode: asap}")


def test_a_run_without_storage_needs_no_directory_and_says_that_nothing_was_verified(
    kvbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "run.h5"
    ended = kvbench("run", "null", "--out", out, *QUICK, *overrides("tiers.0.capacity_bytes=256KiB"))
    assert ended.code == 0, ended.err
    assert "no directory" in ended.out
    assert "a null tier keeps and moves nothing" in " ".join(ended.out.split())
    assert remains(tmp_path / "here") == []
    facts = attributes(out)
    assert (facts["payload"], facts["verify"], facts["status"]) == ("none", "off", "complete")
    assert column(out, "ranks/verified_sectors").tolist() == [0]
    assert column(out, "ranks/storage_capacity_bytes").tolist() == [256 * 2**10]
    assert not column(out, "records/nbytes").any()
    assert not column(out, "records/errno").any()
    assert {Op.READ, Op.WRITE, Op.DELETE} <= set(column(out, "records/op").tolist())


def test_a_run_of_very_many_records_leaves_the_summary_to_its_own_command(
    kvbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvbench.commands.analysis.MOST_SUMMARIZED", 10)
    ended = kvbench("run", "null", "--out", tmp_path / "run.h5", *QUICK)
    assert ended.code == 0, ended.err
    assert f"`kvbench summary {tmp_path / 'run.h5'}` prints the figures; it takes about " in ended.out
    assert "Operations of the measured phase" not in ended.out


def test_a_directory_that_is_given_is_left_as_it_was(kvbench: Call, folder: Path, tmp_path: Path) -> None:
    (folder / "mine").write_text("precious")
    ended = kvbench("run", "null", "--dir", folder, "--out", tmp_path / "run.h5", *QUICK)
    assert ended.code == 0, ended.err
    assert remains(folder) == ["mine"]


def test_memory_above_a_null_tier_gets_back_what_was_never_kept(kvbench: Call, tmp_path: Path) -> None:
    """Objects go down and come up again; they hold nothing, and nobody takes that for damage."""
    out = tmp_path / "run.h5"
    tiers = "tiers=[{kind: memory, capacity_bytes: 1MiB}, {kind: null, capacity_bytes: 8MiB}]"
    ended = kvbench("run", "null", "--out", out, *QUICK, *overrides(tiers, "cache.promote_on_hit=true"))
    assert ended.code == 0, ended.err
    assert {Op.DEMOTE, Op.PROMOTE} <= set(column(out, "records/op").tolist())
    assert attributes(out)["verify"] == "off"
