"""Is the line of an error bounded, and does it keep what is allowed?"""

from __future__ import annotations

from typing import ClassVar

import pytest

from gpusim.engine.records import Result
from gpusim.errors import (
    FOREIGN,
    LONGEST_MESSAGE,
    LONGEST_VALUE,
    CodedError,
    ConfigError,
    ResultsError,
    one_line,
)


class SampleError(CodedError):
    texts: ClassVar[dict[str, str]] = {"unknown": "{value}: not one of {known}"}


def test_a_foreign_value_is_cut_and_a_list_of_names_is_not() -> None:
    names = ", ".join(f"name-{number}" for number in range(60))
    text = str(SampleError("unknown", value="x" * 10_000, known=names))
    assert "value" in FOREIGN and "known" not in FOREIGN
    assert text == f"{'x' * (LONGEST_VALUE - 3)}...: not one of {names}"


def test_every_line_is_bounded() -> None:
    text = str(SampleError("unknown", value="x" * 10_000, known="y" * 10_000))
    assert len(text) == LONGEST_MESSAGE
    assert len(str(ConfigError("key", "x" * 10_000, "y" * 10_000))) < 3 * LONGEST_MESSAGE


def test_former_names_of_a_results_fields_still_work() -> None:
    assert isinstance(Result.knots, property) and isinstance(Result.never_came, property)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b[31mred\x07\x00", "\\x1b[31mred\\x07\\x00"),
        ("\u202eright\u2066\u200f", "\\u202eright\\u2066\\u200f"),
        (" a\r\n\tb\u2028c\x0bd ", "a b c d"),
        ("\ud800\udcff\udc80", "\\ud800\\xff\\x80"),
        ("größe 名前 🙂", "größe 名前 🙂"),
        ("\x9b\xad\U000e0001", "\\x9b\\xad\\U000e0001"),
        (10**5000, "<int>"),
        ([None, "x"], "[None, 'x']"),
    ],
    ids=range(8),
)
def test_foreign_text_cannot_steer_a_terminal(value: object, shown: str) -> None:
    assert one_line(value) == shown
    assert str(SampleError("unknown", value=value, known="")) == f"{shown}: not one of"
    assert str(ConfigError("key", value, "no")) == f"key = {shown}: no"
    assert str(ConfigError("key", 1, f"not {shown}")) == f"key = 1: not {shown}"
    assert str(ResultsError(f"no {shown}")) == f"no {shown}"


def test_a_value_that_cannot_be_shown_has_its_type() -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError

    endless: list[object] = []
    for _ in range(100_000):
        endless = [endless]
    assert one_line(Silent()) == "<Silent>" and one_line(endless) == "<list>"
