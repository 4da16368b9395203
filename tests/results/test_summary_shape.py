"""Is each field of summary.json checked by its type and range?"""

from __future__ import annotations

from typing import Any

import pytest

from gpusim.results.summary_fields import SUMMARY_FIELDS
from gpusim.results.summary_shape import find_fault
from tests.results.sweep_folders import SUMMARY

NUMBERS = [key for key, field in SUMMARY_FIELDS.items() if field.is_number and key != "seed"]
TEXTS = [key for key, field in SUMMARY_FIELDS.items() if field.unit == "text"]


def code(summary: Any) -> str | None:
    fault = find_fault(summary)
    return fault.code if fault else None


def test_a_whole_summary_has_no_fault() -> None:
    assert code(SUMMARY) is None
    assert code({"status": "failed", "error": "no memory"}) is None
    assert code({"status": "incomplete", "total_time_s": 1, "of_a_newer_version": [{}]}) is None


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_finite_and_not_negative(key: str) -> None:
    for bad in (True, "1", [], {}, -1, 1e300):
        assert code(SUMMARY | {key: bad}) == "damaged", bad
    for good in (0, 1.5, -1e-9):  # a difference of equal times, rounded
        assert code(SUMMARY | {key: good}) is None


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_text(key: str) -> None:
    wanted = "foreign_summary" if key in ("status", "verdict") else "damaged"
    for bad in (1, [], {"a": 1}, False):
        assert code(SUMMARY | {key: bad}) == wanted


def test_other_faults() -> None:
    assert code([SUMMARY]) == "not_an_object"
    assert code({}) == "foreign_summary"
    assert code(SUMMARY | {"seed": 1.5}) == "damaged"
    assert code(SUMMARY | {"left_behind": "db"}) == "damaged"
    assert code(SUMMARY | {"left_behind": ["db", 1]}) == "damaged"
    assert code(SUMMARY | {"total_time_s": None}) == "damaged"


def test_a_fault_is_bounded() -> None:
    fault = find_fault(SUMMARY | {"reason": ["x" * 100_000]})
    assert fault
    assert max(map(len, map(str, fault.data.values()))) < 100
