"""The commands that read run files, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from computed import computing
from synthetic import SyntheticRun, synthetic_run

from kvbench.commands.main import commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repeats on each of two targets, and a run that did other work."""
    place = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("a1", "a2", "b1", "b2")):
        run = synthetic_run(np.random.default_rng(number))
        run.changed(attributes={"run_id": name}).write(place / f"{name}.h5")
    other: SyntheticRun = synthetic_run(np.random.default_rng(9))
    other.changed(attributes={"run_id": "other", "fingerprint": "ffffffffffffffff"}).write(place / "other.h5")
    return place


def call(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(commands, [str(folder / w) if w.endswith((".h5", ".html")) else w for w in words])


def test_compare_takes_repeats_on_both_sides(folder: Path) -> None:
    done = call(folder, "compare", "a1.h5", "a2.h5", "--vs", "b1.h5", "b2.h5")
    assert done.exit_code == 0, done.output
    assert "b1 against a1" in done.output
    assert "gib per s" in done.output


def test_compare_prints_json_with_every_table(folder: Path) -> None:
    done = call(folder, "compare", "--json", "a1.h5", "--vs", "b1.h5", "--vs", "b2.h5")
    tables = json.loads(done.output)
    assert set(tables) == {"metrics", "runs", "differences", "warnings"}
    assert {row["target"] for row in tables["metrics"]} == {"b1", "b2"}


def test_compare_refuses_other_work_unless_forced(folder: Path) -> None:
    refused = call(folder, "compare", "a1.h5", "--vs", "other.h5")
    assert refused.exit_code == 1
    assert "fingerprint" in refused.output
    assert call(folder, "compare", "a1.h5", "--vs", "other.h5", "--force").exit_code == 0


@pytest.mark.parametrize("words", [("a1.h5",), ("a1.h5", "--vs"), ("--vs", "a1.h5"), ("a1.h5", "--v", "b1.h5")])
def test_compare_says_how_it_is_called(folder: Path, words: tuple[str, ...]) -> None:
    done = call(folder, "compare", *words)
    assert done.exit_code == 2
    assert "Usage: " in done.output


def test_compare_names_a_file_that_is_not_there(folder: Path) -> None:
    done = call(folder, "compare", "a1.h5", "--vs", "nowhere.h5")
    assert done.exit_code == 1
    assert "nowhere.h5" in done.output


@pytest.mark.slow
def test_report_writes_a_page_and_pictures(folder: Path, tmp_path: Path) -> None:
    done = call(folder, "report", "a1.h5", "-o", str(tmp_path / "page.html"), "--png", str(tmp_path / "pictures"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert any(path.suffix == ".png" for path in (tmp_path / "pictures").iterdir())


def test_report_names_a_place_it_cannot_write(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(folder, "report", "a1.h5", "-o", str(tmp_path / "file" / "page.html"))
    assert done.exit_code == 1
    assert f"cannot make {tmp_path / 'file'} for page.html: File exists" in done.output


def test_report_makes_the_folder_of_its_page(folder: Path, tmp_path: Path) -> None:
    assert call(folder, "report", "a1.h5", "-o", str(tmp_path / "new" / "deep" / "page.html")).exit_code == 0
    assert (tmp_path / "new" / "deep" / "page.html").exists()


@pytest.fixture(scope="module")
def computed(folder: Path) -> Path:
    computing().write(folder / "computed.h5")
    (folder / "prices.yaml").write_text(
        "currency: EUR\ngpu_hour: {price: 2, source: our contract}\n"
        "drive: {price: 100, capacity_gb: 1000, years: 4, source: our order}\n"
    )
    return folder


def test_summary_takes_objectives_and_prices(computed: Path) -> None:
    words = ("summary", "computed.h5", "--slo", "ttft_p95<1h", "--slo", "batch.load_p99<1ms", "--prices")
    done = call(computed, *words, str(computed / "prices.yaml"), "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert [row["met"] for row in content["objectives"]["objectives"]] == [True, False]
    assert content["worth"]["ways"][0]["source"] == "our order"
    text = call(computed, *words, "example").output
    assert "Goodput: requests within all objectives" in text
    assert "example, to be replaced" in text


def test_report_takes_them_too(computed: Path) -> None:
    done = call(computed, "report", "computed.h5", "-o", "slo.html", "--slo", "ttft_p95<1h", "--prices", "example")
    assert done.exit_code == 0, done.output
    page = (computed / "slo.html").read_text()
    assert "is within its objective" in page
    assert "example, to be replaced" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--slo", "ttft<2s"), "--slo: 'ttft<2s' is no objective"),
        (("--slo", "gold.ttft_p95<2s"), "unknown QoS class 'gold'"),
        (("--prices", "/nowhere.yaml"), "cannot read prices /nowhere.yaml"),
    ],
)
@pytest.mark.parametrize("command", [("summary",), ("report", "-o", "wrong.html")])
def test_what_is_wrong_with_them_is_one_message(
    computed: Path, command: tuple[str, ...], words: tuple[str, ...], said: str
) -> None:
    done = call(computed, *command, "computed.h5", *words)
    assert done.exit_code == 1
    assert said in done.output
    assert not (computed / "wrong.html").exists()


def test_objectives_that_a_run_cannot_tell_are_refused(folder: Path) -> None:
    done = call(folder, "summary", "a1.h5", "--slo", "ttft_p95<2s")
    assert done.exit_code == 1
    assert "the run has no compute" in done.output
