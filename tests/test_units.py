"""Strings with units are parsed exactly, and meaningless strings are refused."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusim.units import format_bytes, parse_bytes, parse_bytes_per_s, parse_ns

SIZES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
DURATIONS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
DISPLAYED_DIGITS = 5e-4  # format_bytes shows four


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4TiB", 4 * 2**40),
        (" 10 TB ", 10**13),
        ("1.5 GiB", 3 * 2**29),
        (".5KiB", 512),
        ("1e3", 1000),
        ("1.5e3kB", 1_500_000),
        ("10_000", 10_000),
        ("0", 0),
        (0, 0),
        (4096, 4096),
        (4096.0, 4096),
        ("9007199254740993", 2**53 + 1),  # a double cannot hold it
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    parsed = parse_bytes(text)
    assert parsed == size
    assert isinstance(parsed, int)


@pytest.mark.parametrize("unit", SIZES)
def test_every_unit_of_size(unit: str) -> None:
    assert parse_bytes(f"3{unit}") == parse_bytes(f"3 {unit}") == 3 * SIZES[unit]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.009kB", 1009),
        ("32.3kB", 32_300),
        ("8553.38MB", 8_553_380_000),
        ("521.074TB", 521_074_000_000_000),
        ("66730.4TB", 66_730_400_000_000_000),
    ],
)
def test_decimal_fractions_are_exact(text: str, size: int) -> None:
    """As floats, 1.009 * 1000 is 1008.9999999999999."""
    assert parse_bytes(text) == size


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 9), st.sampled_from(sorted(SIZES)))
def test_a_decimal_number_of_a_unit_is_that_many_bytes_or_refused(
    digits: int, places: int, unit: str
) -> None:
    number = Decimal(digits).scaleb(-places)
    exact = Fraction(number) * SIZES[unit]
    text = f"{number:f}{unit}"
    if exact.denominator == 1:
        assert parse_bytes(text) == exact
    else:
        with pytest.raises(ValueError, match="whole number of bytes"):
            parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10Gbit/s", 1.25e9),
        ("1Tbit/s", 1.25e11),
        ("8bit/s", 1.0),
        ("100 Mbit/s", 1.25e7),
        ("1.5GB/s", 1.5e9),
        ("128MiB/s", 2.0**27),
        ("0", 0.0),
        (12.5e9, 12.5e9),
        ("unlimited", math.inf),
    ],
)
def test_rates(text: str | float, rate: float) -> None:
    assert parse_bytes_per_s(text) == rate


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("5s", 5 * 10**9),
        ("300ms", 3 * 10**8),
        ("2h", 7200 * 10**9),
        ("1.5min", 90 * 10**9),
        (5, 5 * 10**9),
        ("0.25", 250_000_000),
        (".1us", 100),
        ("0.4ns", 0),
        (0.2, 200_000_000),
    ],
)
def test_durations(text: str | float, ns: int) -> None:
    parsed = parse_ns(text)
    assert parsed == ns
    assert isinstance(parsed, int)


def test_a_bare_duration_is_of_the_unit_asked_for() -> None:
    assert parse_ns(300, "ms") == parse_ns("300", "ms") == parse_ns("0.3s", "ms") == 300_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "TiB",
        "4XB",
        "4 tib",
        "-1",
        "-1GB",
        "1,5GB",
        "0x10",
        "nan",
        "inf",
        "1e",
        "1 2",
        "٣",
        "4Gbit/s",
        "5s",
        "1..5",
        "4TiB/s",
        "4 TiB extra",
        "1e999",
        "unlimited",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5])
def test_numbers_that_are_no_quantity_are_refused(value: float) -> None:
    for parse in (parse_bytes, parse_bytes_per_s, parse_ns):
        with pytest.raises(ValueError):
            parse(value)


@pytest.mark.parametrize("text", ["", "fast", "5s", "4GiB", "-1Gbit/s", "1gbit/s", "1GBIT/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes_per_s(text)


@pytest.mark.parametrize("text", ["", "soon", "4GiB", "-1s", "5 S", "5m", "never"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ns(text)


@pytest.mark.parametrize("text", ["1e308Tbit/s", "1" + "0" * 400 + "Gbit/s"])
def test_a_rate_beyond_every_number_is_refused_not_unlimited(text: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_bytes_per_s(text)


def test_the_largest_exponents_are_large_not_a_crash() -> None:
    assert parse_bytes("1e308TiB") == 10**308 * 2**40
    assert parse_ns("1e308h") == 10**308 * 3600 * 10**9
    assert parse_ns("1e-999999999h") == 0


def test_a_fraction_of_a_byte_is_refused() -> None:
    for value in ("0.5", 0.5, "1e-5", "0.3KiB"):
        with pytest.raises(ValueError, match="whole number of bytes"):
            parse_bytes(value)


def test_an_unknown_unit_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB"):
        parse_bytes("4Tib")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**30, "1 GiB"),
        (4398046511104, "4 TiB"),
        (10**13, "9.095 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("parse", "text", "meant"),
    [
        (parse_bytes, "1T", ["1TiB", "1TB"]),
        (parse_bytes, "4gib", ["4GiB"]),
        (parse_bytes, "1Ti", ["1TiB"]),
        (parse_bytes, "12.6GiB", ["12902MiB"]),
        (parse_bytes_per_s, "10Gbps", ["10Gbit/s"]),
        (parse_bytes_per_s, "10G", ["10Gbit/s"]),
        (parse_bytes_per_s, "1GBps", ["1GB/s"]),
        (parse_bytes_per_s, "1MiB", ["1MiB/s"]),
        (parse_ns, "4sec", ["4s"]),
        (parse_ns, "20minutes", ["20min"]),
    ],
)
def test_another_spelling_is_told_what_to_type(parse, text: str, meant: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    hint = str(caught.value).partition("Did you mean ")[2]
    assert hint == " or ".join(f'"{one}"' for one in meant) + "?"
    for one in meant:
        parse(one)


@settings(deadline=None)
@given(st.integers(1, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_sizes_come_back_from_their_words(number: int, unit: str) -> None:
    size = number * SIZES[unit]
    assert parse_bytes(format_bytes(size)) == size


@settings(deadline=None)
@given(st.integers(1, 2**50))
def test_words_for_a_size_are_near_it(size: int) -> None:
    number, unit = format_bytes(size).split()
    assert abs(float(number) * SIZES[unit] / size - 1) <= DISPLAYED_DIGITS


@settings(deadline=None)
@given(st.integers(0, 10**18), st.sampled_from(sorted(DURATIONS)))
def test_whole_durations_are_exact(number: int, unit: str) -> None:
    assert parse_ns(f"{number}{unit}") == number * DURATIONS[unit]
