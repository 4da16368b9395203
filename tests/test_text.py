"""Do numbers, lists and tables read as people write them?"""

from __future__ import annotations

import pytest

from gpusim.text import (
    capitalized,
    count_noun,
    did_you_mean,
    format_duration,
    format_number,
    join_words,
    rate_unit,
    shorten,
    size_unit,
    text_table,
    time_unit,
    version_name,
)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "0 ms"),
        (0.05, "50 ms"),
        (1.797, "1.8 s"),
        (99.94, "99.9 s"),
        (119.0, "119 s"),
        (1234.0, "20.6 min"),
        (86400.0, "24 h"),
    ],
)
def test_durations_have_three_digits_and_a_unit(time_s: float, text: str) -> None:
    assert format_duration(time_s) == text


def test_a_duration_can_have_the_unit_of_another() -> None:
    assert format_duration(30.0, like_s=600.0) == "0.5 min"


@pytest.mark.parametrize(
    ("number", "text"), [(0.1234, "0.123"), (4.567, "4.57"), (89.1, "89.1"), (12345.6, "12346")]
)
def test_numbers_have_three_digits_and_no_exponent(number: float, text: str) -> None:
    assert format_number(number) == text


def test_the_unit_of_an_axis_fits_at_least_twice() -> None:
    assert time_unit(1.5) == ("s", 1.0)
    assert time_unit(119.0) == ("s", 1.0)
    assert time_unit(120.0) == ("min", 60.0)
    assert size_unit(2**30) == ("MiB", 2.0**20)
    assert size_unit(2**31) == ("GiB", 2.0**30)
    assert rate_unit(1.25e9) == ("MB/s", 1e6)


def test_a_bare_version_is_told_its_name() -> None:
    known = ["qemu_8_2", "qemu_10_1", "seed_v2"]
    for typed, meant in (("8.2", "qemu_8_2"), ("10.1", "qemu_10_1"), ("8_2", "qemu_8_2")):
        assert did_you_mean(typed, known) == f" Did you mean {meant}?"
    assert did_you_mean("12.0", known) == did_you_mean("", known) == ""


def test_versions_have_names() -> None:
    assert version_name("qemu_9_2") == "QEMU 9.2"
    assert version_name("custom") == "custom"


def test_lists_and_counts() -> None:
    assert [join_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert join_words(["a", "b"], "or") == "a or b"
    assert [count_noun(count, "pass", "passes") for count in (1, 2)] == ["1 pass", "2 passes"]
    assert count_noun(0, "sync") == "0 syncs"
    assert capitalized("qEMU stopped") == "QEMU stopped"
    assert capitalized("") == ""


def test_a_table_is_aligned_without_trailing_spaces() -> None:
    rows = [("name", "time", "verdict"), ("a", "1.5 s", "ok"), ("long name", "10 s", "failed")]
    assert text_table(rows, left_columns=(0, 2), indent="  ") == (
        "  name        time  verdict\n  a          1.5 s  ok\n  long name   10 s  failed"
    )


def test_a_long_text_ends_with_an_ellipsis() -> None:
    assert shorten("0123456789", 10) == "0123456789"
    assert shorten("0123456789a", 10) == "0123456..."
