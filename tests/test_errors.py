"""Is the line of an error bounded, and does it keep what is allowed?"""

from __future__ import annotations

from typing import ClassVar

from gpusim.engine.records import Result
from gpusim.errors import FOREIGN, LONGEST_MESSAGE, LONGEST_VALUE, CodedError, ConfigError


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
