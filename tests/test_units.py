"""Sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.units import GIB, KIB, MIB, format_bytes, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("4KiB", 4096),
        ("4KB", 4000),
        (" 4 GiB ", 4 * 1024**3),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("0.7GB", 700_000_000),
        ("2PB", 2 * 10**15),
        ("9007199254740993B", 9007199254740993),
        ("1e9", 10**9),
        ("1.5e3", 1500),
        ("1e3KiB", 1024_000),
        ("25e-1 KB", 2500),
        (1e9, 10**9),
    ],
)
def test_a_size_is_exact_and_binary_and_decimal_units_differ(text: str | int, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", -1, "1 2", "four", "e9", "1e9999", 1.5, True, None, [1]])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size of 0 or more: bytes, or a number with a unit, such as 4GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "meant"), [("4gib", "GiB"), ("4Kb", "KB"), ("4mib", "MiB")])
def test_a_misspelt_unit_is_answered_with_the_nearest(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown unit of size .*: did you mean {meant}\?"):
        parse_bytes(text)


def test_a_unit_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(ValueError, match=r"unknown unit of time 'x' \(known: ms, s, min, h\)"):
        parse_seconds("10x")


def test_a_fraction_of_a_byte_is_refused() -> None:
    for text in ("1.1KiB", "1e-3"):
        with pytest.raises(ValueError, match="whole number of bytes"):
            parse_bytes(text)


@given(st.integers(0, 2**60))
def test_every_whole_number_of_bytes_is_read_as_itself(nbytes: int) -> None:
    assert parse_bytes(nbytes) == parse_bytes(str(nbytes)) == parse_bytes(f"{nbytes}B") == nbytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (10, 10.0),
        (0.5, 0.5),
        ("10", 10.0),
        ("10s", 10.0),
        ("500 ms", 0.5),
        ("2min", 120.0),
        ("1h", 3600.0),
        ("1e-3", 0.001),
        ("1e3ms", 1.0),
    ],
)
def test_a_duration_may_have_a_unit(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", -1, "-1s", "1e9999", float("inf"), float("nan"), True, None])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match=r"expected a duration of 0 or more: seconds, .* such as 10s"):
        parse_seconds(text)


def test_sizes_are_shown_with_the_largest_unit_that_fits() -> None:
    sizes = (0, 512, 4 * KIB, 1536 * KIB, 3 * MIB, GIB, 2048 * GIB)
    assert [format_bytes(nbytes) for nbytes in sizes] == ["0 B", "512 B", "4 KiB", "1.5 MiB", "3 MiB", "1 GiB", "2 TiB"]
