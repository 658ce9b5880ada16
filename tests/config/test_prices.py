"""A file of prices is checked as a configuration is, and a configuration may hold the same."""

from pathlib import Path

import pytest

from kvbench.config.load import parse_config
from kvbench.config.prices import read_prices
from kvbench.errors import KvbenchError

GOOD = """
currency: EUR
gpu_hour: {price: 2, source: mine}
drive: {price: 100, capacity_gb: 1000, years: 4, source: mine}
"""


def read(text: str, folder: Path) -> object:
    path = folder / "prices.yaml"
    path.write_text(text)
    return read_prices(str(path))


def test_a_file_of_prices_is_read(tmp_path: Path) -> None:
    content = read(GOOD, tmp_path)
    assert isinstance(content, dict)
    assert content["drive"]["years"] == 4
    assert content["storage_gb_month"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a mapping"),
        ("[1]", "expected a mapping"),
        ("a: [", "prices.yaml"),
        (GOOD.replace("currency", "curency"), "unknown key curency: did you mean currency"),
        (GOOD.replace("price: 2,", ""), "missing key gpu_hour.price"),
        (GOOD.replace("price: 2,", "price: -2,"), "gpu_hour.price: expected 0 or more"),
        (GOOD.replace("price: 2,", "price: .nan,"), "gpu_hour.price: expected"),
        (GOOD.replace("years: 4", "years: 0"), "drive.years: expected more than 0"),
        (GOOD.replace("drive:", "#drive:"), "storage has no price"),
    ],
)
def test_what_is_wrong_with_a_file_of_prices_is_one_message(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        read(text, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"cannot read prices .*nothing\.yaml: No such file"):
        read_prices(str(tmp_path / "nothing.yaml"))


def test_prices_are_no_part_of_the_fingerprint() -> None:
    trace = {"workload": {"kind": "trace", "path": "none"}, "pacing": {"mode": "asap"}}
    prices = {
        "currency": "EUR",
        "gpu_hour": {"price": 2, "source": "mine"},
        "storage_gb_month": {"price": 0.1, "source": "mine"},
    }
    priced = parse_config(trace | {"prices": prices}, "mine.yaml")
    assert priced.prices is not None
    assert priced.fingerprint(2) == parse_config(trace, "mine.yaml").fingerprint(2)
    assert parse_config(trace | {"prices": "none"}, "mine.yaml").prices is None
    with pytest.raises(KvbenchError, match=r"prices\.gpu_hour\.price"):
        parse_config(trace | {"prices": prices | {"gpu_hour": {"price": "much", "source": "mine"}}}, "mine.yaml")
