"""Files that version 0.1 left are read as it read them: a run file, and the spill file of a rank that was killed.

`version-0.1` holds both, with what `kvbench summary --json` of that version said of the one, and of what `kvbench
recover` of that version made of the other. Both are of the configuration `smoke`: a run of 2 ranks, and one of 1 rank
with 1 user that was killed in mid-run.
"""

import json
from pathlib import Path
from typing import Any

import kvbench_analysis as ka
import pytest

from kvbench.records.reader import open_run
from kvbench.records.spill.recover import recover

KEPT = Path(__file__).parent / "version-0.1"


def said_then(name: str) -> dict[str, Any]:
    """Without what version 2 of the JSON has otherwise: its number, and a hit rate over look-ups of every kind."""
    said: dict[str, Any] = json.loads((KEPT / name).read_text(encoding="utf-8"))
    assert said.pop("version") == 1
    assert {row["unit"] for row in said.pop("cache")} == {"objects", "tokens"}
    return said


def said_now(run_file: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(ka.to_json(ka.summarize(ka.load(run_file))))
    return said


def assert_kept(then: Any, now: Any, where: str = "") -> None:
    """Every value of `then` stands in `now` at its place; `now` may say more."""
    if isinstance(then, dict):
        for key, value in then.items():
            assert key in now, f"{where}.{key} is gone"
            assert_kept(value, now[key], f"{where}.{key}")
    elif isinstance(then, list) and where not in {".warnings", ".headlines"}:
        assert len(now) == len(then), where
        for number, value in enumerate(then):
            assert_kept(value, now[number], f"{where}[{number}]")
    elif isinstance(then, list):
        assert [value for value in then if value not in now] == [], where
    elif isinstance(then, float):
        assert now == pytest.approx(then, rel=1e-12), where
    else:
        assert now == then, where


def test_a_run_file_of_version_0_1_has_the_figures_that_it_had() -> None:
    now = said_now(KEPT / "run.h5")
    assert_kept(said_then("run.json"), now)
    assert (now["look_ups"], now["run"]["look_ups_told"]) == ([], False), "it does not tell look-ups apart"


def test_a_spill_file_of_version_0_1_is_recovered_to_the_figures_that_it_gave(tmp_path: Path) -> None:
    then = said_then("recovered.json")
    made = recover([KEPT], tmp_path / "recovered.h5", overwrite=False)
    assert made.run_id == then["run"]["run_id"]
    now = said_now(made.path)
    # Who recovered it is said by the file.
    then["run"].pop("kvbench_version")
    assert_kept(then, now)


def test_a_run_file_of_version_0_1_says_which_version_made_it() -> None:
    assert open_run(KEPT / "run.h5").attributes["kvbench_version"] == "0.1.0"
