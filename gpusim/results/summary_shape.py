"""What summary.json must look like. All that reads a summary checks it here, once.

A summary may come from another program, from another version of gpusim, or from a damaged disk. Keys
that the registry of fields does not know are allowed, because newer versions may have more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from gpusim.engine.records import Status, Verdict
from gpusim.errors import one_line
from gpusim.results.summary_fields import SUMMARY_FIELDS, SummaryField
from gpusim.text import Message

STATUSES = get_args(Status)
VERDICTS = (*get_args(Verdict), None)
LONGEST_VALUE = 80  # characters of a value in a message
ROUNDING = -1e-6  # a difference of two equal times may be less than zero
# The engine's clock ends after 2^63 ns, which is 292 years. Counts and bytes fit 64 bits.
LARGEST = {"s": 1e10, "ms": 1e13, "vCPU s": 1e14, "%": 1e6}
LARGEST_COUNT = 2**63


def find_fault(summary: object) -> Message | None:
    """Return why a value is no summary of gpusim, or which key is damaged. None if it is whole.

    Args:
        summary: what gpusim.reading read, so that all its numbers are finite.
    """
    if not isinstance(summary, dict):
        return Message("not_an_object")
    status, verdict = summary.get("status"), summary.get("verdict")
    if status not in STATUSES or verdict not in VERDICTS:
        data = {"status": one_line(repr(status), LONGEST_VALUE)}
        return Message(
            "foreign_summary", data | {"verdict": one_line(repr(verdict), LONGEST_VALUE)}
        )
    if status != "failed" and summary.get("total_time_s") is None:
        return _damaged(summary, "total_time_s", _allowed(SUMMARY_FIELDS["total_time_s"]))
    for key, field in SUMMARY_FIELDS.items():
        if summary.get(key) is not None and not _fits(summary[key], field):
            return _damaged(summary, key, _allowed(field))
    return None


def _damaged(summary: Mapping[str, Any], key: str, allowed: str) -> Message:
    value = one_line(repr(summary.get(key)), LONGEST_VALUE)
    return Message("damaged_summary", {"key": key, "value": value, "allowed": allowed})


def _fits(value: object, field: SummaryField) -> bool:
    if field.unit == "text":
        return isinstance(value, str)
    if field.unit == "names":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if field.key == "seed":
        return isinstance(value, int)
    return ROUNDING <= value <= LARGEST.get(field.unit, LARGEST_COUNT)


def _allowed(field: SummaryField) -> str:
    if field.unit in ("text", "names"):
        return {"text": "a text", "names": "a list of texts"}[field.unit]
    if field.key == "seed":
        return "a whole number"
    return f"a number from 0 to {LARGEST.get(field.unit, LARGEST_COUNT):.3g}"
