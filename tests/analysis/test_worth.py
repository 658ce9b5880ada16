"""What storage earns and costs, worked out again from the documents' formulas."""

import io
import json
from pathlib import Path

import kvbench_analysis as ka
import pytest
from computed import MODEL, computing, counted
from rich.console import Console
from synthetic import START_NS, SyntheticRun

from kvbench.config.prices import read_prices
from kvbench.records.prices import Prices, prices_of

CONTENT = {
    "currency": "EUR",
    "gpu_hour": {"price": 3.0, "source": "our contract, 2026"},
    "storage_gb_month": {"price": 0.05, "source": "their list, 2026"},
    "drive": {"price": 1000.0, "capacity_gb": 8000.0, "years": 5.0, "source": "our order, 2026"},
}


def prices() -> Prices:
    found = prices_of(CONTENT)
    assert found is not None
    return found


def test_what_storage_earns_and_costs_is_reproduced_by_hand(tmp_path: Path) -> None:
    run = computing()
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5")), prices=prices()).worth
    assert found is not None
    saved_gpu_s, tokens = 0.0, 0
    for row in counted(run):
        context, hit = int(row["context_tokens"]), int(row["hit_tokens"])
        saved_s = float(MODEL.prefill_s(context, 0)) - float(MODEL.prefill_s(context - hit, hit))
        saved_gpu_s += saved_s * MODEL.gpus
        tokens += context
    hours = (int(run.attributes["measure_end_ns"]) - START_NS) / 3600e9
    gb = 2 * 2**36 / 1e9  # two ranks
    earned = saved_gpu_s / 3600 * 3.0 / hours
    million_tokens_per_hour = tokens / 1e6 / hours
    assert found.storage_gb == pytest.approx(gb)
    assert found.earned_per_hour == pytest.approx(earned)
    assert found.earned_per_million_tokens == pytest.approx(earned / million_tokens_per_hour)
    costs = {"rented": gb * 0.05 / (8766 / 12), "drive": gb * 1000 / 8000 / (5 * 8766)}
    for row in found.ways.to_dict("records"):
        cost = costs.pop(row["way"])
        assert row["cost_per_hour"] == pytest.approx(cost)
        assert row["cost_per_million_tokens"] == pytest.approx(cost / million_tokens_per_hour)
        assert row["net_per_million_tokens"] == pytest.approx((earned - cost) / million_tokens_per_hour)
    assert not costs


def with_prices(run: SyntheticRun) -> SyntheticRun:
    config = json.loads(str(run.attributes["config_json"])) | {"prices": CONTENT}
    return run.changed(attributes={"config_json": json.dumps(config)})


def printed(run: SyntheticRun, path: Path) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as text:
        ka.print_summary(ka.summarize(ka.load(run.write(path, overwrite=True))), console)
    return text.get()


def test_prices_of_the_configuration_count_and_outputs_call_it_modelled_and_name_them(tmp_path: Path) -> None:
    text = printed(with_prices(computing()), tmp_path / "run.h5")
    assert "Worth of storage, per million prompt tokens served, modelled" in text
    assert "Prices: our contract, 2026; their list, 2026; our order, 2026." in text
    content = json.loads(ka.to_json(ka.summarize(ka.load(tmp_path / "run.h5"))))
    assert content["worth"]["currency"] == "EUR"
    assert [row["way"] for row in content["worth"]["ways"]] == ["rented", "drive"]


def test_without_compute_nothing_is_known_to_have_been_saved(tmp_path: Path) -> None:
    run = with_prices(computing()).changed(attributes={"compute_model_json": ""})
    text = printed(run, tmp_path / "run.h5")
    assert "No time to first token: the run has no compute" in text
    assert "What storage is worth is not known: the run has no compute" in text


def test_prices_that_come_with_kvbench_are_called_an_example() -> None:
    found = prices_of(read_prices("example"))
    assert found is not None
    assert {found.gpu_source, *(storage.source for storage in found.storage)} == {"example, to be replaced"}


@pytest.mark.parametrize("content", [None, 3, {}, {"currency": "EUR"}, CONTENT | {"drive": {"price": 1}}])
def test_what_a_file_has_in_the_place_of_prices_is_none(content: object) -> None:
    assert prices_of(content) is None
